"""The published results: the pages say what the files say, and the files are what the code reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.results_page import written
from memedit.evaluation.files import read_report

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "docs" / "results.md", ROOT / "docs" / "results-parameter-editors.md")
RUNS = sorted(path.parent for path in (ROOT / "docs" / "results").glob("*/results.json"))

COLUMNS = {
    "reliability": ("free", "reliability", None, "anywhere"),
    "generalization": ("free", "generalization", None, "anywhere"),
    "portability": ("free", "portability", None, "anywhere"),
    "robustness": ("free", "robustness", None, "anywhere"),
    "locality": ("free", "locality", None, "identical"),
    "forced edit": ("teacher-forced", "reliability", None, "token accuracy"),
    "forced paraphrase": ("teacher-forced", "generalization", None, "token accuracy"),
    "forced neighbour": ("teacher-forced", "locality", None, "token agreement"),
    "ME-PPL": ("free", "ability", "ME-PPL", None),
    "MMLU": ("free", "ability", "MMLU", None),
}
"""The columns of the pages' tables, each with the protocol, the measure, the kind and the reading that it shows."""


def rows():
    """Run, dataset, names of the columns and cells of every row of the pages' tables."""
    for page in PAGES:
        run = dataset = None
        names: list[str] = []
        for line in page.read_text().splitlines():
            if match := re.match(r"## (\S+)$", line):
                run = match[1]
            elif match := re.match(r"### (\S+:\S+)$", line):
                dataset = match[1]
            elif line.startswith("| method"):
                names = [cell.strip() for cell in line.strip("|").split("|")]
            elif line.startswith("|") and not line.startswith("|---") and names and "edits" in names:
                yield run, dataset, names, [cell.strip() for cell in line.strip("|").split("|")]
            elif not line.startswith("|"):
                names = []


def shown(figure):
    if figure is None:
        return "–"
    if figure.unit == "perplexity":
        return f"{figure.value:,.0f}" if figure.value < 1e6 else f"{figure.value:.0e}"
    if figure.low is None:
        return f"{100 * figure.value:.0f}"
    return f"{100 * figure.value:.0f} [{100 * figure.low:.0f}–{100 * figure.high:.0f}]"


def test_the_tables_are_those_of_the_files():
    reports = {path.name: read_report(path / "results.json") for path in RUNS}
    seen = set()
    for run, dataset, names, cells in rows():
        row = dict(zip(names, cells, strict=True))
        method, edits = row["method"].strip("`"), int(row["edits"].replace(",", ""))
        for name, (protocol, measure, kind, reading) in COLUMNS.items():
            if name in row:
                found = reports[run].find(
                    dataset=dataset,
                    method=method,
                    edits=edits,
                    protocol=protocol,
                    measure=measure,
                    kind=kind,
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


@pytest.mark.parametrize(("page", "count"), [(PAGES[0], 3), (PAGES[1], 3)], ids=["results", "parameter editors"])
def test_the_tables_can_be_written_anew(page, count):
    text = page.read_text(encoding="utf-8")
    runs = [path for path in RUNS if f"\n## {path.name}\n" in text]
    assert len(runs) == count
    for path in runs:
        report = read_report(path / "results.json")
        assert written(text, path.name, report, page.name) == text
        spoilt = re.sub(r"(?m)^\| `base` .*\n", "", text)
        assert spoilt != text
        others = [one for one in runs if one != path]
        mended = written(spoilt, path.name, report, page.name)
        for other in others:
            mended = written(mended, other.name, read_report(other / "results.json"), page.name)
        assert mended == text
    with pytest.raises(SystemExit, match="no heading '## none'"):
        written(text, "none", read_report(RUNS[0] / "results.json"), page.name)
    with pytest.raises(SystemExit, match="no table under '## empty'"):
        written(f"{text}\n## empty\n", "empty", read_report(RUNS[0] / "results.json"), page.name)
