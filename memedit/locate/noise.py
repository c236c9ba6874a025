"""The noise that corrupts a subject: how strong it is, and drawing it.

Meng et al. 2022, *Locating and Editing Factual Associations in GPT*, section 2.1, footnote 3: Gaussian noise with three
times the standard deviation of the embeddings of subject tokens, over a body of subjects. What is measured, and what
the noise is added to, is the output of the embedding layer; in Gemma that is scaled already.

This file knows nothing of prompts or runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib import resources
from typing import TYPE_CHECKING, Any

from memedit.architectures import architecture_of
from memedit.errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = ["common_subjects", "draw", "embedding_deviation"]


def common_subjects() -> tuple[str, ...]:
    """A body of subjects for when there is no file of facts: names of people, places, works, firms and things."""
    text = resources.files("memedit").joinpath("data", "subjects.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))


def embedding_deviation(model: Any, tokenizer: Any, subjects: Iterable[str]) -> float:
    """The standard deviation of all values in the embeddings of the tokens of some subjects.

    Args:
        model: The model.
        tokenizer: Its tokenizer; each subject is tokenised by itself, without special tokens.
        subjects: The body of subjects; one that is there twice counts twice, as in the paper's code.

    Raises:
        ConfigError: The subjects have fewer than two tokens.
    """
    import torch

    ids = [token for text in subjects for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
    if len(ids) < 2:
        raise ConfigError("the strength of the noise is measured over a body of subjects; it is empty")
    embeddings = model.get_submodule(architecture_of(model).embeddings)
    with torch.no_grad():
        embedded = embeddings(torch.tensor([ids], device=model.device))
    return float(embedded.double().std())


def draw(text: str, *, seed: int, samples: int, tokens: int, width: int) -> torch.Tensor:
    """Standard normal numbers, ``[samples, tokens, width]``, in 64-bit precision.

    The same for the same text and seed, whatever was drawn before; independent between texts. The first samples of a
    larger number are the same.

    Args:
        text: The prompt that they are for.
        seed: The seed.
        samples: How many noise samples.
        tokens: How many tokens are corrupted.
        width: The width of an embedding.
    """
    import torch

    digest = hashlib.sha256(f"{seed}:{text}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.randn(samples, tokens, width, generator=generator, dtype=torch.float64)
