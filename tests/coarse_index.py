"""A deliberately coarse vector index for tests: its scores are far off, by no more than it says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from memory_store import IndexType
from memory_store.exact import ExactIndex, load

STEPS = 256
"""A component is rounded to a multiple of one over so many."""

SKEW = 0.05
"""By so much every third vector is overrated, and the others underrated."""


class CoarseIndex(ExactIndex):
    """Holds every component rounded to one of a few values, and rates some vectors too high, some too low.

    Args:
        dimension: Length of a vector.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__(dimension)
        self._dimension = dimension

    @property
    def tolerance(self) -> float:
        """Each component is off by half a step, so a vector by no more than half the diagonal of a step's cube."""
        return SKEW + 1.002 * float(np.sqrt(self._dimension)) / (2 * STEPS)

    def add(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Adds ``vectors`` ``[vectors, dimension]``, rounded, under new ``ids`` ``[vectors]``."""
        super().add(ids, self.as_held(vectors))

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Finds the nearest vectors by the skewed scores; the id is -1 where there are too few."""
        scores, ids = super().search(queries, max(k, len(self)))
        scores += np.where(ids % 3 == 0, SKEW, -SKEW).astype(np.float32)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)

    def as_held(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the vectors rounded."""
        return np.round(vectors * STEPS) / np.float32(STEPS)


def _load(payload: NDArray[np.uint8]) -> CoarseIndex:
    exact = load(payload)
    index = CoarseIndex(exact.vectors().shape[1])
    index.add(exact.ids(), exact.vectors())
    return index


COARSE = IndexType("coarse", CoarseIndex, _load)
"""The kind of this file's index."""
