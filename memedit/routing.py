"""From a query to a decision: which edit, if any, governs it.

Retrieval finds candidate edits in the memory, the scope classifier gives each a probability, and the best one governs
the query if its probability reaches the classifier's threshold (Mitchell et al. 2022, Memory-Based Model Editing at
Scale, section 3.1: argmax over the memory, then a threshold).

A router sees what the user typed and nothing else. It generates nothing, and knows nothing of language models, prompts
or tokenizers.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from classifiers import ScopeCandidate, ScopeClassifier, TextEncoder
from memedit.queries import Query
from memory_store import Edit, EditMemory, Hit

__all__ = ["Candidate", "Decision", "Router", "RoutingTimings"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An edit that was considered for a query.

    Attributes:
        edit: The edit.
        similarity: Cosine of the query's best window and the edit's nearest text.
        probability: The classifier's probability that the edit governs the query; 0 where it lay under the floor.
        window: The window of the query that came nearest.
        matched_text: The text of the edit that came nearest.
        matched_kind: What that text is: ``"prompt"``, ``"fact"``, ``"paraphrase"`` or ``"alias"``.
    """

    edit: Edit
    similarity: float
    probability: float
    window: str
    matched_text: str
    matched_kind: str


@dataclass(frozen=True, slots=True)
class RoutingTimings:
    """Seconds that one call of :meth:`Router.route` took, for all its queries together.

    Attributes:
        queries: How many queries the call routed.
        encode: Turning the windows into vectors.
        search: Looking the vectors up in the memory.
        classify: Reading the candidates.
    """

    queries: int = 0
    encode: float = 0.0
    search: float = 0.0
    classify: float = 0.0

    @property
    def total(self) -> float:
        """Seconds in all."""
        return self.encode + self.search + self.classify


@dataclass(frozen=True, slots=True)
class Decision:
    """What the router decided for one query.

    Attributes:
        query: The query.
        edits: The edits that govern it, best first; empty where none does.
        probability: The best candidate's probability; 0 where there was none.
        threshold: The probability from which on an edit governs.
        reason: Why, in a sentence.
        candidates: What was considered, most probable first.
        timings: What the call cost that this decision came from.
    """

    query: Query
    edits: tuple[Edit, ...]
    probability: float
    threshold: float
    reason: str
    candidates: tuple[Candidate, ...]
    timings: RoutingTimings

    @property
    def governed(self) -> bool:
        """Whether an edit governs the query."""
        return bool(self.edits)

    @property
    def margin(self) -> float:
        """How far the best probability lies above the threshold; negative below it."""
        return self.probability - self.threshold


class Router:
    """Decides which edit governs a query.

    Args:
        memory: Where the edits are.
        encoder: Turns windows into vectors; the one the memory was filled with.
        scope: Gives (query, edit) pairs their probability.
        namespaces: The namespaces searched.
        candidates: Edits retrieved for a query.

    Raises:
        ValueError: ``candidates`` is not positive.
    """

    def __init__(
        self,
        memory: EditMemory,
        encoder: TextEncoder,
        scope: ScopeClassifier,
        *,
        namespaces: Sequence[str] = ("default",),
        candidates: int = 10,
    ) -> None:
        if candidates < 1:
            raise ValueError(f"candidates must be at least 1, given {candidates}")
        self.memory = memory
        self.encoder = encoder
        self.scope = scope
        self.namespaces = tuple(namespaces)
        self.candidates = candidates

    def route(self, queries: Sequence[Query], *, thorough: bool = False) -> list[Decision]:
        """Decide for each query, in one pass over all of them.

        Args:
            queries: What was asked.
            thorough: List the candidates under the classifier's floor too, for a person to see. The decision is the
                same; it takes a little longer.

        Returns:
            One decision a query, in order.
        """
        if not queries:
            return []
        threshold = self.scope.threshold
        if self.memory.is_empty(namespaces=self.namespaces):
            empty = RoutingTimings(queries=len(queries))
            reason = f"no edit is active in namespace {', '.join(map(repr, self.namespaces))}"
            return [Decision(query, (), 0.0, threshold, reason, (), empty) for query in queries]

        started = time.perf_counter()
        windows = list(dict.fromkeys(window for query in queries for window in query.windows))
        vectors = self.encoder.encode(windows)
        encoded = time.perf_counter()
        least = None if thorough else self.scope.floor
        found = self.memory.search(vectors, self.candidates, namespaces=self.namespaces, min_score=least)
        hits = dict(zip(windows, found, strict=True))
        searched = time.perf_counter()
        nearest = [self._nearest(query, hits) for query in queries]
        probabilities = self._read(nearest)
        classified = time.perf_counter()

        timings = RoutingTimings(len(queries), encoded - started, searched - encoded, classified - searched)
        return [
            self._decide(query, found, probability, timings)
            for query, found, probability in zip(queries, nearest, probabilities, strict=True)
        ]

    def _nearest(self, query: Query, hits: dict[str, list[Hit]]) -> list[tuple[str, Hit]]:
        """The best (window, hit) of each edit that any window found, best first."""
        best: dict[str, tuple[str, Hit]] = {}
        for window in query.windows:
            for hit in hits[window]:
                held = best.get(hit.edit.id)
                if held is None or hit.score > held[1].score:
                    best[hit.edit.id] = (window, hit)
        return sorted(best.values(), key=lambda pair: -pair[1].score)[: self.candidates]

    def _read(self, nearest: list[list[tuple[str, Hit]]]) -> list[list[float]]:
        """The classifier's probability of each candidate above its floor, read in one batch."""
        floor = self.scope.floor
        readable = [(window, hit) for found in nearest for window, hit in found if hit.score >= floor]
        read = iter(
            self.scope.probabilities([window for window, _ in readable], [_as_candidate(hit) for _, hit in readable])
            if readable
            else ()
        )
        return [[float(next(read)) if hit.score >= floor else 0.0 for _, hit in found] for found in nearest]

    def _decide(
        self, query: Query, found: list[tuple[str, Hit]], probabilities: list[float], timings: RoutingTimings
    ) -> Decision:
        candidates = sorted(
            (
                Candidate(hit.edit, hit.score, probability, window, hit.text, hit.kind)
                for (window, hit), probability in zip(found, probabilities, strict=True)
            ),
            key=lambda candidate: (-candidate.probability, -candidate.similarity),
        )
        threshold = self.scope.threshold
        if not candidates:
            return Decision(query, (), 0.0, threshold, "no edit is near the query", (), timings)
        best = candidates[0]
        governs = best.probability >= threshold
        reason = (
            f"{self.scope.name} gives the edit probability {best.probability:.3f}, "
            f"{'at or above' if governs else 'below'} the threshold {threshold:.3f} "
            f"(similarity {best.similarity:.3f} to its {best.matched_kind})"
        )
        edits = (best.edit,) if governs else ()
        return Decision(query, edits, best.probability, threshold, reason, tuple(candidates), timings)


def _as_candidate(hit: Hit) -> ScopeCandidate:
    edit = hit.edit
    return ScopeCandidate(
        prompt=edit.prompt,
        target=edit.target,
        subject=edit.subject,
        matched_text=hit.text,
        similarity=hit.score,
    )
