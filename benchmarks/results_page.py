"""Writes the tables of the pages of results anew from the runs that are kept beside them.

    python -m benchmarks.results_page [--docs docs]

A run is a folder of ``docs/results`` with ``results.json``. Under its heading of a page, ``## <folder>``, one table a
dataset takes the place of the tables that stand there; the text around them is left alone, and so are runs that have no
such heading. Methods that are told the edit have a table of their own.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from memedit.evaluation.figures import EvalReport, Figure
from memedit.evaluation.files import read_report

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Column:
    """What a column shows.

    Attributes:
        measure: The measure.
        reading: The reading; None for measures that have none.
        kind: The kind; None for all together.
        protocol: The protocol.
    """

    measure: str
    reading: str | None = None
    kind: str | None = None
    protocol: str = "free"


FREE = {
    "reliability": Column("reliability", "anywhere"),
    "generalization": Column("generalization", "anywhere"),
    "portability": Column("portability", "anywhere"),
    "robustness": Column("robustness", "anywhere"),
    "locality": Column("locality", "identical"),
}
FORCED = {
    "forced edit": Column("reliability", "token accuracy", protocol="teacher-forced"),
    "forced paraphrase": Column("generalization", "token accuracy", protocol="teacher-forced"),
    "forced neighbour": Column("locality", "token agreement", protocol="teacher-forced"),
}
ABILITY = {"ME-PPL": Column("ability", kind="ME-PPL"), "MMLU": Column("ability", kind="MMLU")}

PAGES: Mapping[str, tuple[Mapping[str, Column], str, Column]] = {
    "results.md": (FREE, "time", Column("efficiency", kind="answer seconds, ratio to base")),
    "results-parameter-editors.md": (
        FREE | FORCED | ABILITY,
        "seconds",
        Column("efficiency", kind="seconds an edit"),
    ),
}
"""For each page its columns (those that a run has nothing for are left out) and the last one, of plain numbers."""


def tables(report: EvalReport, page: str) -> Iterator[str]:
    """The lines of a run's tables, by dataset.

    Args:
        report: The run.
        page: The name of the page, which says what the columns are.
    """
    every = [figure for figure in report.figures if figure.protocol == "free" and figure.measure == "reliability"]
    for dataset in sorted({figure.dataset for figure in every}):
        of_dataset = [figure for figure in every if figure.dataset == dataset]
        yield from (f"### {dataset}", "")
        for title, groups in (("", {"free"}), ("Told the edit:", {one.comparability for one in every} - {"free"})):
            keys = dict.fromkeys((one.method, one.edits) for one in of_dataset if one.comparability in groups)
            if keys:
                yield from ((title, "") if title else ())
                yield from _table(report, dataset, list(keys), page)
                yield ""


def _table(report: EvalReport, dataset: str, keys: list[tuple[str, int]], page: str) -> Iterator[str]:
    columns, last, plain = PAGES[page]
    cells = {(key, name): _found(report, dataset, key, column) for key in keys for name, column in columns.items()}
    names = [name for name in columns if any(cells[key, name] for key in keys)]
    yield f"| method | edits | {' | '.join(names)} | {last} |"
    yield f"|---|{'---:|' * (len(names) + 2)}"
    for key in keys:
        shown = [_told(cells[key, name]) for name in names]
        yield f"| `{key[0]}` | {key[1]:,} | {' | '.join(shown)} | {_plain(report, dataset, key, plain)} |"


def _found(report: EvalReport, dataset: str, key: tuple[str, int], column: Column) -> Figure | None:
    found = report.find(
        dataset=dataset,
        method=key[0],
        edits=key[1],
        protocol=column.protocol,
        measure=column.measure,
        kind=column.kind,
        reading=column.reading,
    )
    return found[0] if found else None


def _told(figure: Figure | None) -> str:
    """Percent, with an interval where there is one; a perplexity as it is."""
    if figure is None or figure.value is None:
        return "–"
    if figure.unit == "perplexity":
        return f"{figure.value:,.0f}" if figure.value < 1e6 else f"{figure.value:.0e}"
    share = f"{100 * figure.value:.0f}"
    if figure.low is None or figure.high is None:
        return share
    return f"{share} [{100 * figure.low:.0f}–{100 * figure.high:.0f}]"


def _plain(report: EvalReport, dataset: str, key: tuple[str, int], column: Column) -> str:
    """A number of the last column; the unedited model is edited in no time, and is its own measure."""
    ratio = column.kind == "answer seconds, ratio to base"
    if key[0] == "base":
        return "1.00" if ratio else "–"
    figure = _found(report, dataset, key, column)
    if figure is None or figure.value is None:
        return "–"
    return f"{figure.value:.2f}" if ratio else f"{figure.value:.1f}"


def written(text: str, run: str, report: EvalReport, page: str) -> str:
    """The text of a page with a run's tables in the place of those that stand under its heading.

    Args:
        text: The text.
        run: The heading.
        report: The run.
        page: The page's name.

    Raises:
        SystemExit: The page has no such heading, or no table stands under it.
    """
    section = re.search(rf"(?ms)^## {re.escape(run)}\n.*?(?=^## |\Z)", text)
    if section is None:
        raise SystemExit(f"{page} has no heading '## {run}'; write one where the run's tables are to stand")
    # from the first dataset's heading to the last line of a table
    old = re.search(r"(?ms)^### .*^\|[^\n]*\n", section[0])
    if old is None:
        raise SystemExit(
            f"{page} has no table under '## {run}'; write '### dataset' and a line '|' where they are to stand"
        )
    lines = "\n".join(tables(report, page)).rstrip("\n")
    begin = section.start()
    return f"{text[: begin + old.start()]}{lines}\n{text[begin + old.end() :]}"


def main() -> None:
    """Rewrites the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="the folder of the pages")
    folder: Path = parser.parse_args().docs
    for page in PAGES:
        text = (folder / page).read_text(encoding="utf-8")
        for path in sorted(folder.glob("results/*/results.json")):
            if f"\n## {path.parent.name}\n" in text:
                text = written(text, path.parent.name, read_report(path), page)
        (folder / page).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
