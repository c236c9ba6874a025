"""From nearest vectors to nearest edits, exactly.

An edit has several vectors, and some of the vectors found may belong to edits that have expired; so more vectors are
asked for than edits are wanted, and twice as many again for as long as some query needs more and vectors remain.

An index whose scores may be off by its ``tolerance`` ``t`` only proposes. If ``a`` is the k-th best of its scores, an
edit a query, then ``k`` edits truly score at least ``a - t``, so whatever truly scores as much has an index score of at
least ``a - 2t``. All vectors down to there are compared as they are stored. Likewise nothing with an index score under
``min_score - t`` is looked at. The result is that of an exhaustive comparison, ties aside. This file knows nothing of
encoders or of how indexes are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from memory_store import ledger
from memory_store.indexes import VectorIndex
from memory_store.ledger import StoredText, to_micros
from memory_store.records import Edit, Hit
from memory_store.tables import POSITION_BITS

_Scored: TypeAlias = "list[tuple[int, float]]"

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
    if not held:
        return hits
    tolerance = max(index.tolerance for index in indexes)
    least = -np.inf if min_score is None else min_score
    reader = _Reader(connection, now)
    pending = np.arange(len(queries))
    width = min(k * _VECTORS_AN_EDIT, held)
    while len(pending):
        scores, ids = _search_all(indexes, queries[pending], width)
        rankings = [
            _Ranking(row_ids, row_scores, least=least - tolerance, k=k, window=2 * tolerance)
            for row_ids, row_scores in zip(ids.tolist(), scores.tolist(), strict=True)
        ]
        reader.settle(rankings)
        for query, ranking in zip(pending.tolist(), rankings, strict=True):
            scored = reader.rescored(ranking.candidates, queries[query]) if tolerance else ranking.candidates
            hits[query] = reader.hits(scored, k, least)
        if width >= held:
            break
        lowest = scores[:, -1]
        reached = np.array([ranking.cutoff for ranking in rankings])
        pending = pending[(lowest > reached) & (lowest >= least - tolerance)]
        width = min(2 * width, held)
    return hits


class _Ranking:
    """The vectors found for one query, best first, and those among them that the result may depend on.

    Args:
        ids: Of the vectors; -1 where there is none.
        scores: Those of the index.
        least: Vectors that score less do not matter.
        k: How many edits are wanted.
        window: How far under another a vector can score and still be the better one.
    """

    def __init__(self, ids: Sequence[int], scores: Sequence[float], *, least: float, k: int, window: float) -> None:
        self._found = list(zip(ids, scores, strict=True))
        self._least = least
        self._k = k
        self._window = window
        self.candidates: _Scored = []
        """The vectors that may be the best one of an edit among the best, with their scores, best first."""
        self.cutoff = -np.inf
        """Vectors that score less do not matter, since enough edits score more."""

    def choose(self, gone: set[int]) -> None:
        """Chooses the candidates, leaving out the edits with these numbers."""
        best: dict[int, float] = {}
        self.candidates = []
        self.cutoff = -np.inf
        for vector_id, score in self._found:
            if score < self._least or score < self.cutoff:
                break
            edit = vector_id >> POSITION_BITS
            if vector_id < 0 or edit in gone:
                continue
            if edit not in best:
                best[edit] = score
                if len(best) == self._k:
                    self.cutoff = score - self._window
            if score >= best[edit] - self._window:
                self.candidates.append((vector_id, score))


class _Reader:
    """Reads texts and edits, each once for all queries.

    Args:
        connection: A transaction.
        now: When edits are to be in force.
    """

    def __init__(self, connection: Connection, now: datetime) -> None:
        self._connection = connection
        self._now = to_micros(now)
        self._texts: dict[int, StoredText] = {}
        self._edits: dict[int, Edit] = {}
        self._gone: set[int] = set()

    def settle(self, rankings: Sequence[_Ranking]) -> None:
        """Reads the candidates of all rankings, until they are of edits in force alone."""
        unsettled = list(rankings)
        while unsettled:
            for ranking in unsettled:
                ranking.choose(self._gone)
            self._read(vector_id for ranking in unsettled for vector_id, _ in ranking.candidates)
            unsettled = [
                ranking
                for ranking in unsettled
                if any(vector_id >> POSITION_BITS in self._gone for vector_id, _ in ranking.candidates)
            ]

    def rescored(self, candidates: _Scored, query: NDArray[np.float32]) -> _Scored:
        """Returns candidates with the scores of their stored vectors, best first.

        Products are added up row by row and in double precision, so a score depends on nothing but the two vectors.
        """
        if not candidates:
            return candidates
        data = [self._texts[vector_id].vector for vector_id, _ in candidates]
        vectors = ledger.from_bytes(data, len(query)).astype(np.float64)
        scores = (vectors * query).sum(axis=1)
        return [(candidates[place][0], float(scores[place])) for place in np.argsort(-scores, kind="stable").tolist()]

    def hits(self, scored: _Scored, k: int, least: float) -> list[Hit]:
        """Returns the best ``k`` edits that score ``least`` or more, each by the first of its vectors."""
        best: dict[int, Hit] = {}
        for vector_id, score in scored:
            if score < least or len(best) == k:
                break
            number = vector_id >> POSITION_BITS
            if number not in best:
                stored = self._texts[vector_id]
                if number not in self._edits:
                    self._edits[number] = stored.edit()
                best[number] = Hit(self._edits[number], score, stored.kind, stored.text)
        return list(best.values())

    def _read(self, vector_ids: Iterable[int]) -> None:
        wanted = [vector_id for vector_id in dict.fromkeys(vector_ids) if vector_id not in self._texts]
        if not wanted:
            return
        found = ledger.texts_of(self._connection, wanted)
        self._texts.update(found)
        for vector_id in wanted:
            if vector_id not in found or not found[vector_id].is_live(self._now):
                self._gone.add(vector_id >> POSITION_BITS)


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
