"""From a query to a decision: which edit, if any, governs it.

Retrieval finds candidate edits in the memory, the scope classifier gives each a probability, and the best one governs
the query if its probability reaches the threshold (Mitchell et al. 2022, Memory-Based Model Editing at Scale, section
3.1: argmax over the memory, then a threshold): the classifier's own, or one chosen for the edit's namespace.

A router sees what the user typed and nothing else. It generates nothing, and knows nothing of language models, prompts
or tokenizers.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from classifiers import ScopeCandidate, ScopeClassifier, TextEncoder
from memedit.queries import Query
from memedit.thresholds import OWN_THRESHOLD, ChosenThreshold, NamespaceThreshold, kept_threshold
from memory_store import Edit, EditMemory, Glance, Hit

__all__ = [
    "DEFAULT_CANDIDATES",
    "Candidate",
    "Decision",
    "Router",
    "RoutingTimings",
    "told_apart",
    "told_margin",
]


_NEXT_TO_EQUAL = 0.02
"""Of edits whose probabilities differ by less, the one nearest to the query governs."""

DEFAULT_CANDIDATES = 10
"""Edits that a router retrieves for a query, unless told otherwise."""


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
        confirm: The answering model's own reading of what is governed.
    """

    queries: int = 0
    encode: float = 0.0
    search: float = 0.0
    classify: float = 0.0
    confirm: float = 0.0

    @property
    def total(self) -> float:
        """Seconds in all."""
        return self.encode + self.search + self.classify + self.confirm


@dataclass(frozen=True, slots=True)
class Decision:
    """What the router decided for one query.

    Attributes:
        query: The query.
        edits: The edits that govern it, best first; empty where none does.
        probability: That of the candidate that governs, or came nearest to it; 0 where there was none.
        threshold: The probability from which on an edit governs.
        reason: Why, in a sentence.
        candidates: What was considered, most probable first.
        timings: What the call cost that this decision came from.
        threshold_origin: Where the threshold comes from, in words; in a thorough decision, with why its promise no
            longer holds, if so.
    """

    query: Query
    edits: tuple[Edit, ...]
    probability: float
    threshold: float
    reason: str
    candidates: tuple[Candidate, ...]
    timings: RoutingTimings
    threshold_origin: str = OWN_THRESHOLD

    @property
    def governed(self) -> bool:
        """Whether an edit governs the query."""
        return bool(self.edits)

    @property
    def governing(self) -> Candidate | None:
        """The candidate that governs the query; None where none does."""
        governing = self.edits[0].id if self.edits else None
        return next((one for one in self.candidates if one.edit.id == governing), None)

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
        candidates: int = DEFAULT_CANDIDATES,
    ) -> None:
        if candidates < 1:
            raise ValueError(f"candidates must be at least 1, given {candidates}")
        self.memory = memory
        self.encoder = encoder
        self.scope = scope
        self.namespaces = tuple(namespaces)
        self.candidates = candidates
        self._kept: tuple[object, Mapping[str, ChosenThreshold | None]] = (None, {})

    def thresholds(self) -> tuple[NamespaceThreshold, ...]:
        """The threshold of each namespace searched, as it is now.

        Raises:
            ConfigError: One that is kept with the memory cannot be read.
        """
        return tuple(self._thresholds(self.memory.glance(namespaces=self.namespaces)).values())

    def route(self, queries: Sequence[Query], *, thorough: bool = False) -> list[Decision]:
        """Decide for each query, in one pass over all of them.

        Args:
            queries: What was asked.
            thorough: List the candidates under the classifier's floor too, and count the edits that a chosen threshold
                has to serve, for a person to see. The decision is the same; it takes a little longer.

        Returns:
            One decision a query, in order.
        """
        if not queries:
            return []
        glance = self.memory.glance(namespaces=self.namespaces)
        judged = _Judged(self.scope.name, self._thresholds(glance), self._doubts if thorough else _no_doubts)
        if glance.empty:
            empty = RoutingTimings(queries=len(queries))
            reason = f"no edit is active in namespace {', '.join(map(repr, self.namespaces))}"
            return [judged.by_none(query, reason, empty) for query in queries]

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
            judged.decide(query, _candidates(found, probability), timings)
            for query, found, probability in zip(queries, nearest, probabilities, strict=True)
        ]

    def _thresholds(self, glance: Glance) -> dict[str, NamespaceThreshold]:
        """The threshold of each namespace; what is kept is read again only where settings have changed."""
        as_of, kept = self._kept
        if as_of != (glance.settings_sequence, self.namespaces):
            kept = {namespace: kept_threshold(self.memory, namespace) for namespace in self.namespaces}
            self._kept = ((glance.settings_sequence, self.namespaces), kept)
        fingerprint = self.encoder.fingerprint
        return {
            namespace: NamespaceThreshold.of(namespace, kept[namespace], self.scope, encoder_fingerprint=fingerprint)
            for namespace in self.namespaces
        }

    def _doubts(self, threshold: NamespaceThreshold) -> str | None:
        """Why the promise of a chosen threshold no longer holds, if so."""
        if threshold.chosen is None or threshold.unused is not None:
            return None
        edits = self.memory.count(namespace=threshold.namespace, include_expired=False)
        return threshold.chosen.doubt(edits=edits, candidates=self.candidates)

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


