"""Trained hypernetworks on disk: the folders that KE and MEND load from, and finding the one of a model.

A folder holds one hypernetwork of one base model, in two files:

- ``hypernetwork.json``: ``format_version``; ``method``; ``base``, the name and the fingerprint of the model that it was
  trained on; ``config``, what the method has to say of its shape; ``card``, what the training has to say of it;
  ``tensors``, the other file's name and SHA-256.
- ``hypernetwork-<digest>.safetensors``: its tensors, by the names that the method gives them.

A hypernetwork reads the gradients of the very weights it was trained on, so it is refused for any others. Some come
with memedit; others are looked for in ``hypernetworks/<method>/`` of memedit's cache. This file knows nothing of what a
method makes of the tensors, or of how they were trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from classifiers.saved_folder import SavedFolder
from memedit.editors.subject import Subject
from memedit.errors import DataFileError, UnsupportedCallError
from memedit.pulling import cache_folder

if TYPE_CHECKING:
    import torch

__all__ = [
    "SavedHypernetwork",
    "find_hypernetwork",
    "load_hypernetwork",
    "packed",
    "save_hypernetwork",
]

_LARGE = 20_000
"""Numbers of a matrix from which on it is kept in float16; statistics and scales are smaller, and need float32."""

_SAVED = SavedFolder(stem="hypernetwork", what="hypernetwork", version=1, damaged=DataFileError, newer=DataFileError)


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedHypernetwork:
    """A trained hypernetwork as it is saved.

    Attributes:
        method: The method that it belongs to.
        base: The name of the model that it was trained on.
        base_fingerprint: That model's fingerprint.
        config: Its shape, as the method reads it; JSON.
        tensors: Its tensors.
        card: What the training has to say; JSON.
    """

    method: str
    base: str
    base_fingerprint: str
    config: Mapping[str, Any]
    tensors: Mapping[str, NDArray[np.generic]]
    card: Mapping[str, Any] = field(default_factory=dict)


def packed(
    network: torch.nn.Module,
    *,
    method: str,
    base: str,
    base_fingerprint: str,
    config: Mapping[str, Any],
    card: Mapping[str, Any],
) -> SavedHypernetwork:
    """A hypernetwork as it is saved: large matrices in float16, all else in float32.

    Args:
        network: The hypernetwork.
        method: The method that it belongs to.
        base: The name of the model that it was trained on.
        base_fingerprint: That model's fingerprint, unedited.
        config: Its shape.
        card: What the training has to say.
    """
    tensors = {name: value.detach().cpu().numpy() for name, value in network.state_dict().items()}
    return SavedHypernetwork(
        method=method,
        base=base,
        base_fingerprint=base_fingerprint,
        config=config,
        tensors={
            name: value.astype(np.float16 if value.ndim == 2 and value.size >= _LARGE else np.float32)
            for name, value in tensors.items()
        },
        card=card,
    )


def save_hypernetwork(saved: SavedHypernetwork, folder: str | Path) -> None:
    """Saves a hypernetwork to a folder, which is created; one saved there before is replaced as a whole.

    Args:
        saved: The hypernetwork.
        folder: Where to save it.

    Raises:
        OSError: The folder cannot be written.
    """
    content = {
        "method": saved.method,
        "base": {"name": saved.base, "fingerprint": saved.base_fingerprint},
        "config": dict(saved.config),
        "card": dict(saved.card),
    }
    _SAVED.save(folder, content, saved.tensors)


def load_hypernetwork(folder: str | Path, *, method: str, subject: Subject) -> SavedHypernetwork:
    """Loads a hypernetwork from a folder.

    Args:
        folder: Where it was saved.
        method: The method that is to use it.
        subject: The model that it is to edit.

    Raises:
        DataFileError: There is none, or it is damaged, of a newer format or of another method.
        UnsupportedCallError: It was trained on another model.
    """
    saved = _described(Path(folder))
    if saved.method != method:
        raise DataFileError(f"{folder} holds a hypernetwork of {saved.method}, and {method} is to load it.")
    if saved.base_fingerprint != subject.fingerprint:
        raise UnsupportedCallError(
            f"{method} cannot edit {subject.name}: the hypernetwork in {folder} was trained on {saved.base} with "
            f"fingerprint {saved.base_fingerprint}, and this model has {subject.fingerprint} (one that is loaded in "
            f"another precision counts as another); load that model, or train for this one: {_command(method, subject)}"
        )
    manifest = _SAVED.load_manifest(folder)
    return _described(Path(folder), tensors=_SAVED.load_tensors(folder, manifest))


def find_hypernetwork(method: str, subject: Subject) -> SavedHypernetwork:
    """Finds the hypernetwork of a model among those that come with memedit and those in the cache.

    Args:
        method: The method that is to use it.
        subject: The model that it is to edit.

    Raises:
        UnsupportedCallError: There is none; says which there are, and how one is trained.
        DataFileError: One is damaged.
    """
    known: list[str] = []
    for folder in _folders(method):
        saved = _described(folder)
        if saved.base_fingerprint == subject.fingerprint:
            return load_hypernetwork(folder, method=method, subject=subject)
        known.append(f"{saved.base} ({saved.base_fingerprint})")
    raise UnsupportedCallError(
        f"{method} cannot edit {subject.name}: it needs a hypernetwork that was trained on this very model, with "
        f"fingerprint {subject.fingerprint}, and there is none; there are those of {', '.join(known) or 'no model'} "
        f"(a model that is loaded in another precision counts as another). Train one: {_command(method, subject)}"
    )


def _folders(method: str) -> Iterator[Path]:
    """Folders that hold hypernetworks of a method."""
    shipped = Path(str(resources.files("memedit").joinpath("data", "hypernetworks")))
    for root in (shipped, cache_folder() / "hypernetworks"):
        yield from sorted(path.parent for path in (root / method).glob(f"*/{_SAVED.manifest_name}"))


def _described(folder: Path, *, tensors: Mapping[str, NDArray[np.generic]] | None = None) -> SavedHypernetwork:
    """What the manifest of a folder says, with the tensors that were read beside it."""
    manifest = _SAVED.load_manifest(folder)
    try:
        return SavedHypernetwork(
            method=str(manifest["method"]),
            base=str(manifest["base"]["name"]),
            base_fingerprint=str(manifest["base"]["fingerprint"]),
            config=dict(manifest["config"]),
            tensors=tensors or {},
            card=dict(manifest["card"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataFileError(
            f"{folder / _SAVED.manifest_name} is not the description of a hypernetwork: {error!r}"
        ) from error


def _command(method: str, subject: Subject) -> str:
    place = cache_folder() / "hypernetworks" / method / subject.name
    return f"memedit train hypernetwork --method {method} --base {subject.name} --out {place}"
