"""The further probes that a run can ask of every case: behind a context, and after a contradicting edit.

The texts of contexts are taken from a file of plain paragraphs; what `contexts` does with them is pure. The same data,
settings and seed give the same probes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from memedit.errors import ConfigError, DataFileError, InvalidCaseError
from memedit.evaluation.cases import EvalCase, Probe, conflicting
from memedit.evaluation.contexts import after_document, after_passage, after_turns

__all__ = ["CONTEXTS", "PARAGRAPHS_FILE", "Context", "Paragraphs", "with_conflicts", "with_contexts"]

Context = Literal["passage", "turns", "document"]
"""What can stand before a probe: an unrelated passage, earlier turns that mention the old answer, a long document."""

CONTEXTS: tuple[Context, ...] = get_args(Context)

PARAGRAPHS_FILE = "text/wikipedia_en.jsonl"
"""Plain text, as JSON Lines with the field ``text``: one article's sentences a record, one a line."""

PASSAGE_WORDS = (20, 120)
"""A passage has between so many words."""


@dataclass(frozen=True, slots=True)
class Paragraphs:
    """Texts that contexts are made of.

    Attributes:
        texts: Paragraphs of 20 to 120 words, in the order of the file.
    """

    texts: tuple[str, ...]

    @classmethod
    def load(cls, data: str | Path | None) -> Paragraphs:
        """Read the beginnings of the articles of a data folder.

        Args:
            data: The data folder.

        Raises:
            ConfigError: Nothing says where the folder is.
            DataFileError: The file is absent or malformed.
        """
        if data is None:
            raise ConfigError("Contexts are made of texts from the data folder; give data=.")
        file = Path(data) / PARAGRAPHS_FILE
        try:
            lines = file.read_text(encoding="utf-8").rstrip("\n").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DataFileError(f"{file}, which contexts are made of, cannot be read: {error}") from error
        texts = []
        for number, line in enumerate(lines, start=1):
            try:
                text = json.loads(line)["text"]
            except (ValueError, TypeError, KeyError) as error:
                raise DataFileError(f"{PARAGRAPHS_FILE}:{number}: no JSON object with the field 'text'.") from error
            texts.append(_beginning(text))
        least, most = PASSAGE_WORDS
        return cls(tuple(text for text in texts if least <= len(text.split()) <= most))


def with_contexts(
    cases: Sequence[EvalCase], kinds: Sequence[Context], paragraphs: Paragraphs, *, document_words: int, seed: int = 0
) -> list[EvalCase]:
    """Adds to each case its edit's probe behind each context, and its first near miss behind a passage.

    Args:
        cases: The cases.
        kinds: The contexts.
        paragraphs: What they are made of.
        document_words: How many words a document has at least.
        seed: What draws them.

    Returns:
        The cases with the probes added. Where a context cannot be made (no old answer is known for turns, no text is
        free of the probe's answers), it is left out.
    """
    make: dict[Context, Callable[[Probe], Probe]] = {
        "passage": lambda probe: after_passage(probe, paragraphs.texts, seed=seed),
        "turns": lambda probe: after_turns(probe, seed=seed),
        "document": lambda probe: after_document(probe, paragraphs.texts, words=document_words, seed=seed),
    }

    def added(case: EvalCase) -> Iterator[Probe]:
        edit = next((probe for probe in case.probes if probe.kind == "edit"), None)
        near = next((probe for probe in case.probes if not probe.in_scope and probe.base_kind is None), None)
        wanted = [(kind, edit) for kind in kinds] + [(kind, near) for kind in kinds if kind == "passage"]
        for kind, probe in wanted:
            if probe is not None:
                try:
                    yield make[kind](probe)
                except InvalidCaseError:
                    continue

    return [replace(case, probes=(*case.probes, *added(case))) for case in cases]


def with_conflicts(cases: Sequence[EvalCase]) -> list[EvalCase]:
    """Adds to the cases those in which the edit comes after one that says what held before."""
    made = (conflicting(case) for case in cases)
    return [*cases, *(case for case in made if case is not None)]


def _beginning(text: str) -> str:
    """The first lines of an article, up to the words that a passage has."""
    kept: list[str] = []
    for line in text.splitlines():
        if kept and len(" ".join([*kept, line]).split()) > PASSAGE_WORDS[1]:
            break
        kept.append(line.strip())
    return " ".join(kept)
