"""From nearest vectors to nearest edits.

An edit has several vectors, and some of the vectors found may belong to edits that have expired; so more vectors are
asked for than edits are wanted, and twice as many again for as long as some query lacks edits and vectors remain.
The result is that of an exhaustive comparison. This file knows nothing of encoders or of how indexes are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from memory_store import ledger
from memory_store.indexes import VectorIndex
from memory_store.ledger import StoredText
from memory_store.records import Hit
from memory_store.tables import POSITION_BITS

_VECTORS_AN_EDIT = 4
"""How many vectors are asked for at first, for each edit wanted."""


def nearest(
    connection: Connection,
    indexes: Sequence[VectorIndex],
    queries: NDArray[np.float32],
    k: int,
    *,
    now: datetime,
    min_score: float | None,
) -> list[list[Hit]]:
    """Returns the ``k`` best edits of each query ``[queries, dimension]``, best first, each by its best vector.

    Args:
        connection: A transaction, in whose snapshot the indexes are current.
        indexes: Where to search.
        queries: Unit vectors.
        k: Most edits a query.
        now: Edits that have expired by then are left out.
        min_score: Edits that score less are left out, and not even read.
    """
    hits: list[list[Hit]] = [[] for _ in queries]
    held = sum(len(index) for index in indexes)
    pending = np.arange(len(queries))
    width = min(k * _VECTORS_AN_EDIT, held)
    texts: dict[int, StoredText | None] = {}
    while len(pending) and width:
        scores, ids = _search_all(indexes, queries[pending], width)
        ranked = [
            _best_of_each_edit(row_scores, row_ids, min_score) for row_scores, row_ids in zip(scores, ids, strict=True)
        ]
        _fetch(connection, ranked, k, now, texts)
        for query, row in zip(pending, ranked, strict=True):
            hits[query] = _live_hits(row, texts, k, now)
        if width >= held:
            break
        lacking = np.array([len(hits[query]) < k for query in pending])
        if min_score is not None:
            lacking &= scores[:, -1] >= min_score
        pending = pending[lacking]
        width = min(2 * width, held)
    return hits


def _search_all(
    indexes: Sequence[VectorIndex], queries: NDArray[np.float32], width: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Returns the best scores and ids over all indexes, both ``[queries, width]``."""
    if len(indexes) == 1:
        return indexes[0].search(queries, width)
    found = [index.search(queries, width) for index in indexes]
    scores = np.concatenate([one for one, _ in found], axis=1)
    ids = np.concatenate([one for _, one in found], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :width]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)


def _best_of_each_edit(
    scores: NDArray[np.float32], ids: NDArray[np.int64], min_score: float | None
) -> list[tuple[int, float]]:
    """Returns, best first, the best vector of each edit with its score, down to ``min_score``."""
    best: dict[int, tuple[int, float]] = {}
    for vector_id, score in zip(ids.tolist(), scores.tolist(), strict=True):
        if min_score is not None and score < min_score:
            break
        if vector_id >= 0:
            best.setdefault(vector_id >> POSITION_BITS, (vector_id, score))
    return list(best.values())


def _fetch(
    connection: Connection,
    ranked: Sequence[Sequence[tuple[int, float]]],
    k: int,
    now: datetime,
    texts: dict[int, StoredText | None],
) -> None:
    """Reads texts and edits into ``texts`` until each query has ``k`` edits in force or none is left to read."""
    while True:
        wanted: dict[int, None] = {}
        for row in ranked:
            live = 0
            for vector_id, _ in row:
                if vector_id not in texts:
                    wanted[vector_id] = None
                    live += 1
                elif (stored := texts[vector_id]) is not None and stored.edit.is_live(now):
                    live += 1
                if live == k:
                    break
        if not wanted:
            return
        found = ledger.texts_of(connection, list(wanted))
        texts.update((vector_id, found.get(vector_id)) for vector_id in wanted)


def _live_hits(
    row: Sequence[tuple[int, float]], texts: dict[int, StoredText | None], k: int, now: datetime
) -> list[Hit]:
    hits: list[Hit] = []
    for vector_id, score in row:
        stored = texts.get(vector_id)
        if stored is not None and stored.edit.is_live(now):
            hits.append(Hit(stored.edit, score, stored.kind, stored.text))
            if len(hits) == k:
                break
    return hits
