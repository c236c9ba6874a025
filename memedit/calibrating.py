"""Choosing the threshold of a namespace from ordinary traffic, so that false fires stay as rare as was asked.

The prompts are routed as any prompt is. `classifiers.false_fire` chooses from the best probability of each, with room
for the memory to grow, and says what exactly is promised. Nothing is generated, and no language model is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Protocol

from memedit.errors import CalibrationError
from memedit.queries import Query
from memedit.routing import Decision, Router
from memedit.thresholds import ChosenThreshold, NamespaceThreshold, keep_threshold, percent
from memedit.traffic import Messages, Traffic, traffic_of

if TYPE_CHECKING:
    from classifiers.false_fire import ThresholdChoice
    from memory_store import Edit

__all__ = ["ROOM", "Calibration", "Firing", "calibrate", "highest_firing", "route_traffic"]

ROOM = 2
"""How many times the present number of edits a threshold has room for, unless said otherwise."""

MOST_LISTED = 10
"""Prompts listed for a person to look at."""

_BATCH = 64


class Progress(Protocol):
    """Is told how far long work has come."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Takes what is being done, how much of it is done and how much there is, in the same unit."""


@dataclass(frozen=True, slots=True)
class Firing:
    """A prompt of the traffic and the edit that comes nearest to governing it.

    Attributes:
        prompt: What it asks.
        probability: The edit's probability.
        edit: The edit.
    """

    prompt: str
    probability: float
    edit: Edit


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What a calibration came to.

    Attributes:
        namespace: Whose edits are judged by the threshold.
        chosen: The threshold and what it was chosen from.
        before: The threshold that was in force.
        distinct: How many different prompts there were; many repeated ones are no independent draws.
        highest: The prompts with the highest probabilities, highest first. One that an edit governs rightly is to be
            marked as in scope: it makes the threshold stricter than need be.
        kept: Whether it was stored with the memory.
    """

    namespace: str
    chosen: ChosenThreshold
    before: NamespaceThreshold
    distinct: int
    highest: tuple[Firing, ...]
    kept: bool


def calibrate(
    router: Router,
    traffic: Traffic | Iterable[str | Messages],
    *,
    max_false_fire: float,
    confidence: float = 0.95,
    room_for: int | None = None,
    namespace: str | None = None,
    keep: bool = True,
    progress: Progress | None = None,
) -> Calibration:
    """Choose the threshold of a namespace from ordinary prompts, and keep it with the memory.

    With the confidence given, of prompts drawn as these were at most ``max_false_fire`` are wrongly governed, by the
    memory as it is; and, if later edits are like the present ones, on average no more once it holds ``room_for``. The
    threshold is never lower than the classifier's own. It counts for this classifier and this encoder only.

    Args:
        router: What decides; an edited model's is ``model.router``.
        traffic: Prompts as users send them, each a text or chat messages, unlabelled; or what
            `memedit.traffic.read_traffic` reads.
        max_false_fire: The share of wrongly governed prompts to keep, between 0 and 1.
        confidence: With what confidence, between 0 and 1.
        room_for: How many edits there may be later; by default twice as many as there are.
        namespace: Whose edits are judged by the threshold; it need be given only where the router searches several.
        keep: Whether to store it; else this only tells.
        progress: Is told how many prompts are routed.

    Raises:
        CalibrationError: There is too little traffic for the promise (the error says how much would do), too many
            prompts have a probability of 1, there is no edit, or less room than edits. The threshold stays as it is.
        ValueError: A share is out of range, or the namespace is not one of the router's.
    """
    prompts = traffic if isinstance(traffic, Traffic) else traffic_of(traffic)
    alone = _of_one_namespace(router, namespace)
    (where,) = alone.namespaces
    edits = alone.memory.count(namespace=where, include_expired=False)
    if not edits:
        raise CalibrationError(f"No edit is in force in the namespace {where!r}, so none can fire; add edits first.")
    room = ROOM * edits if room_for is None else room_for
    if room < edits:
        raise CalibrationError(
            f"There must be room for the {edits:,} edits that are in force in {where!r}; room_for is {room:,}."
        )
    decisions = route_traffic(alone, prompts, progress=progress)
    highest = highest_firing(decisions)
    threshold, choice = _choice(
        [decision.candidates[0].probability if decision.candidates else 0.0 for decision in decisions],
        highest,
        max_false_fire=max_false_fire,
        confidence=confidence,
        least=alone.scope.threshold,
        edits=edits,
        room=room,
    )
    chosen = ChosenThreshold(
        threshold=threshold,
        max_false_fire=max_false_fire,
        confidence=confidence,
        prompts=choice.prompts,
        in_scope=len(prompts.prompts) - choice.prompts,
        fires=choice.fires,
        edits=edits,
        room_for=room,
        candidates=alone.candidates,
        classifier=alone.scope.name,
        classifier_fingerprint=alone.scope.fingerprint,
        encoder_fingerprint=alone.encoder.fingerprint,
        traffic=prompts.name,
        traffic_sha256=prompts.sha256,
        traffic_bytes=prompts.size,
        chosen_at=datetime.now(UTC),
        version=_own_version(),
    )
    (before,) = alone.thresholds()
    if keep:
        keep_threshold(alone.memory, where, chosen)
    return Calibration(
        namespace=where,
        chosen=chosen,
        before=before,
        distinct=len({decision.query for decision in decisions}),
        highest=highest,
        kept=keep,
    )


def route_traffic(router: Router, traffic: Traffic, *, progress: Progress | None = None) -> list[Decision]:
    """Decides on each prompt that is not marked as in scope, in order; one that was sent twice is read once.

    Args:
        router: What decides.
        traffic: The prompts.
        progress: Is told how many different prompts are routed.
    """
    asked = [one.query for one in traffic.prompts if not one.in_scope]
    distinct = list(dict.fromkeys(asked))
    decided: dict[Query, Decision] = {}
    for start in range(0, len(distinct), _BATCH):
        batch = distinct[start : start + _BATCH]
        decided.update(zip(batch, router.route(batch), strict=True))
        if progress is not None:
            progress("routing prompts", len(decided), len(distinct))
    return [decided[query] for query in asked]


def highest_firing(decisions: Iterable[Decision], *, most: int = MOST_LISTED) -> tuple[Firing, ...]:
    """The prompts whose best edits are most probable, each once, highest first; those without a candidate are left out.

    Args:
        decisions: As `route_traffic` gives them.
        most: How many at most.
    """
    best = {
        decision.query: Firing(decision.query.text, decision.candidates[0].probability, decision.candidates[0].edit)
        for decision in decisions
        if decision.candidates
    }
    return tuple(sorted(best.values(), key=lambda firing: -firing.probability)[:most])


def _of_one_namespace(router: Router, namespace: str | None) -> Router:
    """A router that searches one namespace as the given one does.

    Raises:
        ValueError: It is not one of the router's, or it is one of several and was not named.
    """
    known = ", ".join(map(repr, router.namespaces))
    if namespace is None and len(router.namespaces) != 1:
        raise ValueError(
            f"the router searches several namespaces ({known}), each with a threshold of its own; name one"
        )
    if namespace is not None and namespace not in router.namespaces:
        raise ValueError(f"the router searches {known}, not {namespace!r}")
    where = router.namespaces[0] if namespace is None else namespace
    return Router(router.memory, router.encoder, router.scope, namespaces=(where,), candidates=router.candidates)


def _choice(
    maxima: Sequence[float],
    highest: Sequence[Firing],
    *,
    max_false_fire: float,
    confidence: float,
    least: float,
    edits: int,
    room: int,
) -> tuple[float, ThresholdChoice]:
    """The threshold that keeps the rate in a memory grown to ``room`` edits, and how it was chosen.

    Raises:
        CalibrationError: There is none.
    """
    from classifiers.false_fire import choose_threshold, prompts_needed, rate_bound, rate_with_room

    rate = rate_with_room(max_false_fire, edits=edits, room_for=room)
    choice = choose_threshold(maxima, max_false_fire=rate, confidence=confidence, least=least)
    if choice.threshold is not None:
        return choice.threshold, choice
    asked = f"at most {percent(max_false_fire)} false fires with a confidence of {percent(confidence)}"
    if room > edits:
        asked += f" and room for {room:,} edits (so at most {percent(rate)} with the {edits:,} there are)"
    if choice.allowed is None:
        needed = prompts_needed(max_false_fire=rate, confidence=confidence)
        shown = f"at most {percent(rate_bound(0, len(maxima), confidence=confidence))}" if maxima else "nothing"
        raise CalibrationError(
            f"There is too little traffic to promise {asked}: {len(maxima):,} prompts show {shown}, even if none of "
            f"them fires. {needed:,} would do. The threshold stays as it is.",
            prompts_needed=needed,
        )
    raise CalibrationError(
        f"No threshold keeps {asked}: for {choice.fires:,} of {choice.prompts:,} prompts an edit has the probability "
        f"1, and only {choice.allowed:,} may fire. Mark those that an edit governs rightly as in scope (such as "
        f"{', '.join(repr(firing.prompt[:60]) for firing in highest[:3])}). The threshold stays as it is."
    )


def _own_version() -> str:
    try:
        return version("memedit")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0+unknown"
