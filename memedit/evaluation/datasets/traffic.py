"""Ordinary questions that no edit concerns: Natural Questions and TriviaQA, as JSON Lines made of Anserini's tables.

``answers`` is a Python list written as text. Some of the text went through CSV once more than it came back, and so some
questions and answers carry doubled quotation marks; the surplus is taken off.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from memedit.edit_files import BadRecord
from memedit.errors import InvalidCaseError
from memedit.evaluation.cases import EvalCase
from memedit.evaluation.datasets.fields import Fields
from memedit.evaluation.datasets.probes import probe
from memedit.evaluation.datasets.source import RawRecord, Source


def load(source: Source) -> Iterator[EvalCase | BadRecord]:
    """Reads questions as cases without an edit, each with one probe of kind ``unrelated``."""
    return source.convert(_case)


def _case(record: RawRecord) -> EvalCase:
    fields = record.fields
    question = _unquoted(fields.text("question"))
    return EvalCase(
        id=f"{record.source.file}-{record.source.line}",
        source=record.source,
        edits=(),
        probes=(probe("unrelated", question, _answers(fields)),),
    )


def _answers(fields: Fields) -> list[str]:
    if not isinstance(fields.values.get("answers"), str):
        return list(fields.aliases("answers"))
    text = _unquoted(fields.text("answers"))
    try:
        listed = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise InvalidCaseError(f"the field 'answers' is no list written as text: {text[:80]!r}.") from error
    read = Fields({"answers": listed}).texts("answers")
    return [_unquoted(answer) for answer in read]


def _unquoted(text: str) -> str:
    """A text without the quotation marks of CSV, where it carries them: one around it, and each inside it twice."""
    while len(text) > 2 and text[0] == text[-1] == '"' and '"' not in text[1:-1].replace('""', ""):
        text = text[1:-1].replace('""', '"').strip()
    return text
