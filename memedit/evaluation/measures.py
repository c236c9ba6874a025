"""The field's measures, worked out of what the cases came to.

A case that the unedited model already answers, or that failed, counts nowhere; nor does a probe with a reason to be
left out. What counts is counted once: probes that are one test together are one test. Every figure says over how many
cases, how sure it is, what the unedited model had, and what it may be compared with.

Routing is measured apart, in `routing_measures`; general ability is not a matter of cases. This file knows nothing of
models, files or looks.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from memedit.errors import ConfigError
from memedit.evaluation.cases import ProbeKind
from memedit.evaluation.figures import CellSummary, Figure, Measure, Unit
from memedit.evaluation.results import CaseResult, Cell, Likelihoods, ProbeResult
from memedit.evaluation.statistics import Tally

__all__ = [
    "LEGACY_PROTOCOL",
    "TOLD",
    "MethodFacts",
    "Quantity",
    "Results",
    "Tallies",
    "comparability",
    "counted_cases",
    "counted_probes",
    "facts_of",
    "figures_of",
    "in_order",
    "is_told",
    "summaries",
    "tallied_figure",
    "tallies",
]

Results = Mapping[Cell, Sequence[CaseResult]]
"""What the cases of each cell came to."""

MethodFacts = Mapping[str, Mapping[str, Any]]
"""For each method, the fields of its `memedit.editors.editor.MethodInfo`."""

TOLD = "told the edit"
"""What the comparability of methods says that are handed the gold edit."""

LEGACY_PROTOCOL = "teacher-forced"
"""The protocol whose figures are kept for comparison with published tables only."""

BASE = "base"
"""The name of the unedited model among the methods."""

_MEASURES: Mapping[ProbeKind, Measure] = {
    "edit": "reliability",
    "paraphrase": "generalization",
    "detail": "portability",
    "opinion": "portability",
    "alias": "portability",
    "one_hop": "portability",
    "multi_hop": "portability",
    "reversed": "portability",
    "logical": "portability",
    "yes_no": "portability",
    "conflict": "conflict",
    "same_subject": "locality",
    "same_relation": "locality",
    "forgetfulness": "locality",
    "unrelated": "locality",
    "after_passage": "robustness",
    "after_turns": "robustness",
    "after_document": "robustness",
}

_SHARED_COSTS = ("seconds an edit", "seconds setup", "bytes an edit")
"""Kinds of efficiency that cases share with all that were asked while the same edits were in place: no interval."""

_KINDS = get_args(ProbeKind)


class Quantity(NamedTuple):
    """What a figure is the value of: all that tells it from the other figures of a run."""

    dataset: str
    method: str
    protocol: str
    edits: int
    sequential: bool
    measure: Measure
    kind: str | None
    reading: str | None
    unit: Unit

    @classmethod
    def of_figure(cls, figure: Figure) -> Quantity:
        """What a figure is the value of."""
        return cls(*(getattr(figure, name) for name in cls._fields))

    @classmethod
    def in_cell(
        cls,
        cell: Cell,
        measure: Measure,
        *,
        kind: str | None = None,
        reading: str | None = None,
        unit: Unit = "share",
    ) -> Quantity:
        """A quantity of a cell, whatever its seed.

        Args:
            cell: The cell.
            measure: What is measured.
            kind: The probe kind or part of the measure.
            reading: How answers are read.
            unit: What it is counted in.
        """
        return cls(cell.dataset, cell.method, cell.protocol, cell.edits, cell.sequential, measure, kind, reading, unit)


Tallies = defaultdict[Quantity, Tally]
"""What each figure is worked out of."""


def figures_of(results: Results, methods: MethodFacts) -> tuple[Figure, ...]:
    """Works out every figure but those of routing and of general ability.

    Args:
        results: What the cases of each cell came to.
        methods: What each method is.

    Returns:
        By cell, measure and kind; the figure over all kinds comes before those of each.

    Raises:
        ConfigError: The results hold a method that is not among ``methods``.
    """
    tallied = [tallied_figure(quantity, tally, methods) for quantity, tally in tallies(results).items()]
    return in_order([*tallied, *_peaks(results, methods)])


def summaries(results: Results) -> tuple[CellSummary, ...]:
    """Counts what is there of each cell, and what is left out and why.

    Probes are counted by reason in the cases that count; a case that is left out leaves out all of its probes.
    """
    return tuple(_summary(cell, results[cell]) for cell in sorted(results))


def comparability(cell: Cell, method: Mapping[str, Any]) -> str:
    """The group of figures that may stand beside those of a cell.

    Args:
        cell: The cell.
        method: What its method is: the fields of its `memedit.editors.editor.MethodInfo`.

    Returns:
        The protocol, marked where it is the legacy one, and where the method was told the gold edit.
    """
    return _comparability(cell.protocol, method)


def is_told(protocol: str, method: Mapping[str, Any]) -> bool:
    """Whether a method was told which edit belongs to a prompt, by its nature or by the protocol."""
    return protocol == "oracle-router" or bool(method.get("oracle", False))


def counted_cases(cases: Iterable[CaseResult]) -> Iterator[CaseResult]:
    """The cases that count: those that ran to their end and test something."""
    return (case for case in cases if case.error is None and case.testable)


def counted_probes(case: CaseResult) -> Iterator[ProbeResult]:
    """The probes of a case that count: those with no reason to be left out."""
    return (probe for probe in case.probes if probe.left_out is None)


def tallies(results: Results) -> Tallies:
    """Counts what the figures are worked out of, over all seeds."""
    found: Tallies = defaultdict(Tally)
    base_seconds = _base_seconds(results)
    for cell in sorted(results):
        for case in counted_cases(results[cell]):
            _count_tests(found, cell, case)
            _count_retention(found, cell, case)
            _count_fluency(found, cell, case)
            _count_costs(found, cell, case)
            _count_seconds(found, cell, case, base_seconds.get((cell.dataset, cell.protocol), {}))
    return found


def tallied_figure(quantity: Quantity, tally: Tally, methods: MethodFacts) -> Figure:
    """The figure that a tally comes to.

    Args:
        quantity: What was counted.
        tally: What was counted of it.
        methods: What each method is.

    Raises:
        ConfigError: The quantity's method is not among ``methods``.
    """
    interval = None if quantity.kind in _SHARED_COSTS else tally.interval()
    return Figure(
        **quantity._asdict(),
        comparability=_comparability(quantity.protocol, facts_of(quantity.method, methods)),
        value=tally.value,
        low=None if interval is None else interval.low,
        high=None if interval is None else interval.high,
        before=tally.before,
        by_seed=tally.by_seed,
        cases=tally.cases,
        count=tally.count,
    )


def facts_of(method: str, methods: MethodFacts) -> Mapping[str, Any]:
    """What a method is.

    Raises:
        ConfigError: It is not among ``methods``.
    """
    if method not in methods:
        raise ConfigError(
            f"the results hold the method {method!r}, but nothing says what it is, nor whether it is an oracle; "
            f"known are {', '.join(sorted(methods)) or 'none'}. Add its MethodInfo."
        )
    return methods[method]


def in_order(figures: Iterable[Figure]) -> tuple[Figure, ...]:
    """Figures by cell, measure and kind, the one over all kinds first; readings in the order in which they come."""
    measures = get_args(Measure)

    def place(figure: Figure) -> tuple[Any, ...]:
        kind = -1 if figure.kind is None else _KINDS.index(figure.kind) if figure.kind in _KINDS else len(_KINDS)
        cell = (figure.dataset, figure.method, figure.protocol, figure.edits, figure.sequential)
        return (*cell, measures.index(figure.measure), kind)

    return tuple(sorted(figures, key=place))


def _comparability(protocol: str, method: Mapping[str, Any]) -> str:
    group = f"{protocol} (legacy, not comparable)" if protocol == LEGACY_PROTOCOL else protocol
    return f"{group} · {TOLD}" if is_told(protocol, method) else group


def _summary(cell: Cell, cases: Sequence[CaseResult]) -> CellSummary:
    reasons = Counter(probe.left_out for case in counted_cases(cases) for probe in case.probes)
    return CellSummary(
        cell=cell,
        cases=len(cases),
        not_testable=sum(case.error is None and not case.testable for case in cases),
        failed=sum(case.error is not None for case in cases),
        left_out={reason: reasons[reason] for reason in sorted(filter(None, reasons))},
    )


@dataclass(frozen=True, slots=True)
class _Score:
    """What a reading says of a probe, or of a test: after editing, and of the unedited model."""

    after: float
    before: float | None = None


@dataclass(frozen=True, slots=True)
class _Reading:
    """A way to read an answer.

    Attributes:
        name: What it is called.
        read: What it says of a probe; None where it says nothing.
        together: What several probes come to that are one test: what their ``rule`` says, the least of them (``all``),
            or their ``mean``.
        unit: What it is counted in.
    """

    name: str
    read: Callable[[ProbeResult], _Score | None]
    together: Literal["rule", "all", "mean"] = "mean"
    unit: Unit = "share"

    def of_test(self, probes: Sequence[ProbeResult]) -> _Score | None:
        """What it says of probes that are one test together; None where it says nothing of any."""
        scores = [score for probe in probes if (score := self.read(probe)) is not None]
        if not scores:
            return None
        befores = [score.before for score in scores if score.before is not None]
        combined = self._combination(probes[0])
        return _Score(
            after=combined([score.after for score in scores]),
            before=combined(befores) if len(befores) == len(scores) else None,
        )

    def _combination(self, probe: ProbeResult) -> Callable[[list[float]], float]:
        if self.together == "mean":
            return lambda values: sum(values) / len(values)
        return max if self.together == "rule" and probe.group_rule == "any" else min


def _matched(place: Literal["start", "anywhere", "exact"]) -> Callable[[ProbeResult], _Score | None]:
    def read(probe: ProbeResult) -> _Score | None:
        if probe.match is None:
            return None
        before = None if probe.match_before is None else float(getattr(probe.match_before, place))
        return _Score(float(getattr(probe.match, place)), before)

    return read


def _old_said(probe: ProbeResult) -> _Score | None:
    if probe.old_said is None:
        return None
    return _Score(float(probe.old_said), None if probe.old_said_before is None else float(probe.old_said_before))


def _cut(probe: ProbeResult) -> _Score | None:
    return None if probe.answer is None else _Score(float(probe.cut))


def _verdict(probe: ProbeResult) -> _Score | None:
    return None if probe.verdict is None else _Score(float(probe.verdict))


def _identical(probe: ProbeResult) -> _Score | None:
    return None if probe.identical is None else _Score(float(probe.identical), 1.0)


def _overlap(probe: ProbeResult) -> _Score | None:
    return None if probe.overlap is None else _Score(probe.overlap, probe.overlap_before)


def _token_accuracy(probe: ProbeResult) -> _Score | None:
    return None if probe.forced is None else _Score(probe.forced.accuracy, probe.forced.before)


def _token_agreement(probe: ProbeResult) -> _Score | None:
    return None if probe.forced is None else _Score(probe.forced.unchanged, 1.0)


def _divergence(probe: ProbeResult) -> _Score | None:
    return None if probe.kl is None else _Score(probe.kl)


def _rated(score: Callable[[Likelihoods], _Score]) -> Callable[[ProbeResult], _Score | None]:
    return lambda probe: None if probe.likelihoods is None else score(probe.likelihoods)


def _new_likelier(one: Likelihoods) -> _Score:
    return _Score(float(one.new > one.old), float(one.new_before > one.old_before))


def _old_likelier(one: Likelihoods) -> _Score:
    return _Score(float(one.old > one.new), float(one.old_before > one.new_before))


def _new_excess(one: Likelihoods) -> _Score:
    return _Score(math.exp(one.new) - math.exp(one.old), math.exp(one.new_before) - math.exp(one.old_before))


def _old_excess(one: Likelihoods) -> _Score:
    return _Score(math.exp(one.old) - math.exp(one.new), math.exp(one.old_before) - math.exp(one.new_before))


_ANYWHERE = _Reading("anywhere", _matched("anywhere"), together="rule")

_IN_SCOPE = (
    _ANYWHERE,
    _Reading("start", _matched("start"), together="rule"),
    _Reading("exact", _matched("exact"), together="rule"),
    _Reading("verdict", _verdict, together="rule"),
    _Reading("overlap", _overlap),
    _Reading("old said", _old_said),
    _Reading("cut", _cut),
    _Reading("token accuracy", _token_accuracy),
    _Reading("P(new) > P(old)", _rated(_new_likelier), together="rule"),
    _Reading("P(new) - P(old)", _rated(_new_excess)),
)
"""How the answer is read where an edit governs the probe."""

_OUT_OF_SCOPE = (
    # an answer that moved is not made good by another that did not, whatever the rule of the test
    _Reading("identical", _identical, together="all"),
    _ANYWHERE,
    _Reading("token agreement", _token_agreement),
    _Reading("P(old) > P(new)", _rated(_old_likelier), together="rule"),
    _Reading("P(old) - P(new)", _rated(_old_excess)),
    _Reading("kl", _divergence, unit="nats"),
)
"""How the answer is read where none does."""


def _count_tests(found: Tallies, cell: Cell, case: CaseResult) -> None:
    for test in _tests(case):
        kind, in_scope = test[0].kind, test[0].in_scope
        measure = _MEASURES[kind] if in_scope else "locality"
        for reading in _IN_SCOPE if in_scope else _OUT_OF_SCOPE:
            score = reading.of_test(test)
            if score is None:
                continue
            for part in (None, kind):
                quantity = Quantity.in_cell(cell, measure, kind=part, reading=reading.name, unit=reading.unit)
                found[quantity].add(case.case, cell.seed, score.after, before=score.before)


def _tests(case: CaseResult) -> Iterable[list[ProbeResult]]:
    """The probes of a case that count, those together that are one test.

    The copies of a test that stand behind a context are a test of their own.
    """
    found: dict[tuple[object, ...], list[ProbeResult]] = {}
    for probe in counted_probes(case):
        alone = (probe.place,) if probe.group is None else ()
        key = (probe.group, *alone, probe.kind, probe.base_kind, probe.in_scope)
        found.setdefault(key, []).append(probe)
    return found.values()


def _count_retention(found: Tallies, cell: Cell, case: CaseResult) -> None:
    if not cell.sequential:
        return
    kind = _later_edits(case.made - 1 - case.position)
    for test in _tests(case):
        score = _ANYWHERE.of_test(test) if test[0].kind == "edit" else None
        if score is not None:
            quantity = Quantity.in_cell(cell, "retention", kind=kind, reading=_ANYWHERE.name)
            found[quantity].add(case.case, cell.seed, score.after, before=score.before)


def _later_edits(count: int) -> str:
    """The bin of a number of edits: ``0``, ``1-9``, ``10-99`` and so on."""
    if count < 1:
        return "0"
    least = 10 ** (len(str(count)) - 1)
    return f"{least}-{10 * least - 1}"


def _count_fluency(found: Tallies, cell: Cell, case: CaseResult) -> None:
    if case.fluency is not None:
        quantity = Quantity.in_cell(cell, "fluency", reading="n-gram entropy", unit="bits")
        found[quantity].add(case.case, cell.seed, case.fluency, before=case.fluency_before)


def _count_costs(found: Tallies, cell: Cell, case: CaseResult) -> None:
    cost = case.cost
    if cost is None:
        return

    def count(kind: str, unit: Unit, amount: float, over: int) -> None:
        if over:
            quantity = Quantity.in_cell(cell, "efficiency", kind=kind, unit=unit)
            found[quantity].add(case.case, cell.seed, amount, over=over)

    count("seconds an edit", "seconds", cost.seconds, cost.edits)
    count("seconds setup", "seconds", cost.setup_seconds, 1)
    if cost.stored_bytes is not None:
        count("bytes an edit", "bytes", cost.stored_bytes, cost.edits)
    count("treat seconds a prompt", "seconds", cost.treat_seconds * len(case.probes), len(case.probes))


def _peaks(results: Results, methods: MethodFacts) -> Iterator[Figure]:
    """The most memory that the process held, which is no mean."""
    found: dict[Quantity, list[tuple[int, str, int]]] = {}
    for cell in sorted(results):
        quantity = Quantity.in_cell(cell, "efficiency", kind="peak bytes", unit="bytes")
        for case in counted_cases(results[cell]):
            if case.cost is not None and case.cost.peak_bytes is not None:
                found.setdefault(quantity, []).append((cell.seed, case.case, case.cost.peak_bytes))
    for quantity, peaks in found.items():
        seeds = sorted({seed for seed, _, _ in peaks})
        yield Figure(
            **quantity._asdict(),
            comparability=_comparability(quantity.protocol, facts_of(quantity.method, methods)),
            value=max(size for _, _, size in peaks),
            by_seed={one: max(size for seed, _, size in peaks if seed == one) for one in seeds},
            cases=len({case for _, case, _ in peaks}),
            count=len(peaks),
        )


ProbePlace = tuple[str, int]
"""A case and the place of one of its probes."""


def _base_seconds(results: Results) -> dict[tuple[str, str], dict[ProbePlace, float]]:
    """What the unedited model took to answer each probe, on average, by dataset and protocol."""
    taken: dict[tuple[str, str], dict[ProbePlace, list[float]]] = {}
    for cell, cases in results.items():
        if cell.method == BASE:
            probes = taken.setdefault((cell.dataset, cell.protocol), {})
            for case in counted_cases(cases):
                for probe in counted_probes(case):
                    if probe.seconds is not None:
                        probes.setdefault((case.case, probe.place), []).append(probe.seconds)
    return {
        key: {place: sum(seconds) / len(seconds) for place, seconds in probes.items()} for key, probes in taken.items()
    }


def _count_seconds(found: Tallies, cell: Cell, case: CaseResult, base: Mapping[ProbePlace, float]) -> None:
    """Counts how long answers took, and the whole wait beside that of the unedited model on the very same probes."""
    treating = 0.0 if case.cost is None else case.cost.treat_seconds
    taking = Quantity.in_cell(cell, "efficiency", kind="answer seconds a prompt", unit="seconds")
    beside = Quantity.in_cell(cell, "efficiency", kind="answer seconds, ratio to base", unit="ratio")
    for probe in counted_probes(case):
        if probe.seconds is None:
            continue
        found[taking].add(case.case, cell.seed, probe.seconds)
        unedited = base.get((case.case, probe.place), 0.0)
        if unedited > 0:
            found[beside].add(case.case, cell.seed, treating + probe.seconds, over=unedited)
