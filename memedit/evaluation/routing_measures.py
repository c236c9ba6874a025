"""How a router did, apart from what was then answered: found the edit, fired for it, kept still for all else.

Methods and protocols that are told the gold edit do not route, and are passed over. An out-of-scope probe that asks for
another edit in place, for which that edit rightly fired, counts for nothing but false fires, and is none. Knows nothing
of models, files or looks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from classifiers.calibration import ReliabilityBin, expected_calibration_error, reliability_bins
from memedit.evaluation.figures import CalibrationBin, Figure, RiskPoint
from memedit.evaluation.measures import (
    MethodFacts,
    Quantity,
    Results,
    Tallies,
    comparability,
    counted_cases,
    counted_probes,
    facts_of,
    in_order,
    is_told,
    tallied_figure,
)
from memedit.evaluation.results import Cell, ProbeResult, Protocol, Routed
from memedit.evaluation.statistics import Floats, Interval, Tally, area_under_roc, bootstrap_interval

__all__ = ["calibration_of", "risk_of", "routing_figures", "routing_tallies"]

RECALLS = (1, 5, 10)
"""Among how many candidates the gold edit is looked for."""

BINS = 10
"""Bars of a reliability diagram, equally wide."""

_ROUTING_PROTOCOLS: tuple[Protocol, ...] = ("free", "probability", "teacher-forced")
"""Protocols under which a router decides by itself, the first of them that was run counts."""


def routing_figures(results: Results, methods: MethodFacts) -> tuple[Figure, ...]:
    """Works out the figures of routing.

    In scope: ``recall@k``, the gold edit among the k nearest candidates; ``right edit`` and ``another edit``, which
    fired. Out of scope: ``false fires``, and by kind of near miss as ``false fires: same_subject``. Over both:
    ``AUROC`` of the best candidate's probability between in and out of scope; ``Brier score`` and ``calibration error``
    (expected, over bins of equal width, Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3) of that
    probability against the best candidate being the gold edit. Probes of one test count each: each is routed.

    Args:
        results: What the cases of each cell came to.
        methods: What each method is.

    Returns:
        By cell. The calibration error has no interval: resampling makes it larger.

    Raises:
        ConfigError: The results hold a method that is not among ``methods``.
    """
    tallied = [
        tallied_figure(quantity, tally, methods) for quantity, tally in routing_tallies(results, methods).items()
    ]
    return in_order([*tallied, *_curve_figures(results, methods)])


def routing_tallies(results: Results, methods: MethodFacts) -> Tallies:
    """Counts what the figures of routing are worked out of, but AUROC and calibration error, which are no means.

    Args:
        results: What the cases of each cell came to.
        methods: What each method is.

    Raises:
        ConfigError: The results hold a method that is not among ``methods``.
    """
    found: Tallies = defaultdict(Tally)
    for cell in _routing_cells(results, methods):
        for one in _routed_probes(results, cell):
            for kind, amount in _told_of(one):
                found[Quantity.in_cell(cell, "routing", kind=kind)].add(one.case, cell.seed, amount)
    return found


def calibration_of(results: Results, methods: MethodFacts) -> tuple[CalibrationBin, ...]:
    """Works out the reliability diagrams, over all seeds; bins without a probe are left out.

    Args:
        results: What the cases of each cell came to.
        methods: What each method is.

    Raises:
        ConfigError: The results hold a method that is not among ``methods``.
    """
    return tuple(
        CalibrationBin(
            dataset=key[0],
            method=key[1],
            edits=key[2],
            low=one.low,
            high=one.high,
            foretold=one.foretold,
            found=one.found,
            count=one.count,
        )
        for key, routed in _by_memory_size(results, methods).items()
        for one in _Foretold.of(routed).bins()
    )


def risk_of(results: Results, methods: MethodFacts) -> tuple[RiskPoint, ...]:
    """Works out how routing goes at each size of the memory, over all seeds.

    Args:
        results: What the cases of each cell came to.
        methods: What each method is.

    Raises:
        ConfigError: The results hold a method that is not among ``methods``.
    """
    return tuple(_risk_point(key, list(routed)) for key, routed in _by_memory_size(results, methods).items() if routed)


@dataclass(frozen=True, slots=True)
class _RoutedProbe:
    """A probe that a router decided on, with the case that it is part of."""

    case: str
    probe: ProbeResult
    routed: Routed

    @property
    def kind(self) -> str:
        """Its kind, contexts aside."""
        return self.probe.base_kind or self.probe.kind

    @property
    def fired_falsely(self) -> bool:
        """Whether an edit fired that is neither the probe's own nor what the probe asks for."""
        return self.routed.fired and not self.routed.right

    @property
    def asks_for_another(self) -> bool:
        """Whether it is out of scope of its own edit, and another fired rightly."""
        return not self.probe.in_scope and self.routed.fired and bool(self.routed.right)

    @property
    def found(self) -> bool:
        """Whether the best candidate is the gold edit; the nearest, where old results do not tell of the best."""
        if not self.probe.in_scope:
            return False
        return self.routed.rank == 1 if self.routed.right is None else self.routed.right


MemorySize = tuple[str, str, int]
"""Dataset, method and number of edits."""


def _routing_cells(results: Results, methods: MethodFacts) -> Iterator[Cell]:
    """The cells whose method decides by itself which edit governs a probe."""
    return (cell for cell in sorted(results) if not is_told(cell.protocol, facts_of(cell.method, methods)))


def _routed_probes(results: Results, cell: Cell) -> Iterator[_RoutedProbe]:
    for case in counted_cases(results[cell]):
        for probe in counted_probes(case):
            if probe.routed is not None:
                yield _RoutedProbe(case.case, probe, probe.routed)


