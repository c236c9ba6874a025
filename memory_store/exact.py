"""Exact search with NumPy: the reference that other indexes are tested against, and one that needs no FAISS.

It knows nothing of edits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from memory_store.indexes import IndexType


class ExactIndex:
    """Ids and vectors in two arrays; a search multiplies them all.

    Args:
        dimension: Length of a vector.
    """

    def __init__(self, dimension: int) -> None:
        self._ids = np.empty(0, dtype=np.int64)
        self._vectors = np.empty((0, dimension), dtype=np.float32)

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def tolerance(self) -> float:
        """None: the vectors are kept as they are."""
        return 0.0

    def add(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Adds ``vectors`` ``[vectors, dimension]`` under new ``ids`` ``[vectors]``."""
        self._ids = np.concatenate([self._ids, ids])
        self._vectors = np.concatenate([self._vectors, vectors])

    def remove(self, ids: NDArray[np.int64]) -> None:
        """Removes the vectors with these ids."""
        kept = ~np.isin(self._ids, ids)
        self._ids, self._vectors = self._ids[kept], self._vectors[kept]

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Finds the nearest vectors: scores and ids ``[queries, k]``, best first, id -1 where there are too few."""
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        ids = np.full((len(queries), k), -1, dtype=np.int64)
        # summed in double precision: how far a sum of single-precision products is off depends on the machine
        products = np.matmul(queries, self._vectors.T, dtype=np.float64)
        order = np.argsort(-products, axis=1, kind="stable")[:, :k]
        found = order.shape[1]
        scores[:, :found] = np.take_along_axis(products, order, axis=1)
        ids[:, :found] = self._ids[order]
        return scores, ids

    def ids(self) -> NDArray[np.int64]:
        """Returns the ids held, ``[vectors]``."""
        return self._ids

    def vectors(self) -> NDArray[np.float32]:
        """Returns the vectors held, ``[vectors, dimension]``, in the order of ``ids``."""
        return self._vectors

    def as_held(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the vectors: they are kept as they are."""
        return vectors

    def dump(self) -> NDArray[np.uint8]:
        """Returns count, dimension, ids and vectors as bytes ``[bytes]``, little-endian."""
        shape = np.array(self._vectors.shape, dtype="<i8")
        pieces = (shape, self._ids.astype("<i8"), self._vectors.astype("<f4"))
        return np.frombuffer(b"".join(piece.tobytes() for piece in pieces), dtype=np.uint8)


def load(payload: NDArray[np.uint8]) -> ExactIndex:
    """Reads what ``ExactIndex.dump`` wrote.

    Raises:
        ValueError: The bytes are something else.
    """
    data = payload.tobytes()
    count, dimension = (int(n) for n in np.frombuffer(data, dtype="<i8", count=2))
    if len(data) != 16 + 8 * count + 4 * count * dimension:
        raise ValueError(f"{len(data)} bytes do not hold {count} vectors of {dimension}.")
    index = ExactIndex(dimension)
    index.add(
        np.frombuffer(data, dtype="<i8", count=count, offset=16).astype(np.int64),
        np.frombuffer(data, dtype="<f4", offset=16 + 8 * count).reshape(count, dimension).astype(np.float32),
    )
    return index


EXACT = IndexType("numpy-exact", ExactIndex, load)
"""The kind of this file's index."""
