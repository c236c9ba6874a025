"""The published results: the page says what the files say, and the files are what the code reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.results_page import written
from memedit.evaluation.files import read_report

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "results.md"
RUNS = sorted(path.parent for path in (ROOT / "docs" / "results").glob("*/results.json"))

COLUMNS = {
    "reliability": ("reliability", "anywhere"),
    "generalization": ("generalization", "anywhere"),
    "portability": ("portability", "anywhere"),
    "robustness": ("robustness", "anywhere"),
    "locality": ("locality", "identical"),
}
"""The columns of the page's tables, each with the measure and the reading that it shows."""


def rows():
    """Run, dataset, names of the columns and cells of every row of the page's tables."""
    run = dataset = None
    names: list[str] = []
    for line in PAGE.read_text().splitlines():
        if match := re.match(r"## (\S+)$", line):
            run = match[1]
        elif match := re.match(r"### (\S+:\S+)$", line):
            dataset = match[1]
        elif line.startswith("| method"):
            names = [cell.strip() for cell in line.strip("|").split("|")]
        elif line.startswith("|") and not line.startswith("|---") and names:
            yield run, dataset, names, [cell.strip() for cell in line.strip("|").split("|")]
        elif not line.startswith("|"):
            names = []


def shown(figure):
    if figure is None:
        return "–"
    return f"{100 * figure.value:.0f} [{100 * figure.low:.0f}–{100 * figure.high:.0f}]"


def test_the_tables_are_those_of_the_files():
    reports = {path.name: read_report(path / "results.json") for path in RUNS}
    seen = set()
    for run, dataset, names, cells in rows():
        row = dict(zip(names, cells, strict=True))
        method, edits = row["method"].strip("`"), int(row["edits"].replace(",", ""))
        for name, (measure, reading) in COLUMNS.items():
            if name in row:
                found = reports[run].find(
                    dataset=dataset,
                    method=method,
                    edits=edits,
                    protocol="free",
                    measure=measure,
                    kind=None,
                    reading=reading,
                )
                assert row[name] == shown(found[0] if found else None), (run, dataset, method, edits, name)
        seen.add((run, dataset, method, edits))
    every = {
        (run, figure.dataset, figure.method, figure.edits)
        for run, report in reports.items()
        for figure in report.find(measure="reliability", protocol="free")
    }
    assert seen == every, "every method of every run is on the page, also those that are better than ours"


@pytest.mark.parametrize("run", RUNS, ids=lambda path: path.name)
def test_a_published_run_stands_alone(run):
    page = (run / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>") or page.lower().startswith("<!doctype html>")
    for text in (page, (run / "results.json").read_text()):
        assert not re.search(r"(?:/home/|/root/|/tmp/|/work/|[A-Z]:\\\\)", text), "a path of a machine"
    report = read_report(run / "results.json")
    assert report.provenance["data_sha256"]
    assert report.provenance["versions"]["torch"]


def test_the_tables_can_be_written_anew():
    page = PAGE.read_text(encoding="utf-8")
    for path in RUNS:
        assert written(page, path.name, read_report(path / "results.json")) == page
    with pytest.raises(SystemExit, match="no heading '## none'"):
        written(page, "none", read_report(RUNS[0] / "results.json"))
