"""The files of a run: what is written comes back, a crash costs at most a line, damage is named."""

from __future__ import annotations

import csv
import json
import math
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memedit.errors import DataFileError
from memedit.evaluation import Match
from memedit.evaluation.figures import CalibrationBin, CellSummary, EvalReport, Figure, RiskPoint
from memedit.evaluation.files import (
    append_result,
    read_report,
    read_results,
    write_atomically,
    write_figures,
    write_report,
)
from memedit.evaluation.results import (
    CaseResult,
    Cell,
    EditingCost,
    ForcedScore,
    Likelihoods,
    ProbeResult,
    Routed,
)

ROOT = Path(__file__).parent.parent

FIGURE = Figure(
    dataset="made:dev",
    method="ike",
    protocol="free",
    comparability="free · told the edit",
    edits=1_000,
    sequential=True,
    measure="portability",
    kind="one_hop",
    reading="anywhere",
    value=0.1 + 0.2,
    unit="share",
    low=0.25,
    high=0.5,
    before=1 / 3,
    by_seed={0: 0.3, 11: 1e-300},
    cases=7,
    count=9,
)
PLAIN = replace(FIGURE, kind=None, reading=None, low=None, high=None, before=None, by_seed={}, measure="efficiency")

REPORT = EvalReport(
    config={"methods": ["ike"], "limit": None, "name": "naïve «中文»", "share": 0.1},
    provenance={"versions": {"torch": "2.13.0"}, "seconds": 1.5},
    methods={"ike": {"name": "ike", "oracle": False}},
    figures=(FIGURE, PLAIN),
    cells=(
        CellSummary(
            cell=Cell(dataset="made:dev", method="ike", protocol="no-router", edits=10, seed=3, sequential=True),
            cases=10,
            not_testable=2,
            failed=1,
            left_out={"condition not met": 4},
            skipped=None,
        ),
    ),
    calibration=(
        CalibrationBin(
            dataset="made:dev", method="ike", edits=10, low=0.1, high=0.2, foretold=0.15, found=0.3, count=4
        ),
    ),
    risk=(
        RiskPoint(
            dataset="made:dev", method="ike", edits=10, right=0.9, wrong=0.1, near_misses=None, unrelated=0.0, count=5
        ),
    ),
)


def full_result(name: str = "case 1") -> CaseResult:
    probe = ProbeResult(
        place=0,
        kind="after_turns",
        base_kind="edit",
        in_scope=True,
        answer="Paris\n\u2028«é»",
        before="",
        match=Match(True, True, False, "Paris"),
        match_before=Match(),
        old_said=False,
        old_said_before=True,
        cut=True,
        left_out="condition not met",
        group="1",
        group_rule="any",
        routed=Routed(fired=False, right=None, probability=0.1 + 0.2, threshold=0.5),
        kl=1e-17,
        forced=ForcedScore(accuracy=1 / 3, before=0.0, unchanged=1.0, likeliest=(3, 5)),
        likelihoods=Likelihoods(new=-0.1, old=-20.0, new_before=-3.0, old_before=-0.2),
        verdict=False,
        overlap=0.5,
        overlap_before=0.0,
        seconds=0.25,
    )
    fired = replace(probe, routed=Routed(fired=True, right=True, probability=1.0, threshold=0.5, rank=1, edit="x"))
    return CaseResult(
        case=name,
        position=3,
        made=10,
        testable=True,
        probes=(probe, fired),
        cost=EditingCost(edits=10, seconds=0.5, stored_bytes=0, peak_bytes=12),
        topic="places",
        fluency=5.5,
        fluency_before=5.25,
    )


def failed_result(name: str = "case 2") -> CaseResult:
    return CaseResult(case=name, position=0, made=1, testable=True, probes=(), error="RuntimeError: no\nmore")


# -- results.json --------------------------------------------------------------------------------------------------


def test_a_report_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "run" / "results.json"
    write_report(path, REPORT)
    assert read_report(path) == REPORT
    whole = json.loads(path.read_text(encoding="utf-8"))
    assert whole["format"] == 1
    assert whole["figures"][0]["value"] == 0.1 + 0.2
    assert "naïve «中文»" in path.read_text(encoding="utf-8")


