"""What the memory needs of a vector index, and how a kind of index is named.

An index holds vectors under integer ids and finds those with the greatest inner product. It knows nothing of edits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class VectorIndex(Protocol):
    """Vectors under ids, searchable by inner product. Not safe for threads; its owner holds a lock."""

    def __len__(self) -> int: ...

    @property
    def tolerance(self) -> float:
        """Most by which a score differs from the inner product with the vector that was added.

        Where it is not 0, a search asks for as many vectors as could be among the best by their true scores, and
        compares these as they are stored. So the results are exact as long as ``search`` finds the best by its own
        scores.
        """

    def add(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Adds ``vectors`` ``[vectors, dimension]`` under new ``ids`` ``[vectors]``."""

    def remove(self, ids: NDArray[np.int64]) -> None:
        """Removes the vectors with these ids, all of which are there."""

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Finds the nearest vectors of each query ``[queries, dimension]``.

        Returns:
            Scores and ids, both ``[queries, k]``, best first; the id is -1 where there are fewer than ``k`` vectors.
        """

    def ids(self) -> NDArray[np.int64]:
        """Returns the ids held, ``[vectors]``."""

    def vectors(self) -> NDArray[np.float32]:
        """Returns the vectors held, ``[vectors, dimension]``, in the order of ``ids``."""

    def as_held(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns what ``vectors`` returns of these once they are added, ``[vectors, dimension]``, bit for bit."""

    def dump(self) -> NDArray[np.uint8]:
        """Returns the index as bytes ``[bytes]``."""


@dataclass(frozen=True, slots=True)
class IndexType:
    """A kind of index.

    Attributes:
        name: Names the kind in index files; another name makes their old content worthless, which is then rebuilt.
        create: Makes an empty index of a dimension.
        load: Reads what ``VectorIndex.dump`` wrote; raises ``ValueError`` for anything else.
    """

    name: str
    create: Callable[[int], VectorIndex]
    load: Callable[[NDArray[np.uint8]], VectorIndex]
