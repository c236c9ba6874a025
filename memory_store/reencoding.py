"""Encodes a whole memory again, with another encoder or because vectors were damaged.

First every edit is encoded, with no transaction open, into a temporary file; then one transaction replaces all
vectors, encoding only the edits that changed in between. This file knows nothing of indexes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from typing import IO

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from memory_store import encoding, ledger, tables
from memory_store.database import Database
from memory_store.encoding import VectorEncoder
from memory_store.ledger import Filters
from memory_store.live_indexes import Progress
from memory_store.records import Edit

_PAGE = 128


def reencode(database: Database, encoder: VectorEncoder, progress: Progress | None) -> int:
    """Replaces all vectors of a memory by those of an encoder, or none; returns how many there are.

    Args:
        database: Of the memory.
        encoder: Whose vectors are stored from then on.
        progress: Is told how many edits are encoded.
    """
    with tempfile.TemporaryFile() as file:
        waiting = _Waiting(file, encoder)
        with database.reading() as connection:
            total = ledger.count_edits(connection, _ALL, ledger.clock(connection))
        done, after = 0, 0
        while True:
            with database.reading() as connection:
                page = _page(connection, after)
            waiting.encode(page)
            done += len(page)
            if progress is not None:
                progress("encoding again", done, max(total, done))
            if len(page) < _PAGE:
                break
            after = page[-1][0]
        with database.writing() as connection:
            written = ledger.replace_vectors(connection, waiting.all(connection))
            encoding.store_encoding(connection, encoder)
            generation = ledger.head(connection).generation + 1
            ledger.set_meta(connection, tables.META_GENERATION, str(generation))
    return written


class _Waiting:
    """Vectors of the edits encoded so far, in a file, found by the edit's number and version."""

    def __init__(self, file: IO[bytes], encoder: VectorEncoder) -> None:
        self._file = file
        self._encoder = encoder
        self._rows = 0
        self._first_row: dict[tuple[int, int], int] = {}

    def encode(self, page: list[tuple[int, Edit]]) -> None:
        """Encodes edits and keeps their vectors."""
        encoded = encoding.encode(self._encoder, [text.text for _, edit in page for text in edit.texts()])
        for number, edit in page:
            self._first_row[number, edit.version] = self._rows
            for text in edit.texts():
                self._file.write(encoded[text.text].astype("<f4").tobytes())
                self._rows += 1

    def all(self, connection: Connection) -> Iterator[list[tuple[int, Edit, Mapping[str, NDArray[np.float32]]]]]:
        """Yields every edit of the memory with its vectors, a page at a time."""
        after = 0
        while page := _page(connection, after):
            yield [(number, edit, self._vectors_of(number, edit)) for number, edit in page]
            after = page[-1][0]

    def _vectors_of(self, number: int, edit: Edit) -> Mapping[str, NDArray[np.float32]]:
        texts = [text.text for text in edit.texts()]
        first = self._first_row.get((number, edit.version))
        if first is None:
            return encoding.encode(self._encoder, texts)
        width = 4 * self._encoder.dimension
        self._file.seek(first * width)
        data = np.frombuffer(self._file.read(len(texts) * width), dtype="<f4")
        return dict(zip(texts, data.reshape(len(texts), -1), strict=True))


_ALL = Filters(state=None)


def _page(connection: Connection, after: int) -> list[tuple[int, Edit]]:
    return ledger.select_edits(connection, _ALL, ledger.clock(connection), limit=_PAGE, after=after)
