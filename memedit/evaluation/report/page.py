"""A report as one HTML file that needs nothing else: no network, no other file, and readable without JavaScript.

Everything that was measured, typed or answered is escaped by the template engine; besides, the page's own content
security policy admits only its own script and style (by their SHA-256) and no connection to anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from memedit.evaluation.figures import EvalReport, Measure
from memedit.evaluation.measures import Results
from memedit.evaluation.report import plots
from memedit.evaluation.report.arrangement import (
    FigureTable,
    datasets_of,
    headline_tables,
    measure_tables,
    measures_of,
    protocol_note,
)
from memedit.evaluation.report.charts import Look, shared_shapes, strip
from memedit.evaluation.report.coverage import CoverageRow, Skipped, coverage_of, reasons_of, skipped_of
from memedit.evaluation.report.numbers import (
    NO_FIGURE,
    amount,
    before_text,
    interval_text,
    value_text,
    whole_number,
)
from memedit.evaluation.report.plots import KindPlots, PlotGroup
from memedit.evaluation.report.records import CaseTexts, RecordChoice, records_of
from memedit.self_contained import content_policy, page_templates, template_part

__all__ = ["render_page"]

_PACKAGE = "memedit.evaluation.report"

_LONGEST_TEXT = 480
"""Characters of an answer or a prompt that are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _DatasetView:
    """What the page shows of one dataset."""

    id: str
    name: str
    headline: Sequence[FigureTable]
    curves: Sequence[PlotGroup]
    kinds: Sequence[KindPlots]
    retention: Sequence[PlotGroup]
    divergence: Sequence[PlotGroup]
    risk: Sequence[PlotGroup]
    calibration: Sequence[PlotGroup]
    routing: Sequence[FigureTable]
    efficiency: Sequence[FigureTable]
    general: Sequence[FigureTable]
    all_figures: Sequence[FigureTable]
    coverage: Sequence[CoverageRow]
    reasons: Sequence[str]
    skipped: Sequence[Skipped]
    records: RecordChoice


def render_page(report: EvalReport, results: Results, cases: CaseTexts) -> str:
    """Renders a report as one HTML page.

    Args:
        report: The run.
        results: What came of each case, by cell; for the worst and the slowest records.
        cases: The cases by dataset and id, for the texts of those records; may be empty.

    Returns:
        The page. The same input gives the same page.
    """
    environment = page_templates(_PACKAGE)
    style, script = template_part(_PACKAGE, "page.css"), template_part(_PACKAGE, "page.js")
    looks = plots.looks_of(report)
    environment.filters.update(clipped=_clipped, json_text=_json_text)
    environment.globals.update(
        amount=amount,
        before_text=before_text,
        interval_text=interval_text,
        no_figure=NO_FIGURE,
        protocol_note=protocol_note,
        value_text=value_text,
        whole_number=whole_number,
        colour_of=lambda method: looks.get(method, Look(-1)).colour,
        mark_of=lambda method: looks.get(method, Look(-1)).css,
        strip_of=lambda one: strip(one.value, one.low, one.high, one.before if before_text(one) else None),
    )
    return environment.get_template("page.html.jinja").render(
        report=report,
        datasets=[
            _dataset_view(report, results, cases, looks, name, place)
            for place, name in enumerate(datasets_of(report), start=1)
        ],
        shapes=shared_shapes(),
        facts=_facts(report),
        command=_command(report),
        provenance={name: value for name, value in report.provenance.items() if name != "command"},
        style=style,
        script=script,
        policy=content_policy(style, script),
    )


def _dataset_view(
    whole: EvalReport, results: Results, cases: CaseTexts, looks: plots.Looks, name: str, place: int
) -> _DatasetView:
    report = replace(whole, figures=tuple(figure for figure in whole.figures if figure.dataset == name))
    rows = coverage_of(report, name)
    general: tuple[Measure, ...] = ("fluency", "ability")
    apart = {"routing", "efficiency", *general}
    return _DatasetView(
        id=f"d{place}",
        name=name,
        headline=headline_tables(report),
        curves=plots.curve_plots(report, name, looks),
        kinds=plots.kind_plots(report, name, looks),
        retention=plots.retention_plots(report, name, looks),
        divergence=plots.divergence_plots(report, name, looks),
        risk=plots.risk_plots(report, name, looks),
        calibration=plots.calibration_plots(report, name, looks),
        routing=measure_tables(report, name, ["routing"]),
        efficiency=measure_tables(report, name, ["efficiency"]),
        general=measure_tables(report, name, general),
        all_figures=measure_tables(report, name, [one for one in measures_of(report, name) if one not in apart]),
        coverage=rows,
        reasons=reasons_of(rows),
        skipped=skipped_of(report, name),
        records=records_of(report, name, results, cases),
    )


def _facts(report: EvalReport) -> list[tuple[str, str]]:
    """What the head of the page says of the run."""
    facts = []
    if report.config.get("model") is not None:
        facts.append(("model", str(report.config["model"])))
    methods = len({summary.cell.method for summary in report.cells})
    asked = sum(summary.cases for summary in report.cells)
    seeds = len({summary.cell.seed for summary in report.cells})
    facts.append(("methods", whole_number(methods)))
    facts.append(("case results", whole_number(asked)))
    facts.append(("seeds", whole_number(seeds)))
    facts.append(("figures", whole_number(len(report.figures))))
    return facts


def _command(report: EvalReport) -> str | None:
    """The command line of the run, from its provenance or config, as one line."""
    given = report.provenance.get("command", report.config.get("command"))
    if isinstance(given, str) or given is None:
        return given
    import shlex

    return shlex.join(str(word) for word in given)


def _clipped(text: str | None) -> str:
    if text is None:
        return ""
    if len(text) <= _LONGEST_TEXT:
        return text
    return f"{text[:_LONGEST_TEXT].rstrip()} … ({whole_number(len(text) - _LONGEST_TEXT)} more characters)"


def _json_text(value: Any) -> str:
    return json.dumps(_plain(value), ensure_ascii=False, indent=2, default=str)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value
