"""A small deterministic text encoder for tests: a hashed bag of words, no weights, no torch.

Each word adds a pseudo-random direction that depends on the word alone, so texts that share words are close, equal
texts are equal, and everything is the same in every process and on every machine.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"\w+|[^\w\s]")


class HashingEncoder:
    """Encodes texts as normalised sums of one pseudo-random direction a word.

    Args:
        dimension: Length of a vector.
        salt: Changes every direction and the fingerprint: another salt is another encoder.
    """

    def __init__(self, dimension: int = 64, salt: str = "") -> None:
        self._dimension = dimension
        self._salt = salt
        self._directions: dict[str, NDArray[np.float32]] = {}
        self.texts_encoded = 0
        """How many texts were encoded so far, so that a test can see that nothing was encoded twice."""

    @property
    def fingerprint(self) -> str:
        """Names the vectors: equal fingerprints mean equal vectors."""
        return f"hashing-{self._dimension}-{self._salt}"

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._dimension

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Returns unit vectors, ``[texts, dimension]``."""
        vectors = np.zeros((len(texts), self._dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            words = _WORD.findall(text.casefold()) or [""]
            for word in words:
                vectors[row] += self._direction(word)
        self.texts_encoded += len(texts)
        norms: NDArray[np.float32] = np.linalg.norm(vectors, axis=1, keepdims=True)
        return (vectors / norms).astype(np.float32)

    def _direction(self, word: str) -> NDArray[np.float32]:
        known = self._directions.get(word)
        if known is None:
            seed = hashlib.sha256(f"{self._salt}\0{word}".encode()).digest()
            generator = np.random.default_rng(int.from_bytes(seed[:8], "little"))
            known = generator.standard_normal(self._dimension, dtype=np.float32)
            self._directions[word] = known
        return known