finite = st.floats(allow_nan=False)


@given(st.lists(st.tuples(finite, st.none() | finite, st.dictionaries(st.integers(0, 99), finite)), max_size=5))
def test_any_number_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, numbers: list[Any]) -> None:
    path = tmp_path_factory.mktemp("numbers") / "results.json"
    figures = tuple(replace(FIGURE, value=value, before=before, by_seed=seeds) for value, before, seeds in numbers)
    report = replace(REPORT, figures=figures)
    write_report(path, report)
    assert read_report(path) == report
    # what other programs call JSON too
    json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)


def test_a_number_that_is_none_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_report(path, replace(REPORT, figures=(replace(FIGURE, value=math.nan),)))
    assert math.isnan(read_report(path).figures[0].value)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"format": 2}, r"format 2; this version of memedit reads format 1"),
        ({"format": None}, r"format None"),
        ({"figures": [{}]}, r"no field 'value'"),
        ({"figures": [{**json.loads("{}"), "value": 1, "low": 1, "high": 1, "before": 1, "by_seed": {}}]}, "dataset"),
        ({"risk": [{"colour": 1}]}, "colour"),
        ({"cells": [{"cell": {"dataset": "a", "method": "b", "protocol": "c", "edits": 1}}]}, "protocol is one of"),
        ({"figures": 5}, "not a report"),
    ],
)
def test_a_report_of_another_format_or_damaged(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    path = tmp_path / "results.json"
    write_report(path, REPORT)
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changed}))
    with pytest.raises(DataFileError, match=said) as caught:
        read_report(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"), [("", "not valid JSON"), ("[]", "no JSON object"), ('{"format": 1}', "no field 'config'")]
)
def test_what_is_no_report(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(DataFileError, match=said):
        read_report(path)


def test_a_report_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=r"results\.json: cannot be read: No such file"):
        read_report(tmp_path / "results.json")


@pytest.mark.parametrize("value", [Path("x"), math.nan])
def test_what_json_has_not_is_refused_and_the_old_file_stays(tmp_path: Path, value: object) -> None:
    path = tmp_path / "results.json"
    write_report(path, REPORT)
    with pytest.raises(DataFileError, match="cannot be written as JSON"):
        write_report(path, replace(REPORT, config={"out": value}))
    assert read_report(path) == REPORT


# -- results.csv ---------------------------------------------------------------------------------------------------


def test_figures_as_csv(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    write_figures(path, REPORT)
    assert path.read_text(encoding="utf-8").splitlines()[0] == (
        "dataset,method,protocol,comparability,edits,sequential,measure,kind,reading,value,unit,low,high,before,delta,"
        "by_seed,cases,count"
    )
    with path.open(encoding="utf-8", newline="") as stream:
        first, second = csv.DictReader(stream)
    assert float(first["value"]) == FIGURE.value
    assert float(first["delta"]) == FIGURE.delta
    assert (first["comparability"], first["edits"], first["sequential"]) == ("free · told the edit", "1000", "True")
    assert json.loads(first["by_seed"]) == {"0": 0.3, "11": 1e-300}
    assert [second[name] for name in ("kind", "reading", "low", "before", "delta", "by_seed")] == [*[""] * 5, "{}"]


# -- whole or not at all -------------------------------------------------------------------------------------------


def test_a_writer_that_is_killed_leaves_the_old_file(tmp_path: Path) -> None:
    """The process dies between writing and renaming; what stands under the name is whole."""
    path = tmp_path / "results.json"
    write_atomically(path, "old")
    program = (
        "import os, sys; from pathlib import Path; from memedit.evaluation.files import write_atomically\n"
        "Path.replace = lambda *_: os._exit(9)\n"
        "write_atomically(Path(sys.argv[1]), 'new' * 100_000)"
    )
    ran = subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, timeout=60, check=False)
    assert ran.returncode == 9
    assert path.read_text() == "old"
    write_atomically(path, "newer")
    assert path.read_text() == "newer"


