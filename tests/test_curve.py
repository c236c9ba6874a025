"""The figure of sequential edits: what is drawn is what the published run says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from memedit.evaluation.files import read_report

ROOT = Path(__file__).parent.parent


@pytest.fixture
def drawing():
    spec = importlib.util.spec_from_file_location("curve", ROOT / "benchmarks" / "curve.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_figure_shows_the_numbers_of_the_run(drawing):
    report = read_report(ROOT / "docs" / "results" / "sequential-edits" / "results.json")
    axes = drawing.curve(report).axes
    drawn = {
        (place, line.get_label()): {int(x): y for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)}
        for place, axis in enumerate(axes)
        for line in axis.get_lines()
        if not line.get_label().startswith("_")
    }
    panels = [
        ("reliability", None, "anywhere", 100),
        ("locality", None, "identical", 100),
        ("ability", "ME-PPL", None, 1),
    ]
    expected: dict[tuple[int, str], dict[int, object]] = {}
    for figure in report.figures:
        for place, (measure, kind, reading, factor) in enumerate(panels):
            if (figure.measure, figure.kind, figure.reading) == (measure, kind, reading) and figure.edits:
                expected.setdefault((place, figure.method), {})[figure.edits] = pytest.approx(factor * figure.value)
    assert expected
    assert drawn == expected
