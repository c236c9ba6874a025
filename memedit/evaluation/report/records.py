"""The records a reader should look at: where a method failed worst, what fired that should not, what took longest.

Chosen evenly from the methods, so that one that fails everywhere does not crowd out the others. Only methods that
change something are looked at, and of several protocols only the one nearest to use. Knows nothing of how they are
shown.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from memedit.evaluation.cases import EvalCase
from memedit.evaluation.figures import EvalReport
from memedit.evaluation.measures import Results, counted_cases, counted_probes
from memedit.evaluation.report.arrangement import edits_phrase, method_rank
from memedit.evaluation.results import GENERATING, CaseResult, Cell, ProbeResult, Routed

__all__ = [
    "CaseTexts",
    "FalseFire",
    "MissedProbe",
    "RecordChoice",
    "SlowRecord",
    "WorstRecord",
    "records_of",
]

CaseTexts = Mapping[tuple[str, str], EvalCase]
"""The cases by dataset and id; those that are not there are shown by their ids."""

_WORST = 18
"""How many worst records of a dataset are shown."""
_PROBES_OF_A_RECORD = 3
"""How many missed probes of one record are shown."""
_FALSE_FIRES = 18
"""How many false fires of a dataset are shown."""
_SLOWEST = 10
"""How many slow records of a dataset are shown."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class MissedProbe:
    """An in-scope probe that was not answered with the edit.

    Attributes:
        kind: Its kind.
        typed: What was typed; None where the case's text is not at hand.
        wanted: What counts as an answer.
        before: What the unedited model said.
        answer: What the edited model said.
        verdict: What the router did, in words; empty for methods without a router.
        edit: The edit that fired, or the best candidate where none did; None for methods without a router.
        odds: Its probability and the threshold; empty for methods without a router.
    """

    kind: str
    typed: str | None
    wanted: tuple[str, ...]
    before: str | None
    answer: str | None
    verdict: str
    edit: str | None
    odds: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstRecord:
    """A record of which a method missed much.

    Attributes:
        case: Its id.
        method: Name of the method.
        edits: How many edits were in place, in words.
        facts: The record's edits, prompt and target.
        missed: How many of its in-scope probes were missed.
        asked: How many in-scope probes it has.
        probes: The missed ones, the first few.
    """

    case: str
    method: str
    edits: str
    facts: tuple[tuple[str, str], ...]
    missed: int
    asked: int
    probes: tuple[MissedProbe, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FalseFire:
    """An out-of-scope probe for which an edit fired that is not about it.

    Attributes:
        case: The record's id.
        method: Name of the method.
        edits: How many edits were in place, in words.
        kind: The probe's kind.
        typed: What was typed; None where the case's text is not at hand.
        edit: The edit that fired.
        probability: With which probability.
        odds: That and the threshold, in words.
        before: What the unedited model said.
        answer: What the edited model said.
        identical: Whether the two are the same all the same.
    """

    case: str
    method: str
    edits: str
    kind: str
    typed: str | None
    edit: str | None
    probability: float
    odds: str
    before: str | None
    answer: str | None
    identical: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowRecord:
    """A record that took long to answer.

    Attributes:
        case: Its id.
        method: Name of the method.
        edits: How many edits were in place, in words.
        probes: How many of its probes were answered.
        seconds: How long its answers took together.
    """

    case: str
    method: str
    edits: str
    probes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordChoice:
    """The records of one dataset that a reader should look at.

    Attributes:
        protocol: The protocol that they were asked under; None where none of the run's generates anything.
        worst: Records with many missed probes.
        missed_records: How many records have a missed probe at all.
        false_fires: Probes for which an edit fired falsely.
        all_false_fires: How many there are of them.
        slowest: Records that took longest.
    """

    protocol: str | None
    worst: tuple[WorstRecord, ...] = ()
    missed_records: int = 0
    false_fires: tuple[FalseFire, ...] = ()
    all_false_fires: int = 0
    slowest: tuple[SlowRecord, ...] = ()


def records_of(report: EvalReport, dataset: str, results: Results, cases: CaseTexts) -> RecordChoice:
    """Chooses the records of a dataset that are worth a look."""
    cells = sorted((cell for cell in results if cell.dataset == dataset), key=lambda cell: (-cell.edits, cell))
    present = {cell.protocol for cell in cells}
    protocol = next((one for one in GENERATING if one in present), None)
    if protocol is None:
        return RecordChoice(protocol=None)
    cells = [cell for cell in cells if cell.protocol == protocol]
    changing = [cell for cell in cells if report.methods.get(cell.method, {}).get("changes") != "nothing"]
    rank = method_rank(report)
    worst = _once((one for cell in changing for one in _worst_records(cell, results[cell], cases)), _of_record)
    worst.sort(key=lambda one: (-one.missed / one.asked, -one.missed))
    fires = _once((one for cell in changing for one in _false_fires(cell, results[cell], cases)), _of_fire)
    fires.sort(key=lambda one: -one.probability)
    slow = [one for cell in cells for one in _timed(cell, results[cell])]
    slow.sort(key=lambda one: -one.seconds)
    methods = sorted({cell.method for cell in cells}, key=rank)
    return RecordChoice(
        protocol=protocol,
        worst=tuple(_evenly(worst, methods, lambda one: one.method, _WORST)),
        missed_records=len(worst),
        false_fires=tuple(_evenly(fires, methods, lambda one: one.method, _FALSE_FIRES)),
        all_false_fires=len(fires),
        slowest=tuple(slow[:_SLOWEST]),
    )


def _worst_records(cell: Cell, results: Sequence[CaseResult], cases: CaseTexts) -> Iterable[WorstRecord]:
    for result in counted_cases(results):
        asked = [probe for probe in counted_probes(result) if probe.in_scope and probe.match is not None]
        passed = {_test(probe) for probe in asked if probe.group_rule == "any" and _answered(probe)}
        missed = [probe for probe in asked if not _answered(probe) and _test(probe) not in passed]
        if missed:
            case = cases.get((cell.dataset, result.case))
            yield WorstRecord(
                case=result.case,
                method=cell.method,
                edits=edits_phrase(cell.edits, sequential=cell.sequential),
                facts=() if case is None else tuple((edit.prompt, edit.target) for edit in case.edits),
                missed=len(missed),
                asked=len(asked),
                probes=tuple(_missed_probe(probe, case) for probe in missed[:_PROBES_OF_A_RECORD]),
            )


def _answered(probe: ProbeResult) -> bool:
    return probe.match is not None and probe.match.anywhere


def _test(probe: ProbeResult) -> tuple[object, ...]:
    """What probes have in common that are one test together."""
    return (probe.group or probe.place, probe.kind, probe.base_kind)


def _missed_probe(probe: ProbeResult, case: EvalCase | None) -> MissedProbe:
    known = case is not None and probe.place < len(case.probes)
    return MissedProbe(
        kind=_kind(probe),
        typed=_typed(probe, case),
        wanted=case.probes[probe.place].reference.answers if case is not None and known else (),
        before=probe.before,
        answer=probe.answer,
        verdict=_routing(probe),
        edit=None if probe.routed is None else probe.routed.edit,
        odds=_odds(probe.routed),
    )


def _false_fires(cell: Cell, results: Sequence[CaseResult], cases: CaseTexts) -> Iterable[FalseFire]:
    for result in results:
        case = cases.get((cell.dataset, result.case))
        for probe in counted_probes(result):
            routed = probe.routed
            if probe.in_scope or routed is None or not routed.fired or routed.right:
                continue
            yield FalseFire(
                case=result.case,
                method=cell.method,
                edits=edits_phrase(cell.edits, sequential=cell.sequential),
                kind=_kind(probe),
                typed=_typed(probe, case),
                edit=routed.edit,
                probability=routed.probability,
                odds=_odds(routed),
                before=probe.before,
                answer=probe.answer,
                identical=bool(probe.identical),
            )


def _timed(cell: Cell, results: Sequence[CaseResult]) -> Iterable[SlowRecord]:
    for result in results:
        times = [probe.seconds for probe in result.probes if probe.seconds is not None]
        if times:
            yield SlowRecord(
                case=result.case,
                method=cell.method,
                edits=edits_phrase(cell.edits, sequential=cell.sequential),
                probes=len(times),
                seconds=sum(times),
            )


def _routing(probe: ProbeResult) -> str:
    routed = probe.routed
    if routed is None:
        return ""
    if not routed.fired:
        return "none fired; nearest"
    return "the right edit fired" if routed.right else "another edit fired"


def _odds(routed: Routed | None) -> str:
    return "" if routed is None else f"probability {routed.probability:.2f}, threshold {routed.threshold:.2f}"


def _kind(probe: ProbeResult) -> str:
    kind = probe.kind.replace("_", " ")
    return kind if probe.base_kind is None else f"{probe.base_kind.replace('_', ' ')}, {kind}"


def _typed(probe: ProbeResult, case: EvalCase | None) -> str | None:
    if case is None or probe.place >= len(case.probes):
        return None
    prompt = case.probes[probe.place].prompt
    if not prompt.turns:
        return prompt.text
    return "\n".join(f"{message['role']}: {message['content']}" for message in prompt.messages())


def _of_record(record: WorstRecord) -> tuple[str, str]:
    return (record.method, record.case)


def _of_fire(fire: FalseFire) -> tuple[str, str, str | None, str | None]:
    return (fire.method, fire.case, fire.typed or fire.kind, fire.edit)


def _once(found: Iterable[T], key: Callable[[T], Hashable]) -> list[T]:
    """The first of those with the same key."""
    first: dict[Hashable, T] = {}
    for one in found:
        first.setdefault(key(one), one)
    return list(first.values())


def _evenly(found: Sequence[T], methods: Sequence[str], method_of: Callable[[T], str], limit: int) -> list[T]:
    """The first of each method in turn, then the second of each, up to a limit."""
    queues = {method: [one for one in found if method_of(one) == method] for method in methods}
    turns = [queues[method][turn] for turn in range(limit) for method in methods if turn < len(queues[method])]
    return turns[:limit]
