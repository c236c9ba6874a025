"""Records of a user's own: JSON Lines with the keys of `EvalCase.to_json`, of which the loader sets what is left out.

``source`` is always where the record was read; ``id`` is the line, unless the record has one. Only ``edits`` and
``probes`` are needed, and of a probe its ``kind``, its ``prompt`` and, where an edit governs it, its ``answers``.
"""

from __future__ import annotations

from collections.abc import Iterator

from memedit.edit_files import BadRecord
from memedit.errors import InvalidCaseError
from memedit.evaluation.cases import EvalCase
from memedit.evaluation.datasets.source import RawRecord, Source


def load(source: Source) -> Iterator[EvalCase | BadRecord]:
    """Reads records that are cases already."""
    return source.convert(_case)


def _case(record: RawRecord) -> EvalCase:
    values = {"id": str(record.source.line), **record.fields.values}
    for key in ("edits", "probes"):
        if key not in values:
            raise InvalidCaseError(f"'{key}' is missing; a case without any says [].")
    values["source"] = {
        "dataset": record.source.dataset,
        "file": record.source.file,
        "line": record.source.line,
    }
    return EvalCase.from_json(values)
