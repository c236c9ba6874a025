"""Checks a memory from the ground up: the file, every hash, every vector, every entry of the history.

It reads within one snapshot and changes nothing. This file knows nothing of indexes, which are compared with the
stored vectors where they are kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy import Connection, func, select

from memory_store import ledger
from memory_store.encoding import UNIT_TOLERANCE
from memory_store.identity import content_hash, keys_of
from memory_store.ledger import Filters
from memory_store.records import Edit
from memory_store.tables import POSITION_BITS, changes, edits, vectors

_PAGE = 1_000
_MOST_OF_A_KIND = 20


@dataclass(slots=True)
class Findings:
    """What a check found.

    Attributes:
        problems: One sentence each; of each kind the first twenty.
        edits: Edits read.
        vectors: Vectors read.
        changes: Entries of the history read.
        vectors_readable: Whether every vector has the right length, so that indexes can be compared with them.
    """

    problems: list[str] = field(default_factory=list)
    edits: int = 0
    vectors: int = 0
    changes: int = 0
    vectors_readable: bool = True

    def take(self, problems: Iterator[str]) -> None:
        """Adds problems of one kind, the first twenty of them."""
        found = list(problems)
        self.problems.extend(found[:_MOST_OF_A_KIND])
        if len(found) > _MOST_OF_A_KIND:
            self.problems.append(f"... and {len(found) - _MOST_OF_A_KIND} more of this kind.")


def check(connection: Connection, dimension: int | None) -> Findings:
    """Checks edits, vectors and history.

    Args:
        connection: An open transaction.
        dimension: Length that vectors should have; ``None`` if there should be none.
    """
    findings = Findings()
    findings.take(_edit_problems(connection, findings))
    findings.take(_vector_problems(connection, dimension, findings))
    findings.take(_history_problems(connection, findings))
    return findings


def _edit_problems(connection: Connection, findings: Findings) -> Iterator[str]:
    for _, edit in _all_edits(connection):
        findings.edits += 1
        if content_hash(edit) != edit.content_hash:
            yield f"The content hash of edit {edit.id} does not fit its text: the text was altered from outside."
    keys = select(edits.c.number, edits.c.prompt_key, edits.c.fact_key)
    stored_keys = {number: (prompt, fact) for number, prompt, fact in connection.execute(keys)}
    for number, edit in _all_edits(connection):
        expected = keys_of(edit)
        if stored_keys[number] != (expected.prompt, expected.fact):
            yield f"The keys of edit {edit.id} do not fit its text: it would not be found as a duplicate."


def _vector_problems(connection: Connection, dimension: int | None, findings: Findings) -> Iterator[str]:
    statement = select(vectors.c.id, vectors.c.edit, vectors.c.kind, vectors.c.text, vectors.c.vector)
    for number, edit in _all_edits(connection):
        rows = connection.execute(
            statement.where(
                vectors.c.id >= number << POSITION_BITS, vectors.c.id < (number + 1) << POSITION_BITS
            ).order_by(vectors.c.id)
        ).all()
        findings.vectors += len(rows)
        texts = [(one.kind, one.text) for one in edit.texts()]
        if [(row.kind, row.text) for row in rows] != texts:
            yield (
                f"Edit {edit.id} has {len(texts)} texts, but the stored vectors are of {len(rows)} or of others; "
                "encode again: `memedit reindex`, or EditMemory.reencode()."
            )
        if any(row.id >> POSITION_BITS != row.edit for row in rows):
            yield f"A vector of edit {edit.id} names another edit."
        for row in rows:
            reason = _vector_fault(row.vector, dimension)
            if reason:
                findings.vectors_readable = False
                yield (
                    f"The vector of {row.text[:40]!r} of edit {edit.id} {reason}; "
                    "encode again: `memedit reindex`, or EditMemory.reencode()."
                )
    total = connection.execute(select(func.count()).select_from(vectors)).scalar_one()
    if total != findings.vectors:
        yield f"{total - findings.vectors} vectors belong to no edit, or to a purged one."


def _vector_fault(data: bytes, dimension: int | None) -> str:
    if dimension is None or len(data) != 4 * dimension:
        return f"takes {len(data)} bytes, not four for each of {dimension} dimensions"
    length = float(np.linalg.norm(np.frombuffer(data, dtype="<f4")))
    if not abs(length - 1.0) <= UNIT_TOLERANCE:
        return f"has the length {length:.4g} instead of 1"
    return ""


def _history_problems(connection: Connection, findings: Findings) -> Iterator[str]:
    latest: dict[int, Any] = {}
    expected = 1
    rows = connection.execute(
        select(changes.c.sequence, changes.c.edit, changes.c.snapshot).order_by(changes.c.sequence)
    )
    for sequence, number, snapshot in rows:
        findings.changes += 1
        if sequence != expected:
            yield f"The history jumps from change {expected - 1} to {sequence}."
        expected = sequence + 1
        latest[number] = None
        if snapshot is not None:
            try:
                latest[number] = json.loads(snapshot)
                Edit.from_json(latest[number])
            except ValueError as error:
                yield f"Change {sequence} cannot be read: {error}"
    for number, edit in _all_edits(connection):
        if latest.get(number) != edit.to_json():
            yield f"The last entry in the history of edit {edit.id} does not show the edit as it stands."


def _all_edits(connection: Connection) -> Iterator[tuple[int, Edit]]:
    after = 0
    while True:
        page = ledger.select_edits(connection, Filters(state=None), ledger.clock(connection), limit=_PAGE, after=after)
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1][0]
