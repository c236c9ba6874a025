"""The two seams of this package: text to vectors, and (query, edit) pairs to probabilities.

Anything with these members serves; nothing has to be inherited, nor this package imported. The protocols
speak plain strings and know nothing of where edits are kept, how a query was found in a prompt, or what model
answers it. A scope classifier may read the texts themselves (a cross-encoder does) or only the similarity
that the first stage found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

__all__ = ["ScopeCandidate", "ScopeClassifier", "TextEncoder"]


@runtime_checkable
class TextEncoder(Protocol):
    """Turns texts into unit vectors whose inner product is their similarity."""

    @property
    def fingerprint(self) -> str:
        """What the vectors depend on, as a hexadecimal digest.

        Two encoders with one fingerprint give the same vectors for the same texts, up to the rounding of the
        hardware; vectors of different fingerprints must never be compared.
        """
        ...

    @property
    def dimension(self) -> int:
        """The number of components of a vector."""
        ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encodes texts, in the order given.

        Args:
            texts: Any number of texts, none included.

        Returns:
            `[texts, dimension]`, each row of unit length.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeCandidate:
    """One edit that may govern a query, in plain strings.

    Attributes:
        prompt: The edit's own prompt, such as "The capital of France is".
        target: What the edit says should follow it.
        subject: What the edit is about, where it is known.
        matched_text: The text of the edit nearest to the query: its prompt, the whole fact, a paraphrase, an
            alias.
        similarity: Cosine of the query's vector with that of `matched_text`, from the first stage, -1 to 1.
    """

    prompt: str
    target: str
    subject: str | None = None
    matched_text: str
    similarity: float


@runtime_checkable
class ScopeClassifier(Protocol):
    """Decides, pair by pair, with what probability an edit governs a query."""

    @property
    def name(self) -> str:
        """What a person calls this classifier, in explanations and reports."""
        ...

    @property
    def fingerprint(self) -> str:
        """What the probabilities depend on (weights and parameters), as a hexadecimal digest."""
        ...

    @property
    def threshold(self) -> float:
        """The probability from which on (inclusive) an edit governs a query, 0 to 1."""
        ...

    @property
    def floor(self) -> float:
        """The first-stage similarity under which a candidate need not be read: its probability is taken as 0.

        It saves a costly classifier from hopeless pairs. -1 has every candidate read.
        """
        ...

    def probabilities(self, queries: Sequence[str], candidates: Sequence[ScopeCandidate]) -> NDArray[np.float32]:
        """Gives the probability of each pair; the pairs of one call are read as a batch.

        Args:
            queries: The questions as a user put them, one a pair (a query with several candidates is
                repeated).
            candidates: The candidate of each pair, as many as there are queries.

        Returns:
            `[pairs]`, the probability that `candidates[i]` governs `queries[i]`. A pair's probability does
            not depend on which others are in the batch.

        Raises:
            ValueError: There are not as many candidates as queries.
        """
        ...
