"""Sanitation: answers that a model is to withhold.

The task is of Ishibashi and Shimodaira 2023, *Knowledge Sanitization of Large Language Models*, the form that of
KnowEdit.

No published file has been read; the loader follows the description of the format: an object with ``K_F``, what is to
be forgotten, and ``K_R``, what is to be retained. Each question to forget is a case whose edit answers it with the
refusal; each question to retain is a case without an edit.
"""

from __future__ import annotations

from collections.abc import Iterator

from memedit.edit_files import BadRecord
from memedit.errors import InvalidCaseError
from memedit.evaluation.cases import EvalCase
from memedit.evaluation.datasets.fields import Fields
from memedit.evaluation.datasets.probes import probe
from memedit.evaluation.datasets.source import RawRecord, Source
from memory_store import Edit


def load(source: Source) -> Iterator[EvalCase | BadRecord]:
    """Reads the questions of Sanitation, first those to forget, then those to retain."""
    for record in source.records():
        if isinstance(record, BadRecord):
            yield record
            continue
        for key, read in (("K_F", _forgotten), ("K_R", _retained)):
            try:
                entries = _entries(record, key)
            except InvalidCaseError as error:
                yield BadRecord(record.source.file, record.source.line, str(error))
                continue
            for place, entry in enumerate(entries):
                try:
                    yield read(record, entry, f"{key}-{place}")
                except InvalidCaseError as error:
                    yield BadRecord(record.source.file, record.source.line, str(error))


def _entries(record: RawRecord, key: str) -> list[Fields]:
    if key not in record.fields.values:
        raise InvalidCaseError(f"the field '{key}' is missing.")
    return record.fields.parts(key)


def _forgotten(record: RawRecord, entry: Fields, name: str) -> EvalCase:
    question, refusal = entry.text("question"), entry.text("target_new")
    told = probe("edit", question, [refusal], old=entry.aliases("ground_truth"), of_edit=0)
    return EvalCase(id=name, source=record.source, edits=(Edit(prompt=question, target=refusal),), probes=(told,))


def _retained(record: RawRecord, entry: Fields, name: str) -> EvalCase:
    asked = probe("unrelated", entry.text("question"), entry.aliases("ground_truth"))
    return EvalCase(id=name, source=record.source, edits=(), probes=(asked,))
