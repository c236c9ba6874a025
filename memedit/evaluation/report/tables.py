"""A report in the terminal: rich tables that also read well without colour, piped into a file.

They want 125 columns or more; where fewer are at hand they wrap, and nothing is cut off. Into a file they are best
printed with ``console.print(table, width=FILE_WIDTH, crop=False)``.

What stands in which table is decided in `arrangement` and `coverage`; this file gives it a look. It prints nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from memedit.evaluation.comparing import Comparison, Difference
from memedit.evaluation.figures import EvalReport, Figure, Measure
from memedit.evaluation.report.arrangement import FigureTable, datasets_of, headline_tables, measure_tables
from memedit.evaluation.report.coverage import coverage_of, reasons_of, skipped_of
from memedit.evaluation.report.numbers import NO_FIGURE, before_text, figure_text, value_text, whole_number

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

__all__ = ["FILE_WIDTH", "comparison", "coverage", "headline", "per_kind", "routing"]

_SPACES = "\n\N{NO-BREAK SPACE}"

FILE_WIDTH = 240
"""Columns that tables may take in a file; each takes what it needs of them."""


def headline(report: EvalReport) -> list[Table]:
    """The headline figures: one table for each dataset and comparability group.

    A cell reads ``82.5 [76.1–88.0]`` with ``was 3.1`` below: the value with its 95% interval over cases, and what the
    unedited model has.
    """
    return [_figures(table, cost_intervals=False) for table in headline_tables(report)]


def per_kind(report: EvalReport) -> list[Table]:
    """The measures that have several kinds of probes, kind by kind: one table for each group and measure."""
    return _measures(report, ("portability", "robustness", "conflict", "locality", "retention"))


def routing(report: EvalReport) -> list[Table]:
    """What the routers did: one table for each dataset and comparability group."""
    return _measures(report, ("routing",))


def coverage(report: EvalReport) -> list[Table]:
    """What was asked and what was left out, with the reasons; and what was not run, and why."""
    tables = []
    for dataset in datasets_of(report):
        rows = coverage_of(report, dataset)
        if rows:
            reasons = reasons_of(rows)
            table = _table(f"{dataset} · coverage", ["method", "protocol"])
            for title in (
                "edits",
                "seeds",
                "cases",
                "not testable",
                "failed",
                "counted",
                *(f"left out: {r}" for r in reasons),
            ):
                table.add_column(title, justify="right")
            for row in rows:
                counts = [row.seeds, row.cases, row.not_testable, row.failed, row.counted]
                counts += [row.left_out.get(reason, 0) for reason in reasons]
                cells = [row.method, row.protocol, row.edits_text, *map(whole_number, counts)]
                table.add_row(*map(_text, cells))
            tables.append(table)
        skipped = skipped_of(report, dataset)
        if skipped:
            table = _table(f"{dataset} · not run", ["method", "protocol", "edits", "why"])
            for one in skipped:
                table.add_row(*map(_text, (one.method, one.protocol, "; ".join(one.edits), one.reason)))
            tables.append(table)
    return tables


def comparison(found: Comparison) -> list[Table]:
    """Figures that two runs share, one table for each dataset and comparability group.

    The difference is second less first; a star stands where its 95% interval leaves out 0.
    """
    tables: dict[tuple[str, str], Table] = {}
    for one in found.differences:
        first, second = one.first, one.second
        key = (first.dataset, first.comparability)
        if key not in tables:
            table = _table(f"{first.dataset} · {first.comparability}", ["measure", "method"])
            for title in ("edits", "first", "second", "difference", "shared cases"):
                table.add_column(title, justify="right", overflow="fold")
            tables[key] = table
        method = first.method if first.method == second.method else f"{first.method} → {second.method}"
        what = " · ".join(one for one in (first.measure, first.kind, first.reading) if one)
        cells = [what, method, whole_number(first.edits), value_text(first), value_text(second)]
        cells += [_difference(one), NO_FIGURE if one.cases is None else whole_number(one.cases)]
        tables[key].add_row(*map(_text, cells))
    return list(tables.values())


def _difference(one: Difference) -> str:
    """``+5.0 [1.0–9.0] *``."""
    signed = f"{'+' if one.value > 0 else ''}{value_text(replace(one.first, value=one.value))}"
    if one.low is None or one.high is None:
        return signed
    ends = (value_text(replace(one.first, value=end)) for end in (one.low, one.high))
    return f"{signed} [{'–'.join(ends)}]{' *' if one.is_clear else ''}"


def _measures(report: EvalReport, measures: Sequence[Measure]) -> list[Table]:
    return [
        _figures(table)
        for dataset in datasets_of(report)
        for table in measure_tables(report, dataset, measures, headline_only=True)
    ]


def _figures(figures: FigureTable, *, cost_intervals: bool = True) -> Table:
    table = _table(figures.title, ["method"])
    table.add_column("edits", justify="right", overflow="fold")
    for column in figures.columns:
        table.add_column(_text(f"{column.title}\n{column.note}".rstrip()), justify="right", overflow="fold")
    for row in figures.rows:
        table.add_row(_text(row.method), _text(row.edits_text), *(_cell(one, cost_intervals) for one in row.figures))
    return table


def _table(title: str, names: Iterable[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=_text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def _cell(figure: Figure | None, cost_intervals: bool) -> Text:
    from rich.text import Text

    if figure is None:
        return Text(NO_FIGURE, style="dim")
    brief = figure.measure == "efficiency" and not cost_intervals
    cell = Text(value_text(figure) if brief else figure_text(figure))
    before = before_text(figure)
    if before:
        cell.append(f"\n{before}", style="dim")
    return cell


def _text(text: str) -> Text:
    """A text in which nothing acts as markup or as a control of the terminal."""
    from rich.text import Text

    shown = (sign if sign.isprintable() or sign in _SPACES else "\N{REPLACEMENT CHARACTER}" for sign in text)
    return Text("".join(shown))