class _Judged:
    """Decides on candidates, each by its own namespace's threshold.

    Args:
        classifier: The classifier's name.
        thresholds: By namespace, the first namespace first.
        doubts: Says why the promise of a chosen threshold no longer holds, if so.
    """

    def __init__(
        self,
        classifier: str,
        thresholds: Mapping[str, NamespaceThreshold],
        doubts: Callable[[NamespaceThreshold], str | None],
    ) -> None:
        self._classifier = classifier
        self._thresholds = thresholds
        self._first = next(iter(thresholds.values()))
        self._doubts = functools.cache(doubts)

    def by_none(self, query: Query, reason: str, timings: RoutingTimings) -> Decision:
        """The decision where there is no candidate."""
        return Decision(
            query, (), 0.0, self._first.threshold, reason, (), timings, threshold_origin=self._origin(self._first)
        )

    def decide(self, query: Query, candidates: Sequence[Candidate], timings: RoutingTimings) -> Decision:
        """The most probable candidate that reaches its threshold governs; of several as good, the nearest.

        Args:
            query: The query.
            candidates: Most probable first.
            timings: What the call cost.
        """
        if not candidates:
            return self.by_none(query, "no edit is near the query", timings)
        reaching = [one for one in candidates if one.probability >= self._of(one).threshold]
        if reaching:
            least = reaching[0].probability - _NEXT_TO_EQUAL
            best = max((one for one in reaching if one.probability >= least), key=lambda one: one.similarity)
        else:
            best = max(candidates, key=lambda one: one.probability - self._of(one).threshold)
        threshold = self._of(best)
        probability, needed = told_apart(best.probability, threshold.threshold)
        origin = self._origin(threshold)
        reason = (
            f"{self._classifier} gives the edit probability {probability}, "
            f"{'at or above' if reaching else 'below'} the threshold {needed}"
            f"{'' if threshold.chosen is None else f', {origin}'} "
            f"(similarity {best.similarity:.3f} to its {best.matched_kind})"
        )
        return Decision(
            query,
            (best.edit,) if reaching else (),
            best.probability,
            threshold.threshold,
            reason,
            tuple(candidates),
            timings,
            threshold_origin=origin,
        )

    def _of(self, candidate: Candidate) -> NamespaceThreshold:
        return self._thresholds[candidate.edit.namespace]

    def _origin(self, threshold: NamespaceThreshold) -> str:
        doubt = self._doubts(threshold)
        return threshold.origin if doubt is None else f"{threshold.origin}; {doubt}"


def _no_doubts(_: NamespaceThreshold) -> None:
    """Counts nothing."""


def told_apart(probability: float, threshold: float) -> tuple[str, str]:
    """Both with three decimals, or with more where three would make them look the same and they are not."""
    for decimals in (3, 6):
        told = f"{probability:.{decimals}f}", f"{threshold:.{decimals}f}"
        if told[0] != told[1] or probability == threshold:
            break
    return told


def told_margin(decision: Decision) -> str:
    """The margin of a decision with its sign, as precisely as `told_apart` tells what it is the difference of."""
    decimals = len(told_apart(decision.probability, decision.threshold)[0].partition(".")[2])
    return f"{decision.margin:+.{decimals}f}"


def _candidates(found: Sequence[tuple[str, Hit]], probabilities: Sequence[float]) -> list[Candidate]:
    """What was found, with its probabilities, most probable first."""
    return sorted(
        (
            Candidate(hit.edit, hit.score, probability, window, hit.text, hit.kind)
            for (window, hit), probability in zip(found, probabilities, strict=True)
        ),
        key=lambda candidate: (-candidate.probability, -candidate.similarity),
    )


def _as_candidate(hit: Hit) -> ScopeCandidate:
    edit = hit.edit
    return ScopeCandidate(
        prompt=edit.prompt,
        target=edit.target,
        subject=edit.subject,
        matched_text=hit.text,
        similarity=hit.score,
    )