def test_a_file_is_readable_as_others_are_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path, other = tmp_path / "results.json", tmp_path / "other"
    write_atomically(path, "ä\r\n")
    other.touch()
    assert path.read_bytes() == "ä\r\n".encode()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)
    assert {one.name for one in tmp_path.iterdir()} == {"results.json", "other"}


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "results.json").mkdir()
    with pytest.raises(DataFileError, match=r"results\.json: cannot be written: Is a directory"):
        write_report(tmp_path / "results.json", REPORT)
    assert [one.name for one in tmp_path.iterdir()] == ["results.json"]
    with pytest.raises(DataFileError, match=r"results\.json: cannot be written"):
        append_result(tmp_path / "results.json", full_result())


# -- case results --------------------------------------------------------------------------------------------------


def test_results_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "cells" / "made.jsonl"
    assert read_results(path) == []
    written = [full_result("b"), failed_result("a"), full_result("c")]
    for result in written:
        append_result(path, result)
    assert read_results(path) == written
    assert len(path.read_bytes().splitlines()) == 3


def test_a_case_that_was_tried_again_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "made.jsonl"
    for result in (failed_result("a"), full_result("b"), full_result("a")):
        append_result(path, result)
    assert read_results(path) == [full_result("a"), full_result("b")]


@pytest.mark.parametrize("earlier", [0, 1, 200])
def test_a_crash_at_any_byte_costs_at_most_the_line_it_cut(tmp_path: Path, earlier: int) -> None:
    path = tmp_path / "made.jsonl"
    written = [full_result(str(number)) for number in range(earlier)]
    for result in written:
        append_result(path, result)
    before = path.read_bytes() if earlier else b""
    append_result(path, full_result("last"))
    whole = path.read_bytes()
    cuts = range(len(before), len(whole), 17 if earlier == 1 else 331)
    for end in (*cuts, len(whole) - 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        is_whole = end == len(whole) - 1  # all but the sign that ends the line
        kept = [*written, full_result("last")] if is_whole else written
        assert read_results(path) == kept
        append_result(path, full_result("next"))
        assert read_results(path) == [*kept, full_result("next")]
        assert path.read_bytes().endswith(b"\n")


def test_nothing_stays_of_a_line_that_was_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "made.jsonl"
    path.write_text('{"case": "' + "x" * 200_000)
    append_result(path, failed_result())
    assert read_results(path) == [failed_result()]
    assert path.stat().st_size < 1_000


def test_a_result_is_on_disk_when_the_process_dies(tmp_path: Path) -> None:
    path = tmp_path / "made.jsonl"
    program = (
        "import os, sys; from pathlib import Path; from memedit.evaluation.files import append_result\n"
        "from memedit.evaluation.results import CaseResult\n"
        "append_result(Path(sys.argv[1]), CaseResult(case='a', position=0, made=1, testable=True, probes=()))\n"
        "os.kill(os.getpid(), 9)"
    )
    ran = subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, timeout=60, check=False)
    assert ran.returncode == -9
    assert [result.case for result in read_results(path)] == ["a"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"case": "a"', "is not a case result"),
        (b'{"case": "a", "position": 0, "made": 1, "testable": true}', "no field 'probes'"),
        (b'{"case": "a", "position": 0, "made": 1, "probes": []}', "testable"),
        (b'{"case": "a", "position": 0, "made": 1, "testable": true, "probes": [], "colour": 1}', "colour"),
        (b"[1]", "is not a case result"),
        (b"\xff\xfe", "is not a case result"),
        (b"\0\0\0", "is not a case result"),
    ],
)
def test_damage_before_the_last_line_is_named(tmp_path: Path, line: bytes, said: str) -> None:
    path = tmp_path / "made.jsonl"
    append_result(path, full_result("a"))
    with path.open("ab") as stream:
        stream.write(line + b"\n")
    append_result(path, full_result("b"))
    with pytest.raises(DataFileError, match=said) as caught:
        read_results(path)
    assert f"{path}:2:" in str(caught.value)


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="cannot be read"):
        read_results(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="needs file modes")
def test_a_file_of_results_has_the_usual_mode(tmp_path: Path) -> None:
    append_result(tmp_path / "made.jsonl", full_result())
    (tmp_path / "other").touch()
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("made.jsonl", "other")}
    assert len(modes) == 1
