"""Exact inner product with FAISS: ``IndexIDMap2`` over ``IndexFlatIP``.

A vector takes its own floats and about 50 bytes. FAISS is imported when the first index is made. This file knows
nothing of edits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memory_store.indexes import IndexType

MANY_QUERIES = 20
"""From so many queries on FAISS multiplies matrices, which several threads do speed up."""


class FaissFlatIndex:
    """A flat FAISS index with ids.

    Args:
        index: A ``faiss.IndexIDMap2`` over a flat index.
    """

    def __init__(self, index: Any) -> None:
        self._index = index

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Adds ``vectors`` ``[vectors, dimension]`` under new ``ids`` ``[vectors]``."""
        self._index.add_with_ids(np.ascontiguousarray(vectors), ids)

    def remove(self, ids: NDArray[np.int64]) -> None:
        """Removes the vectors with these ids."""
        self._index.remove_ids(ids)

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Finds the nearest vectors: scores and ids ``[queries, k]``, best first, id -1 where there are too few."""
        with _threads_for(len(queries)):
            scores, ids = self._index.search(np.ascontiguousarray(queries), k)
        return scores, ids

    def ids(self) -> NDArray[np.int64]:
        """Returns the ids held, ``[vectors]``."""
        import faiss

        found: NDArray[np.int64] = faiss.vector_to_array(self._index.id_map)
        return found

    def vectors(self) -> NDArray[np.float32]:
        """Returns the vectors held, ``[vectors, dimension]``, in the order of ``ids``."""
        import faiss

        found: NDArray[np.float32] = faiss.downcast_index(self._index.index).reconstruct_n(0, self._index.ntotal)
        return found

    def dump(self) -> NDArray[np.uint8]:
        """Returns the index as FAISS serialises it, ``[bytes]``."""
        import faiss

        data: NDArray[np.uint8] = faiss.serialize_index(self._index)
        return data


@contextmanager
def _threads_for(queries: int) -> Iterator[None]:
    """Has FAISS use one thread for few queries.

    Handing the pieces of one query to several threads costs more than it gains, and much more (tens of milliseconds)
    when other programs keep the cores busy, as each search then waits for its slowest thread.
    """
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1 if queries < MANY_QUERIES else before)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def create(dimension: int) -> FaissFlatIndex:
    """Makes an empty index for vectors of this length."""
    import faiss

    return FaissFlatIndex(faiss.IndexIDMap2(faiss.IndexFlatIP(dimension)))


def load(payload: NDArray[np.uint8]) -> FaissFlatIndex:
    """Reads what ``FaissFlatIndex.dump`` wrote.

    Raises:
        ValueError: The bytes are something else.
    """
    import faiss

    try:
        index = faiss.deserialize_index(payload)
    except RuntimeError as error:
        raise ValueError(f"FAISS cannot read the index: {error}") from error
    kind = type(index).__name__
    if kind != "IndexIDMap2":
        raise ValueError(f"Expected an IndexIDMap2, found {kind}.")
    return FaissFlatIndex(index)


FAISS_FLAT = IndexType("faiss-flat-ip", create, load)
"""The kind of this file's index."""