def _by_memory_size(results: Results, methods: MethodFacts) -> Mapping[MemorySize, list[_RoutedProbe]]:
    """Probes by size of the memory, each asked under one protocol and with the edits made in one way."""
    ways: dict[MemorySize, dict[tuple[int, bool], list[_RoutedProbe]]] = {}
    for cell in _routing_cells(results, methods):
        routed = list(_routed_probes(results, cell)) if cell.protocol in _ROUTING_PROTOCOLS else []
        if routed:
            way = (_ROUTING_PROTOCOLS.index(cell.protocol), cell.sequential)
            size = ways.setdefault((cell.dataset, cell.method, cell.edits), {})
            size.setdefault(way, []).extend(routed)
    return {key: ways[key][min(ways[key])] for key in sorted(ways)}


def _told_of(one: _RoutedProbe) -> Iterator[tuple[str, float]]:
    """What one probe adds to each mean: the kind of the figure, and the amount."""
    if one.probe.in_scope:
        for k in RECALLS:
            yield f"recall@{k}", float(one.routed.rank is not None and one.routed.rank <= k)
        yield "right edit", float(one.routed.fired and bool(one.routed.right))
        yield "another edit", float(one.fired_falsely)
    else:
        yield "false fires", float(one.fired_falsely)
        yield f"false fires: {one.kind}", float(one.fired_falsely)
    if not one.asks_for_another:
        yield "Brier score", (one.routed.probability - one.found) ** 2


def _curve_figures(results: Results, methods: MethodFacts) -> Iterator[Figure]:
    """AUROC and calibration error of each cell, over all seeds."""
    together: dict[Quantity, list[Cell]] = {}
    for cell in _routing_cells(results, methods):
        together.setdefault(Quantity.in_cell(cell, "routing"), []).append(cell)
    for quantity, cells in together.items():
        by_seed = {cell.seed: _Foretold.of(_routed_probes(results, cell)) for cell in cells}
        every = _Foretold.of(one for cell in cells for one in _routed_probes(results, cell))
        if not every.probabilities.size:
            continue
        group = comparability(cells[0], facts_of(quantity.method, methods))
        areas = {seed: area for seed, one in by_seed.items() if (area := one.area()) is not None}
        area, interval = every.area(), every.area_interval()
        if area is not None:
            yield Figure(
                **quantity._replace(kind="AUROC")._asdict(),
                comparability=group,
                value=area,
                low=None if interval is None else interval.low,
                high=None if interval is None else interval.high,
                by_seed=areas,
                cases=every.cases,
                count=every.probabilities.size,
            )
        yield Figure(
            **quantity._replace(kind="calibration error")._asdict(),
            comparability=group,
            value=every.calibration_error(),
            by_seed={seed: one.calibration_error() for seed, one in by_seed.items() if one.probabilities.size},
            cases=every.cases,
            count=every.probabilities.size,
        )


@dataclass(frozen=True, slots=True)
class _Foretold:
    """Probabilities of the best candidates, and what came true, each ``[probes]``."""

    probabilities: Floats
    in_scope: NDArray[np.bool_]
    found: NDArray[np.bool_]
    case_places: NDArray[np.intp]
    cases: int

    @classmethod
    def of(cls, probes: Iterable[_RoutedProbe]) -> _Foretold:
        """Those of probes whose scope is clear."""
        clear = [one for one in probes if not one.asks_for_another]
        names = {name: place for place, name in enumerate(sorted({one.case for one in clear}))}
        return cls(
            probabilities=np.array([one.routed.probability for one in clear], dtype=np.float64),
            in_scope=np.array([one.probe.in_scope for one in clear], dtype=np.bool_),
            found=np.array([one.found for one in clear], dtype=np.bool_),
            case_places=np.array([names[one.case] for one in clear], dtype=np.intp),
            cases=len(names),
        )

    @property
    def has_both(self) -> bool:
        """Whether there are probes in scope and out of it."""
        return bool(self.in_scope.any() and not self.in_scope.all())

    def bins(self) -> tuple[ReliabilityBin, ...]:
        """The bars of a reliability diagram; none where there are no probes."""
        return reliability_bins(self.probabilities, self.found, bins=BINS) if self.probabilities.size else ()

    def calibration_error(self) -> float:
        """The expected calibration error over `bins`; 0 where there are no probes."""
        if not self.probabilities.size:
            return 0.0
        return expected_calibration_error(self.probabilities, self.found, bins=BINS)

    def area(self) -> float | None:
        """AUROC; None unless there are probes in scope and out of it."""
        if not self.has_both:
            return None
        return float(area_under_roc(self.probabilities, self.in_scope, np.ones((1, self.in_scope.size)))[0])

    def area_interval(self) -> Interval | None:
        """The interval of AUROC; None unless there are probes in scope and out of it."""
        if not self.has_both:
            return None
        return bootstrap_interval(
            lambda drawn: area_under_roc(self.probabilities, self.in_scope, drawn[:, self.case_places]),
            self.cases,
            width=self.in_scope.size,
        )


def _risk_point(size: MemorySize, routed: list[_RoutedProbe]) -> RiskPoint:
    in_scope = [one for one in routed if one.probe.in_scope]
    outside = [one for one in routed if not one.probe.in_scope]
    dataset, method, edits = size
    return RiskPoint(
        dataset=dataset,
        method=method,
        edits=edits,
        right=_share(one.routed.fired and bool(one.routed.right) for one in in_scope),
        wrong=_share(one.fired_falsely for one in in_scope),
        near_misses=_share(one.fired_falsely for one in outside if one.kind != "unrelated"),
        unrelated=_share(one.fired_falsely for one in outside if one.kind == "unrelated"),
        count=len(routed),
    )


def _share(told: Iterable[bool]) -> float | None:
    every = list(told)
    return sum(every) / len(every) if every else None
