"""Inner product with FAISS: ``IndexIDMap2`` over a flat index of float32 or of half-precision vectors.

A search reads every vector. One query's time is that of moving them into the processor, so half the bytes take about
half the time; what half precision loses is bounded, see ``half_precision_tolerance``. A vector takes its own numbers,
and its id about 50 bytes. FAISS is imported when the first index is made. This file knows nothing of edits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memory_store.indexes import IndexType

MANY_QUERIES = 20
"""From so many queries on FAISS shares them among several threads, which does speed them up."""

WORTH_DECODING = 64
"""From so many queries on it is quicker to decode half-precision vectors once and to multiply matrices."""

_DECODED_AT_ONCE = 4_096
"""So many vectors are decoded at a time, which bounds the memory that it takes."""

MARGIN = 1.05
"""Factor on the proven bound, for vectors whose length is not quite 1, but within a thousandth."""


class FaissIndex:
    """A FAISS index with ids that reads every vector.

    Args:
        index: A ``faiss.IndexIDMap2`` over a flat index.
        tolerance: By how much its scores may be wrong.
    """

    def __init__(self, index: Any, *, tolerance: float) -> None:
        self._index = index
        self._tolerance = tolerance

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def tolerance(self) -> float:
        """Most by which a score differs from the inner product with the vector that was added."""
        return self._tolerance

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
        found: NDArray[np.float32] = _flat_in(self._index).reconstruct_n(0, self._index.ntotal)
        return found

    def as_held(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns what ``vectors`` returns of these once they are added, ``[vectors, dimension]``."""
        flat = _flat_in(self._index)
        held: NDArray[np.float32] = flat.sa_decode(flat.sa_encode(np.ascontiguousarray(vectors)))
        return held

    def dump(self) -> NDArray[np.uint8]:
        """Returns the index as FAISS serialises it, ``[bytes]``."""
        import faiss

        data: NDArray[np.uint8] = faiss.serialize_index(self._index)
        return data


class FaissHalfIndex(FaissIndex):
    """A FAISS index of half-precision vectors with ids.

    Args:
        index: A ``faiss.IndexIDMap2`` over an index that decodes each vector as it reads it.
    """

    def __init__(self, index: Any) -> None:
        super().__init__(index, tolerance=half_precision_tolerance(index.d))

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Finds the nearest vectors: scores and ids ``[queries, k]``, best first, id -1 where there are too few."""
        if len(queries) < WORTH_DECODING:
            return super().search(queries, k)
        return self._search_decoded(np.ascontiguousarray(queries), k)

    def _search_decoded(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        import faiss

        best = faiss.ResultHeap(len(queries), k, keep_max=True)
        flat, ids = _flat_in(self._index), self.ids()
        for start in range(0, len(ids), _DECODED_AT_ONCE):
            there = ids[start : start + _DECODED_AT_ONCE]
            vectors = flat.reconstruct_n(start, len(there))
            scores, places = faiss.knn(queries, vectors, min(k, len(there)), metric=faiss.METRIC_INNER_PRODUCT)
            best.add_result(scores, there[places])
        best.finalize()
        return best.D, best.I


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


def half_precision_tolerance(dimension: int) -> float:
    """Returns by how much the score of a half-precision vector can differ from the inner product of the original.

    Let ``q`` be the query, ``x`` the stored vector, both of length 1, and ``h`` what half precision makes of ``x``.
    Rounding to the nearest of numbers with 11 significant bits is off by at most ``2^-11 |x_i|``, and below the least
    normal number, where they lie ``2^-24`` apart, by at most ``2^-25``. So

        ``|q.h - q.x| <= sum |q_i| (2^-11 |x_i| + 2^-25) <= 2^-11 + 2^-25 sqrt(dimension)``

    by Cauchy and Schwarz. Adding up ``dimension`` products in single precision, in whatever order, is off by at most
    ``dimension * 2^-24`` times the sum of their magnitudes, which is at most 1.
    """
    rounding = 2.0**-11 + 2.0**-25 * math.sqrt(dimension)
    adding_up = 2.0**-24 * dimension
    return MARGIN * (rounding + adding_up)


def create_flat(dimension: int) -> FaissIndex:
    """Makes an empty index of float32 vectors of this length."""
    import faiss

    return FaissIndex(faiss.IndexIDMap2(faiss.IndexFlatIP(dimension)), tolerance=0.0)


def create_half(dimension: int) -> FaissHalfIndex:
    """Makes an empty index of half-precision vectors of this length."""
    import faiss

    flat = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    return FaissHalfIndex(faiss.IndexIDMap2(flat))


def load_flat(payload: NDArray[np.uint8]) -> FaissIndex:
    """Reads what was dumped of an index of float32 vectors.

    Raises:
        ValueError: The bytes are something else.
    """
    return FaissIndex(_deserialized(payload, "IndexFlatIP"), tolerance=0.0)


def load_half(payload: NDArray[np.uint8]) -> FaissHalfIndex:
    """Reads what was dumped of an index of half-precision vectors.

    Raises:
        ValueError: The bytes are something else.
    """
    return FaissHalfIndex(_deserialized(payload, "IndexScalarQuantizer"))


def _flat_in(index: Any) -> Any:
    """Returns the index that holds the vectors, as what it is."""
    import faiss

    return faiss.downcast_index(index.index)


def _deserialized(payload: NDArray[np.uint8], expected: str) -> Any:
    import faiss

    try:
        index = faiss.deserialize_index(payload)
    except RuntimeError as error:
        raise ValueError(f"FAISS cannot read the index: {error}") from error
    kind = type(index).__name__
    if kind != "IndexIDMap2":
        raise ValueError(f"Expected an IndexIDMap2, found {kind}.")
    inner = type(_flat_in(index)).__name__
    if inner != expected:
        raise ValueError(f"Expected an {expected} in the IndexIDMap2, found {inner}.")
    return index


FAISS_FLAT = IndexType("faiss-flat-ip", create_flat, load_flat)
"""Float32 vectors: the scores are those of exact search."""

FAISS_HALF = IndexType("faiss-fp16-ip", create_half, load_half)
"""Half-precision vectors, in half the memory; what its scores leave open, the memory decides by the stored vectors."""
