"""Writes the tables of docs/results.md anew from the runs that are kept beside it.

    python -m benchmarks.results_page [--page docs/results.md] [--runs docs/results]

A run is a folder with ``results.json``. Under its heading of the page, ``## <folder>``, one table a dataset takes the
place of what stood there up to the next heading of that level; what is written elsewhere on the page is left alone, and
so are runs that have no such heading.
Methods that are told the edit have a table of their own.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from memedit.evaluation.figures import EvalReport, Figure
from memedit.evaluation.files import read_report

ROOT = Path(__file__).parent.parent
COLUMNS = {
    "reliability": ("reliability", "anywhere"),
    "generalization": ("generalization", "anywhere"),
    "portability": ("portability", "anywhere"),
    "robustness": ("robustness", "anywhere"),
    "locality": ("locality", "identical"),
}
"""Each column with the measure and the reading that it shows."""

TIME = ("efficiency", "answer seconds, ratio to base")


def tables(report: EvalReport) -> Iterator[str]:
    """The lines of a run's tables, by dataset."""
    every = [figure for figure in report.figures if figure.protocol == "free" and figure.measure == "reliability"]
    for dataset in sorted({figure.dataset for figure in every}):
        of_dataset = [figure for figure in every if figure.dataset == dataset]
        yield from (f"### {dataset}", "")
        for title, groups in (("", {"free"}), ("Told the edit:", {one.comparability for one in every} - {"free"})):
            keys = dict.fromkeys((one.method, one.edits) for one in of_dataset if one.comparability in groups)
            if keys:
                yield from ((title, "") if title else ())
                yield from _table(report, dataset, list(keys))
                yield ""


def _table(report: EvalReport, dataset: str, keys: list[tuple[str, int]]) -> Iterator[str]:
    cells = {
        (key, column): _found(report, dataset, key, measure, reading)
        for key in keys
        for column, (measure, reading) in COLUMNS.items()
    }
    columns = [column for column in COLUMNS if any(cells[key, column] for key in keys)]
    yield f"| method | edits | {' | '.join(columns)} | time |"
    yield f"|---|{'---:|' * (len(columns) + 2)}"
    for key in keys:
        time = _found(report, dataset, key, *TIME)
        shown = [_percent(cells[key, column]) for column in columns]
        ratio = "1.00" if key[0] == "base" else "–" if time is None or time.value is None else f"{time.value:.2f}"
        yield f"| `{key[0]}` | {key[1]:,} | {' | '.join(shown)} | {ratio} |"


def _found(report: EvalReport, dataset: str, key: tuple[str, int], measure: str, name: str) -> Figure | None:
    method, edits = key
    wanted = {"dataset": dataset, "method": method, "edits": edits, "protocol": "free", "measure": measure}
    # efficiency's figures are told apart by kind, the others' readings are of all kinds together
    found = report.find(**wanted, **({"kind": name} if measure == "efficiency" else {"kind": None, "reading": name}))
    return found[0] if found else None


def _percent(figure: Figure | None) -> str:
    if figure is None or figure.value is None or figure.low is None or figure.high is None:
        return "–"
    return f"{100 * figure.value:.0f} [{100 * figure.low:.0f}–{100 * figure.high:.0f}]"


def written(page: str, run: str, report: EvalReport) -> str:
    """The page with a run's tables in the place of those that stand under its heading.

    Args:
        page: Its text.
        run: The heading.
        report: The run.

    Raises:
        SystemExit: The page has no such heading.
    """
    section = re.compile(rf"(?ms)^## {re.escape(run)}\n.*?(?=^## |\Z)")
    if not section.search(page):
        raise SystemExit(f"the page has no heading '## {run}'; write one where the run's tables are to stand")
    lines = "\n".join((f"## {run}", "", *tables(report)))
    return section.sub(lambda _: f"{lines}\n", page)


def main() -> None:
    """Rewrites the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "results.md")
    parser.add_argument("--runs", type=Path, default=ROOT / "docs" / "results")
    arguments = parser.parse_args()
    page = arguments.page.read_text(encoding="utf-8")
    for path in sorted(arguments.runs.glob("*/results.json")):
        if f"\n## {path.parent.name}\n" in page:
            page = written(page, path.parent.name, read_report(path))
    arguments.page.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
