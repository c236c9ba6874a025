"""`SimilarityScope`: the untrained baseline, a threshold on the first stage's cosine similarity.

It reads no text at all, so it cannot tell a paraphrase from a near miss of the same wording: a second stage
that reads both texts does better. It knows nothing of encoders.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from classifiers.protocols import ScopeCandidate

__all__ = ["SimilarityScope"]


@dataclass(frozen=True, slots=True)
class SimilarityScope:
    """An edit governs a query when their similarity is at least `threshold_similarity`.

    The probability is a logistic curve of the similarity, `1 / (1 + exp(-steepness * (similarity -
    threshold)))`: one half at the threshold similarity and growing with the similarity. It orders candidates
    and tells near from far, but it is *not calibrated*: no data was used to choose `steepness`.

    Attributes:
        threshold_similarity: The cosine from which on an edit governs a query, -1 to 1. The default suits
            all-MiniLM-L6-v2.
        steepness: How fast the probability grows with the similarity, above 0. At 20 a cosine 0.1 above the
            threshold has a probability of 0.88.
    """

    threshold_similarity: float = 0.7
    steepness: float = 20.0

    kind: ClassVar[str] = "similarity"

    def __post_init__(self) -> None:
        if not -1.0 <= self.threshold_similarity <= 1.0:
            raise ValueError(f"threshold_similarity is a cosine, from -1 to 1; given {self.threshold_similarity!r}")
        if not (math.isfinite(self.steepness) and self.steepness > 0.0):
            raise ValueError(f"steepness is a finite number above 0; given {self.steepness!r}")

    @property
    def name(self) -> str:
        """What a person calls this classifier."""
        return f"similarity at least {self.threshold_similarity:g}"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the kind and the parameters."""
        described = json.dumps({"kind": self.kind, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(described.encode()).hexdigest()

    @property
    def threshold(self) -> float:
        """The probability at the threshold similarity, always one half."""
        return 0.5

    @property
    def floor(self) -> float:
        """The similarity whose probability is 1 in 100: far below the threshold, and above most traffic."""
        return self.threshold_similarity - math.log(99.0) / self.steepness

    def probabilities(self, queries: Sequence[str], candidates: Sequence[ScopeCandidate]) -> NDArray[np.float32]:
        """Gives the probability of each pair, from its similarity alone.

        Args:
            queries: The questions, one a pair; only their number matters here.
            candidates: The candidate of each pair.

        Returns:
            `[pairs]`, each 0 to 1.

        Raises:
            ValueError: There are not as many candidates as queries, or a similarity is not a finite number.
        """
        if len(queries) != len(candidates):
            raise ValueError(f"each query needs its candidate: {len(queries)} queries, {len(candidates)} candidates")
        similarities = np.array([candidate.similarity for candidate in candidates], dtype=np.float64)
        if not np.isfinite(similarities).all():
            raise ValueError("a candidate's similarity is not a finite number; check the encoder's vectors")
        # the clip only keeps exp within range; at 700 the curve is flat to the last bit
        exponent = np.clip(-self.steepness * (similarities - self.threshold_similarity), -700.0, 700.0)
        return (1.0 / (1.0 + np.exp(exponent))).astype(np.float32)

    def to_state(self) -> tuple[dict[str, object], dict[str, NDArray[np.generic]]]:
        """Gives the JSON parameters and the tensors (none) to save."""
        return asdict(self), {}

    @classmethod
    def from_state(
        cls,
        parameters: Mapping[str, float],
        tensors: Mapping[str, NDArray[np.generic]],
        *,
        encoder: str | Path | None = None,  # noqa: ARG003  # the protocol's; no text is read
    ) -> Self:
        """Makes the classifier from what `to_state` gave.

        Args:
            parameters: The JSON parameters.
            tensors: The tensors; there are none.
            encoder: Not looked at: no text is read.

        Raises:
            ValueError: There are tensors, so this is not the state of a `SimilarityScope`.
        """
        if tensors:
            raise ValueError(f"a similarity scope has no tensors; found {', '.join(sorted(tensors))}")
        return cls(**parameters)
