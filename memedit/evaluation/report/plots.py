"""Which charts a report shows, and of which figures: curves over edits, bars by kind, retention, divergence, routing.

A plot holds figures of one dataset and one comparability group, as tables do. `charts` draws; nothing here knows SVG.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from memedit.evaluation.figures import CalibrationBin, EvalReport, Figure, Measure, RiskPoint
from memedit.evaluation.report.arrangement import (
    edits_phrase,
    figure_rank,
    groups_of,
    headline_reading,
    method_rank,
)
from memedit.evaluation.report.charts import (
    MOST_LABELLED,
    NARROW,
    Axis,
    Bar,
    Dot,
    Look,
    Point,
    Series,
    bar_chart,
    calibration_chart,
    line_chart,
)
from memedit.evaluation.report.numbers import before_text, described, value_text, whole_number

__all__ = [
    "KindPlots",
    "Plot",
    "PlotGroup",
    "calibration_plots",
    "curve_plots",
    "divergence_plots",
    "kind_plots",
    "looks_of",
    "retention_plots",
    "risk_plots",
]

Looks = Mapping[str, Look]
"""How each method is drawn."""

_CURVES: tuple[Measure, ...] = ("reliability", "generalization", "locality")
_BY_KIND: tuple[Measure, ...] = ("generalization", "portability", "robustness", "conflict", "locality")
_SHARES = ((0.0, "0%"), (0.25, "25%"), (0.5, "50%"), (0.75, "75%"), (1.0, "100%"))


@dataclass(frozen=True, slots=True)
class Plot:
    """One chart.

    Attributes:
        title: What it shows.
        svg: The chart, as an SVG element.
    """

    title: str
    svg: str


@dataclass(frozen=True, slots=True)
class PlotGroup:
    """Charts that are looked at together.

    Attributes:
        title: What they show.
        note: What a reader must know; may be empty.
        plots: The charts.
        key: Methods that a key must name, where the charts do not name them themselves.
    """

    title: str
    note: str
    plots: tuple[Plot, ...]
    key: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KindPlots:
    """What is shown kind by kind of figures that may be compared.

    Attributes:
        title: What they have in common.
        measures: A group of plots for each measure.
    """

    title: str
    measures: tuple[PlotGroup, ...]


def looks_of(report: EvalReport) -> dict[str, Look]:
    """Gives each method a look that holds for the whole page; what changes nothing is grey."""
    found = {summary.cell.method for summary in report.cells}
    found.update(one.method for part in (report.figures, report.risk, report.calibration) for one in part)
    looks: dict[str, Look] = {}
    place = 0
    for method in sorted({*found, *report.methods}, key=method_rank(report)):
        if report.methods.get(method, {}).get("changes") == "nothing":
            looks[method] = Look(-1)
        else:
            looks[method] = Look(place)
            place += 1
    return looks


def curve_plots(report: EvalReport, dataset: str, looks: Looks) -> list[PlotGroup]:
    """Reliability, generalization and locality over the number of edits, each comparability group by itself."""
    groups = []
    for title, comparability, found in _groups(report, dataset):
        plots = []
        drawn: list[Figure] = []
        for measure in _CURVES:
            reading = headline_reading(comparability, measure)
            figures = [one for one in found if (one.measure, one.kind, one.reading) == (measure, None, reading)]
            if figures:
                plots.append(Plot(measure.capitalize(), _over_edits(report, figures, measure, looks)))
                drawn.extend(figures)
        if plots:
            groups.append(PlotGroup(title, "", tuple(plots), _key(report, drawn)))
    return groups


def divergence_plots(report: EvalReport, dataset: str, looks: Looks) -> list[PlotGroup]:
    """How far next-token distributions moved where no edit applies, over the number of edits."""
    groups = []
    for title, _, found in _groups(report, dataset):
        figures = [one for one in found if (one.measure, one.kind, one.reading) == ("locality", None, "kl")]
        if figures:
            top = max(max(figure.value, figure.high or 0.0) for figure in figures)
            svg = _over_edits(report, figures, "KL divergence", looks, ticks=_ticks(top))
            groups.append(PlotGroup(title, "", (Plot("KL divergence, nats", svg),), _key(report, figures)))
    return groups


def kind_plots(report: EvalReport, dataset: str, looks: Looks) -> list[KindPlots]:
    """Each measure kind by kind, as bars, at the largest number of edits."""
    groups = []
    for title, comparability, found in _groups(report, dataset):
        measures = []
        for measure in _BY_KIND:
            reading = headline_reading(comparability, measure)
            by_kind = [one for one in found if one.kind and (one.measure, one.reading) == (measure, reading)]
            if by_kind:
                measures.append(_by_kind(report, measure, by_kind, looks))
        if measures:
            groups.append(KindPlots(title, tuple(measures)))
    return groups


def retention_plots(report: EvalReport, dataset: str, looks: Looks) -> list[PlotGroup]:
    """Reliability by how many edits came afterwards, where edits were made one by one."""
    groups = []
    for comparability in groups_of(report, dataset):
        figures = report.find(dataset=dataset, comparability=comparability, measure="retention")
        plots = []
        for edits in sorted({figure.edits for figure in figures}):
            shown = sorted((one for one in figures if one.edits == edits and one.kind), key=figure_rank)
            kinds = list(dict.fromkeys(one.kind or "" for one in shown))
            if len(kinds) > 1:
                plots.append(Plot(edits_phrase(edits), _retained(report, shown, kinds, looks)))
        if plots:
            groups.append(PlotGroup(comparability, "", tuple(plots), _key(report, figures)))
    return groups


def risk_plots(report: EvalReport, dataset: str, looks: Looks) -> list[PlotGroup]:
    """What the router fires for as the memory grows."""
    points = [point for point in report.risk if point.dataset == dataset]
    if not points:
        return []
    wrong = [value for point in points for value in (point.wrong, point.near_misses, point.unrelated)]
    small = _percent_ticks(max((value for value in wrong if value is not None), default=0.0))
    panels = (
        ("The right edit fired, in scope", "right", _SHARES),
        ("Another edit fired, in scope", "wrong", small),
        ("An edit fired for a near miss", "near_misses", small),
        ("An edit fired for unrelated traffic", "unrelated", small),
    )
    plots = tuple(
        Plot(title, _risk_lines(report, points, attribute, title, ticks, looks))
        for title, attribute, ticks in panels
        if any(getattr(point, attribute) is not None for point in points)
    )
    return [PlotGroup("", "", plots, _key(report, points))]


def calibration_plots(report: EvalReport, dataset: str, looks: Looks) -> list[PlotGroup]:
    """A reliability diagram for each method with a router, at its largest number of edits."""
    bins = [one for one in report.calibration if one.dataset == dataset]
    plots = []
    for method in sorted({one.method for one in bins}, key=method_rank(report)):
        edits = max(one.edits for one in bins if one.method == method)
        shown = [one for one in bins if one.method == method and one.edits == edits]
        title = f"{method}, {edits_phrase(edits)}"
        plots.append(Plot(title, calibration_chart(_dots(shown), title=title, look=looks[method])))
    return [PlotGroup("", "", tuple(plots))] if plots else []


def _by_kind(report: EvalReport, measure: Measure, figures: Sequence[Figure], looks: Looks) -> PlotGroup:
    edits = max(figure.edits for figure in figures)
    shown = sorted((figure for figure in figures if figure.edits == edits), key=figure_rank)
    plots = [
        Plot(kind.replace("_", " "), _bars(report, [one for one in shown if one.kind == kind], looks))
        for kind in dict.fromkeys(figure.kind or "" for figure in shown)
    ]
    missing = sorted({one.method for one in figures} - {one.method for one in shown}, key=method_rank(report))
    note = f"After {edits_phrase(edits)}."
    if missing:
        note += f" No figures at that number: {', '.join(missing)}."
    return PlotGroup(measure.capitalize(), note, tuple(plots))


def _over_edits(
    report: EvalReport,
    figures: Sequence[Figure],
    title: str,
    looks: Looks,
    ticks: Sequence[tuple[float, str]] = _SHARES,
) -> str:
    series = []
    for method in sorted({figure.method for figure in figures}, key=method_rank(report)):
        line = sorted((one for one in figures if one.method == method), key=lambda one: one.edits)
        series.append(Series(method, looks[method], tuple(_point(one) for one in line)))
    return line_chart(
        series,
        title=f"{title} over the number of edits, one line a method",
        x=_edits_axis(figure.edits for figure in figures),
        y=Axis("", tuple(ticks)),
    )


def _point(figure: Figure) -> Point:
    hover = f"{figure.method}, {edits_phrase(figure.edits)}: {described(figure)}"
    return Point(figure.edits, figure.value, figure.low, figure.high, hover)


def _retained(report: EvalReport, figures: Sequence[Figure], kinds: Sequence[str], looks: Looks) -> str:
    series = []
    for method in sorted({figure.method for figure in figures}, key=method_rank(report)):
        points = tuple(
            Point(
                kinds.index(one.kind or ""),
                one.value,
                one.low,
                one.high,
                f"{method}, {one.kind} edits later: {described(one)}",
            )
            for one in figures
            if one.method == method
        )
        series.append(Series(method, looks[method], points))
    return line_chart(
        series,
        title="Reliability by how many edits came afterwards",
        x=Axis("edits made afterwards", tuple((float(place), kind) for place, kind in enumerate(kinds))),
        y=Axis("", _SHARES),
    )


def _bars(report: EvalReport, figures: Sequence[Figure], looks: Looks) -> str:
    rank = method_rank(report)
    bars = [
        Bar(
            name=figure.method,
            look=looks[figure.method],
            value=figure.value,
            low=figure.low,
            high=figure.high,
            before=figure.before if before_text(figure) else None,
            text=value_text(figure),
            hover=f"{figure.method}: {described(figure)}",
        )
        for figure in sorted(figures, key=lambda one: rank(one.method))
    ]
    return bar_chart(bars, title=(figures[0].kind or "").replace("_", " "))


def _risk_lines(
    report: EvalReport,
    points: Sequence[RiskPoint],
    attribute: str,
    title: str,
    ticks: Sequence[tuple[float, str]],
    looks: Looks,
) -> str:
    series = []
    for method in sorted({point.method for point in points}, key=method_rank(report)):
        line = []
        for point in sorted((one for one in points if one.method == method), key=lambda one: one.edits):
            value: float | None = getattr(point, attribute)
            if value is not None:
                hover = (
                    f"{method}, {edits_phrase(point.edits)}: {value:.1%} ({whole_number(point.count)} probes in all)"
                )
                line.append(Point(point.edits, value, hover=hover))
        if line:
            series.append(Series(method, looks[method], tuple(line)))
    x = _edits_axis(point.edits for point in points)
    return line_chart(series, title=title, x=x, y=Axis("", tuple(ticks)), width=NARROW)


def _dots(bins: Sequence[CalibrationBin]) -> list[Dot]:
    ordered = sorted(bins, key=lambda one: one.low)
    return [Dot(one.foretold, one.found, one.count, one.low, one.high) for one in ordered]


def _edits_axis(edits: Iterable[int]) -> Axis:
    return Axis(
        "edits in place", tuple((float(one), whole_number(one)) for one in sorted(set(edits))), logarithmic=True
    )


def _ticks(top: float) -> tuple[tuple[float, str], ...]:
    """Round values from 0 to just above the largest, three to six of them."""
    step = _round_step(top)
    count = max(1, math.ceil(top / step - 1e-9))
    return tuple((place * step, f"{place * step:.6g}") for place in range(count + 1))


def _percent_ticks(top: float) -> tuple[tuple[float, str], ...]:
    ticks = _ticks(max(100 * top, 1.0))
    return tuple((value / 100, f"{text}%") for value, text in ticks if value <= 100)


def _round_step(top: float) -> float:
    rough = max(top, 1e-3) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= rough - 1e-12)


def _groups(report: EvalReport, dataset: str) -> Iterable[tuple[str, str, list[Figure]]]:
    """Figures that one chart may hold: a title for them, their comparability, and the figures.

    Edits made one by one are apart from edits made together where a group has both.
    """
    for comparability in groups_of(report, dataset):
        found = report.find(dataset=dataset, comparability=comparability)
        together = [figure for figure in found if not figure.sequential]
        one_by_one = [figure for figure in found if figure.sequential]
        if together:
            yield comparability, comparability, together
        if one_by_one:
            yield f"{comparability} · edits made one by one", comparability, one_by_one


def _key(report: EvalReport, drawn: Iterable[Figure | RiskPoint]) -> tuple[str, ...]:
    """The methods that a key must name; none where there are so few that each line is labelled at its end."""
    methods = sorted({one.method for one in drawn}, key=method_rank(report))
    return tuple(methods) if len(methods) > MOST_LABELLED else ()
