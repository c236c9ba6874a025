"""The indexes in use, one a namespace, kept in step with the database.

The database is the truth: an index is read from its file where the file can be trusted and is built from the stored
vectors where not, and either way then catches up with the changes since. Nothing here encodes a text, and nothing
here decides which edits may fire. The caller holds a lock and hands in an open transaction, so that what is searched
and what is read belong to one snapshot.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from memory_store import index_file, ledger
from memory_store.index_file import IndexHeader
from memory_store.indexes import IndexType, VectorIndex
from memory_store.ledger import Head
from memory_store.tables import POSITION_BITS

_LOG = logging.getLogger(__name__)

SAVE_AFTER_CHANGES = 5_000
"""An index is saved after so many changed edits, and when the memory is closed; a crash costs catching up with them."""


class Progress(Protocol):
    """Is told how far long work has come."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Takes what is being done, how much of it is done and how much there is, in the same unit."""


@dataclass(slots=True)
class _Live:
    index: VectorIndex
    sequence: int
    unsaved: int


class LiveIndexes:
    """Indexes by namespace, loaded when first searched.

    Args:
        folder: Where index files lie; ``None`` keeps none.
        memory_id: Of the memory.
        index_type: Kind of index.
        progress: Is told how far the building of an index has come, in vectors.
    """

    def __init__(
        self, *, folder: Path | None, memory_id: str, index_type: IndexType, progress: Progress | None
    ) -> None:
        self._folder = folder
        self._memory_id = memory_id
        self._type = index_type
        self._progress = progress
        self._live: dict[str, _Live] = {}
        self._generation = -1
        self._dimension = 0
        self._namespaces: dict[str, None] = {}
        self._namespaces_as_of = 0

    @property
    def loaded(self) -> bool:
        """Whether any index is in memory."""
        return bool(self._live)

    def current(
        self, connection: Connection, head: Head, dimension: int, namespaces: Sequence[str] | None
    ) -> list[VectorIndex]:
        """Returns the indexes of these namespaces, or of all, as of the transaction's snapshot."""
        self._use(head, dimension)
        names = self._all_namespaces(connection, head) if namespaces is None else dict.fromkeys(namespaces)
        return [self._brought_up(connection, head, name).index for name in names]

    def catch_up(self, connection: Connection, head: Head, dimension: int) -> None:
        """Brings the indexes that are in memory up to date."""
        self._use(head, dimension)
        for namespace in list(self._live):
            self._brought_up(connection, head, namespace)

    def rebuild(self, connection: Connection, head: Head, dimension: int) -> None:
        """Builds every index from the stored vectors, whatever was there, and saves them."""
        self.forget()
        self._use(head, dimension)
        if self._folder is not None:
            index_file.delete_all(self._folder)
        for namespace in self._all_namespaces(connection, head):
            self._live[namespace] = self._built(connection, head, namespace)
        self.save(connection)

    def save(self, connection: Connection) -> None:
        """Writes the indexes that are not saved as they are; one that cannot be written is built anew next time."""
        for namespace, live in self._live.items():
            if live.unsaved:
                self._save(connection, namespace, live)

    def forget(self) -> None:
        """Drops all indexes from memory."""
        self._live.clear()
        self._namespaces.clear()
        self._namespaces_as_of = 0

    def drop(self, namespace: str) -> None:
        """Drops one index from memory."""
        self._live.pop(namespace, None)

    def problems(self, connection: Connection, head: Head, dimension: int) -> tuple[int, list[str]]:
        """Compares every index with the stored vectors.

        Returns:
            How many indexes were compared, and what is wrong.
        """
        self._use(head, dimension)
        found: list[str] = []
        names = list(self._all_namespaces(connection, head))
        for namespace in names:
            path = self._path(namespace)
            if path is not None and path.exists() and self._read(connection, head, namespace) is None:
                found.append(f"The index file of namespace {namespace!r} ({path.name}) is damaged or foreign.")
            live = self._brought_up(connection, head, namespace)
            found.extend(self._differences(connection, namespace, live.index))
        return len(names), found

    def _use(self, head: Head, dimension: int) -> None:
        if (head.generation, dimension) != (self._generation, self._dimension):
            self.forget()
            self._generation, self._dimension = head.generation, dimension

    def _all_namespaces(self, connection: Connection, head: Head) -> dict[str, None]:
        if head.sequence != self._namespaces_as_of:
            self._namespaces.update(dict.fromkeys(ledger.namespaces_since(connection, self._namespaces_as_of)))
            self._namespaces_as_of = head.sequence
        return self._namespaces

    def _brought_up(self, connection: Connection, head: Head, namespace: str) -> _Live:
        live = self._live.get(namespace)
        if live is None:
            live = self._opened(connection, head, namespace)
            self._live[namespace] = live
        elif live.sequence != head.sequence:
            self._apply_changes(connection, head, namespace, live)
        if live.unsaved >= SAVE_AFTER_CHANGES:
            self._save(connection, namespace, live)
        return live

    def _opened(self, connection: Connection, head: Head, namespace: str) -> _Live:
        live = self._read(connection, head, namespace)
        if live is None:
            return self._built(connection, head, namespace)
        self._apply_changes(connection, head, namespace, live)
        if len(live.index) != ledger.count_vectors(connection, namespace):
            _LOG.warning("The index of namespace %r does not fit the database; it is built anew.", namespace)
            return self._built(connection, head, namespace)
        return live

    def _read(self, connection: Connection, head: Head, namespace: str) -> _Live | None:
        """Reads an index file, if it is whole and belongs to an earlier state of this very memory."""
        path = self._path(namespace)
        stored = None if path is None else index_file.read(path)
        if stored is None:
            return None
        header, payload = stored
        if not 0 <= header.sequence <= head.sequence:
            return None
        expected = self._header(namespace, header.sequence, ledger.mark_of(connection, header.sequence), header.count)
        if header != expected:
            return None
        try:
            index = self._type.load(payload)
        except ValueError:
            return None
        if len(index) != header.count:
            return None
        return _Live(index, header.sequence, unsaved=0)

    def _built(self, connection: Connection, head: Head, namespace: str) -> _Live:
        total = ledger.count_vectors(connection, namespace)
        index = self._type.create(self._dimension)
        done = 0
        for ids, vectors in ledger.vector_batches(connection, namespace, self._dimension):
            index.add(ids, vectors)
            done += len(ids)
            if self._progress is not None:
                self._progress("building the index", done, total)
        return _Live(index, head.sequence, unsaved=max(1, done))

    def _apply_changes(self, connection: Connection, head: Head, namespace: str, live: _Live) -> None:
        changed = ledger.edits_changed_since(connection, live.sequence, namespace)
        if changed:
            numbers = np.array(changed, dtype=np.int64)
            held = live.index.ids()
            if len(held) and numbers[0] <= held.max() >> POSITION_BITS:
                gone = held[np.isin(held >> POSITION_BITS, numbers)]
                if len(gone):
                    live.index.remove(gone)
            for ids, vectors in ledger.vector_batches(connection, namespace, self._dimension, edit_numbers=changed):
                live.index.add(ids, vectors)
            live.unsaved += len(changed)
        live.sequence = head.sequence

    def _differences(self, connection: Connection, namespace: str, index: VectorIndex) -> list[str]:
        order = np.argsort(index.ids())
        held, held_vectors = index.ids()[order], index.vectors()[order]
        batches = list(ledger.vector_batches(connection, namespace, self._dimension))
        stored: NDArray[np.int64] = (
            np.concatenate([ids for ids, _ in batches]) if batches else np.empty(0, dtype=np.int64)
        )
        if not np.array_equal(held, stored):
            unpaired = len(np.setxor1d(held, stored))
            where = f"The index of namespace {namespace!r}"
            return [f"{where} holds {len(held)} vectors, the database {len(stored)}; {unpaired} are not in both."]
        start = 0
        for ids, vectors in batches:
            if not np.array_equal(held_vectors[start : start + len(ids)], index.as_held(vectors)):
                return [f"The index of namespace {namespace!r} holds other values than the database."]
            start += len(ids)
        return []

    def _save(self, connection: Connection, namespace: str, live: _Live) -> None:
        path = self._path(namespace)
        if path is None:
            return
        mark = ledger.mark_of(connection, live.sequence)
        header = self._header(namespace, live.sequence, mark, len(live.index))
        try:
            index_file.write(path, header, live.index.dump())
        except OSError as error:
            _LOG.warning("The index of namespace %r cannot be saved: %s", namespace, error)
        else:
            live.unsaved = 0

    def _header(self, namespace: str, sequence: int, mark: str, count: int) -> IndexHeader:
        return IndexHeader(
            memory_id=self._memory_id,
            namespace=namespace,
            sequence=sequence,
            mark=mark,
            generation=self._generation,
            dimension=self._dimension,
            index_type=self._type.name,
            count=count,
        )

    def _path(self, namespace: str) -> Path | None:
        return None if self._folder is None else index_file.path_of(self._folder, namespace)
