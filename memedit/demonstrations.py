"""Demonstrations of in-context editing, and the nearest ones to a query.

In-context editing by demonstrations (IKE, Zheng et al. 2023) shows the model facts and what follows from each: the
fact's own prompt is answered with its target (copy), a paraphrase too (update), an unrelated prompt as ever (retain).
The project's own small set is ``data/demonstrations.jsonl``: invented facts, and true ones for the unrelated prompts.

A demonstration file is JSON Lines in UTF-8, an object a line with the string fields of `Demonstration`; blank lines are
skipped. This file knows nothing of tokenizers or of how a demonstration is worded in a prompt.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from classifiers import TextEncoder
from memedit.errors import DataFileError
from memedit.suggestions import nearest

__all__ = ["Demonstration", "DemonstrationSet", "default_demonstrations", "read_demonstrations"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """A fact, and what it changes and leaves.

    Attributes:
        prompt: The words that the target continues, or the question that it answers.
        target: The new answer.
        subject: What the fact is about.
        paraphrase: Another prompt that the target answers.
        unrelated: A prompt that the fact has nothing to do with.
        unrelated_answer: Its answer, with or without the fact.
    """

    prompt: str
    target: str
    subject: str
    paraphrase: str
    unrelated: str
    unrelated_answer: str


class DemonstrationSet:
    """Demonstrations that can be looked up by similarity to a query.

    Args:
        demonstrations: The demonstrations; their order decides between equally similar ones.
        encoder: The encoder whose vectors the queries will be.
    """

    def __init__(self, demonstrations: Iterable[Demonstration], *, encoder: TextEncoder) -> None:
        self.demonstrations = tuple(demonstrations)
        texts = [f"{demonstration.prompt} {demonstration.target}" for demonstration in self.demonstrations]
        self._encoder = encoder
        self._vectors: NDArray[np.float32] = (
            encoder.encode(texts) if texts else np.zeros((0, encoder.dimension), dtype=np.float32)
        )

    def __len__(self) -> int:
        return len(self.demonstrations)

    def nearest(self, query: str, k: int) -> tuple[Demonstration, ...]:
        """The demonstrations whose facts are most similar to a query.

        Args:
            query: What is asked.
            k: How many are wanted.

        Returns:
            At most ``k`` demonstrations, the most similar first; of equally similar ones, the earlier.
        """
        similarities = self._vectors @ self._encoder.encode([query])[0]
        order = np.argsort(-similarities, kind="stable")[:k]
        return tuple(self.demonstrations[place] for place in order)


def default_demonstrations() -> tuple[Demonstration, ...]:
    """The project's own demonstrations."""
    source = resources.files("memedit").joinpath("data", "demonstrations.jsonl")
    return _parse(source.read_text(encoding="utf-8").split("\n"), "demonstrations.jsonl")


def read_demonstrations(path: str | Path) -> tuple[Demonstration, ...]:
    """Read a demonstration file.

    Args:
        path: A JSON Lines file as the module docstring describes it.

    Returns:
        The demonstrations in the file's order.

    Raises:
        DataFileError: The file cannot be read, or a line is not a demonstration; names file, line and field.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataFileError(f"{path}: cannot be read as a UTF-8 text file: {error}") from error
    return _parse(text.split("\n"), str(path))


def _parse(lines: Sequence[str], name: str) -> tuple[Demonstration, ...]:
    return tuple(_demonstration(line, f"{name}:{number}") for number, line in enumerate(lines, start=1) if line.strip())


def _demonstration(line: str, place: str) -> Demonstration:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataFileError(
            f"{place}: not JSON ({error.msg} at column {error.colno}); write one object a line"
        ) from error
    if not isinstance(record, dict):
        raise DataFileError(f"{place}: a {type(record).__name__} where an object is wanted; write one object a line")
    names = [field.name for field in fields(Demonstration)]
    for key in record:
        if key not in names:
            near = nearest(key, names)
            hint = f"known fields are {', '.join(names)}" if near is None else f"did you mean {near!r}?"
            raise DataFileError(f"{place}: unknown field {key!r}; {hint}")
    for field_name in names:
        if field_name not in record:
            raise DataFileError(f"{place}: field {field_name!r} is missing; every one of {', '.join(names)} is needed")
        value = record[field_name]
        if not isinstance(value, str) or not value.strip():
            raise DataFileError(f"{place}: field {field_name!r} is {value!r}; it has to be a string that is not empty")
    return Demonstration(**record)
