"""The folder of a run: gone on with, added to, kept from what cannot stand beside it; and what is noted of a run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hashing_encoder import HashingEncoder
from spawned import run_in_a_process_without_threads
from tiny import tiny_model, tiny_tokenizer

import memedit
from memedit.editors.registry import method_info
from memedit.editors.subject import Subject
from memedit.errors import ConfigError, DataFileError
from memedit.evaluation import Dataset, EvalCase
from memedit.evaluation.ability import Ability, ChoiceScore
from memedit.evaluation.datasets.probes import probe
from memedit.evaluation.figures import CellSummary, EvalReport
from memedit.evaluation.peak_memory import PeakMemory
from memedit.evaluation.provenance import machine, versions
from memedit.evaluation.results import CaseResult, Cell
from memedit.evaluation.runfolder import RunFolder
from memedit.evaluation.runner import evaluate, republish
from memedit.evaluation.settings import RunSettings
from memory_store import Edit

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = RunSettings(model="tiny", methods=("ike",), data=("counterfact:dev",), edits=(10,))
CELL = Cell(dataset="counterfact:dev", method="ike", protocol="free", edits=10)
FACTS: dict[str, Any] = {
    "model": "aa",
    "encoder": "bb",
    "data": {"counterfact/dev.jsonl": "11"},
    "bad_records": {"counterfact:dev": 2},
    "methods": {"base": {"oracle": False}, "ike": {"oracle": False}},
}


def result(case: str, **fields: Any) -> CaseResult:
    return CaseResult(case=case, position=0, made=10, testable=True, probes=(), **fields)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "one")


@pytest.fixture
def begun(folder: RunFolder) -> RunFolder:
    folder.begin(SETTINGS, FACTS)
    return folder


def held(folder: RunFolder) -> dict[str, Any]:
    """What ``run.json`` holds, read by plain ``json``."""
    run: dict[str, Any] = json.loads((folder.path / "run.json").read_text(encoding="utf-8"))
    return run


# -- going on ----------------------------------------------------------------------------------------------------------


def test_a_new_folder_holds_nothing(folder: RunFolder) -> None:
    assert folder.read() is None
    assert folder.results(CELL) == {}
    assert folder.ability(CELL) is None
    assert folder.cells({}) == []


def test_what_was_begun_is_there_when_it_is_opened_again(begun: RunFolder) -> None:
    begun.append(CELL, result("a"))
    again = RunFolder(begun.path)
    assert again.begin(SETTINGS, FACTS) == again.read() == held(begun)
    assert again.results(CELL) == {"a": result("a")}
    again.append(CELL, result("b"))
    assert list(begun.results(CELL)) == ["a", "b"]


def test_of_a_case_that_was_asked_again_the_last_result_counts(begun: RunFolder) -> None:
    for one in (result("a", error="ValueError: x"), result("b"), result("a"), result("b", error="KeyError: y")):
        begun.append(CELL, one)
    assert begun.results(CELL) == {"a": result("a"), "b": result("b", error="KeyError: y")}


def test_a_line_that_was_cut_short_costs_that_case_alone(begun: RunFolder) -> None:
    begun.append(CELL, result("a"))
    begun.append(CELL, result("b"))
    (file,) = (begun.path / "cells").iterdir()
    file.write_bytes(file.read_bytes()[:-9])
    assert list(begun.results(CELL)) == ["a"]
    begun.append(CELL, result("c"))
    assert list(begun.results(CELL)) == ["a", "c"]


def test_cells_are_apart(begun: RunFolder) -> None:
    cells = [
        CELL,
        replace(CELL, seed=1),
        replace(CELL, edits=100),
        replace(CELL, sequential=True),
        replace(CELL, protocol="no-router"),
        replace(CELL, method="scr"),
        replace(CELL, dataset="counterfact:train"),
    ]
    for number, cell in enumerate(cells):
        begun.append(cell, result(str(number)))
    assert [list(begun.results(cell)) for cell in cells] == [[str(number)] for number in range(len(cells))]


def test_cells_are_known_by_their_results_and_those_left_out_by_their_reasons(begun: RunFolder) -> None:
    other, third = replace(CELL, seed=1), replace(CELL, method="scr")
    left = CellSummary(
        cell=replace(CELL, method="ft-m"), cases=0, not_testable=0, failed=0, skipped="it routes nothing"
    )
    run = begun.begin(SETTINGS, FACTS)
    begun.remember_cells(run, [CELL, other], [left])
    begun.append(CELL, result("a"))
    begun.append(third, result("a"))
    begun.remember_cells(run, [other, third], [left])
    kept = RunFolder(begun.path).read()
    assert kept is not None
    assert begun.cells(kept) == [CELL, third]
    assert begun.skipped(kept) == [left]


def test_each_go_is_noted(begun: RunFolder) -> None:
    for asked in (5, 0):
        begun.note(begun.begin(SETTINGS, FACTS), {"cases_asked": asked})
    assert held(begun)["runs"] == [{"cases_asked": 5}, {"cases_asked": 0}]


def test_general_ability_is_kept_by_cell(begun: RunFolder) -> None:
    ability = Ability(mmlu=ChoiceScore(accuracy=0.3, before=0.25, questions=4, treated=1, changed=1, seconds=2.0))
    begun.write_ability(CELL, ability)
    assert RunFolder(begun.path).ability(CELL) == ability
    assert begun.ability(replace(CELL, seed=1)) is None
    (file,) = (begun.path / "ability").iterdir()
    for damage in ("{", '{"mmlu": {}}', '{"xyzzy": {}}'):
        file.write_text(damage)
        with pytest.raises(DataFileError, match=r"cannot be read: .* Delete it, and it is measured again"):
            begun.ability(CELL)


def test_the_report_stands_in_three_files(begun: RunFolder) -> None:
    report = EvalReport(config={}, provenance={}, methods={}, figures=(), cells=(), calibration=(), risk=())
    begun.publish(report, "<html>é</html>")
    assert (begun.path / "report.html").read_text(encoding="utf-8") == "<html>é</html>"
    assert json.loads((begun.path / "results.json").read_text())["figures"] == []
    assert (begun.path / "results.csv").read_text().startswith("dataset,method,")
    begun.publish(report, "<html>later</html>")
    assert (begun.path / "report.html").read_text() == "<html>later</html>"
    assert not list(begun.path.glob("*.part"))


# -- adding ------------------------------------------------------------------------------------------------------------


def test_another_run_is_added(begun: RunFolder) -> None:
    then = replace(
        SETTINGS, methods=("scr",), data=("unke:dev",), edits=(1, 10), protocols=("no-router",), seeds=3, kl=False
    )
    facts = {
        **FACTS,
        "data": {"unke/dev.jsonl": "22"},
        "bad_records": {"unke:dev": 1},
        "methods": {"scr": {"oracle": False}},
    }
    begun.begin(then, facts)
    run = held(begun)
    both = RunSettings.from_json(run["settings"])
    assert (both.methods, both.data, both.edits) == (("ike", "scr"), ("counterfact:dev", "unke:dev"), (1, 10))
    assert (both.protocols, both.seeds, both.kl) == (("free", "no-router"), 3, True)
    assert run["facts"]["data"] == {"counterfact/dev.jsonl": "11", "unke/dev.jsonl": "22"}
    assert run["facts"]["bad_records"] == {"counterfact:dev": 2, "unke:dev": 1}
    assert set(run["facts"]["methods"]) == {"base", "ike", "scr"}
    begun.begin(SETTINGS, FACTS)
    assert held(begun) == run


@pytest.mark.parametrize("name", ["kl", "fluency", "ability", "skip_bad"])
def test_what_one_of_the_runs_needed_stays_on(name: str, folder: RunFolder) -> None:
    for value in (True, False):
        folder.begin(replace(SETTINGS, **dict[str, Any]({name: value})), FACTS)
    assert held(folder)["settings"][name] is True


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("model", "other", r"model \('tiny' there\)"),
        ("encoder", "other", r"encoder \('all-minilm-l6-v2' there\)"),
        ("limit", 5, r"limit \(None there\)"),
        ("sample_seed", 1, r"sample_seed \(0 there\)"),
        ("max_new_tokens", 8, r"max_new_tokens \(32 there\)"),
        ("traffic", "traffic:nq_dev", r"traffic \(None there\)"),
        ("distractors", "counterfact:train", r"distractors \(None there\)"),
    ],
)
def test_other_settings_cannot_stand_beside(name: str, value: Any, told: str, begun: RunFolder) -> None:
    before = held(begun)
    with pytest.raises(ConfigError, match=rf"holds a run that differs in {told}; .* Name another folder"):
        begun.begin(replace(SETTINGS, **dict[str, Any]({name: value})), FACTS)
    assert held(begun) == before


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"model": "zz"}, "the model's weights"),
        ({"encoder": "zz"}, "the encoder's weights"),
        ({"data": {"counterfact/dev.jsonl": "zz"}}, "the data file counterfact/dev.jsonl"),
        ({"model": "zz", "encoder": "zz"}, "the model's weights, the encoder's weights"),
    ],
)
def test_other_weights_and_data_cannot_stand_beside(facts: dict[str, Any], told: str, begun: RunFolder) -> None:
    before = held(begun)
    with pytest.raises(ConfigError, match=f"holds a run that differs in {told}; its results cannot stand beside these"):
        begun.begin(SETTINGS, {**FACTS, **facts})
    assert held(begun) == before


# -- damage ------------------------------------------------------------------------------------------------------------

WHOLE = {"format": 1, "settings": SETTINGS.to_json(), "facts": FACTS, "runs": []}


def without(name: str, part: str | None = None) -> dict[str, Any]:
    inside = WHOLE if part is None else WHOLE[part]
    assert isinstance(inside, dict)
    kept = {key: value for key, value in inside.items() if key != name}
    return kept if part is None else {**WHOLE, part: kept}


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("", "cannot be read"),
        ('{"format": 1,', "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[]", "holds no JSON object"),
        (json.dumps({**WHOLE, "format": 2}), "has format 2; this version reads 1"),
        (json.dumps(without("format")), "has format None"),
        (json.dumps(without("settings")), "has no 'settings'"),
        (json.dumps(without("facts")), "has no 'facts'"),
        (json.dumps(without("runs")), "has no 'runs'"),
        (json.dumps(without("model", "facts")), "has no 'facts.model'"),
        (json.dumps(without("methods", "settings")), "lack something"),
        (json.dumps({**WHOLE, "settings": {**SETTINGS.to_json(), "xyzzy": 1}}), "no 'xyzzy'"),
        (json.dumps({**WHOLE, "settings": []}), r"settings is \[\]"),
        (json.dumps({**WHOLE, "cells": [{"dataset": "d"}]}), "missing 3 required"),
        (json.dumps({**WHOLE, "cells": [{**asdict(CELL), "protocol": "x"}]}), "protocol is one of"),
        (json.dumps({**WHOLE, "skipped": [{"why": "x"}]}), "has no 'cell'"),
    ],
    ids=str,
)
def test_a_damaged_run_is_told(damage: str, told: str, folder: RunFolder) -> None:
    (folder.path / "run.json").write_text(damage)
    with pytest.raises(DataFileError, match=rf"run\.json .*{told}"):
        folder.read()
    with pytest.raises(DataFileError, match=told):
        folder.begin(SETTINGS, FACTS)
    assert (folder.path / "run.json").read_text() == damage


def test_the_whole_of_it_is_no_damage(folder: RunFolder) -> None:
    (folder.path / "run.json").write_text(json.dumps(WHOLE))
    assert folder.read() == WHOLE


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(DataFileError, match="cannot be a run's folder"):
        RunFolder(tmp_path / "run")


def test_without_a_run_there_is_no_report(folder: RunFolder) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        republish(folder.path)


# -- one at a time -----------------------------------------------------------------------------------------------------

HOLDING = """
import sys
from pathlib import Path
from memedit.evaluation.runfolder import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process(folder: RunFolder) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the folder's lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(folder.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_one_process_writes_at_a_time(folder: RunFolder) -> None:
    with another_process(folder) as process:
        with pytest.raises(ConfigError, match=r"Another process is writing into .*one; wait .* or name another"):
            folder.locked().__enter__()
        process.kill()  # a lock dies with its process
        process.wait()
        with folder.locked():
            pass


def test_a_lock_is_given_back_after_a_failure(folder: RunFolder) -> None:
    with pytest.raises(KeyError), folder.locked():
        raise KeyError
    with folder.locked(), pytest.raises(ConfigError, match="Another process is writing"):
        RunFolder(folder.path).locked().__enter__()


# -- a run that goes on ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject(tiny_model(), tiny_tokenizer(), HashingEncoder(), name="tiny")


def dataset(count: int) -> Dataset:
    edits = [Edit(prompt=f"Company {number} is in", target="Lisbon") for number in range(count)]
    cases = [
        EvalCase(id=str(number), edits=(edit,), probes=(probe("edit", edit.prompt, ["Lisbon"], of_edit=0),))
        for number, edit in enumerate(edits)
    ]
    return Dataset(name="made:up", cases=tuple(cases), files=())


def test_what_was_asked_is_not_asked_again_and_methods_are_added(subject: Subject, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"cases": dataset(4), "edits": (2,), "max_new_tokens": 2, "kl": False, "out": tmp_path}
    evaluate(subject, methods=["ike"], **asked)
    ike = Cell(dataset="made:up", method="ike", protocol="free", edits=2)
    folder = RunFolder(tmp_path)
    first = folder.results(ike)
    assert set(first) == {"0", "1", "2", "3"}
    # one result is lost, as in a crash, and one case had failed
    (tmp_path / "cells" / f"{ike.key}.jsonl").unlink()
    for one in list(first.values())[:3]:
        folder.append(ike, one if one.case != "1" else replace(one, probes=(), error="OSError: gone"))
    lost = len(first) - len(folder.results(ike)) + sum(one.error is not None for one in folder.results(ike).values())
    report = evaluate(subject, methods=["retrieval"], **asked)
    assert set(report.methods) == {"base", "ike", "retrieval"}
    assert {figure.method for figure in report.figures} >= {"ike", "retrieval"}
    assert report.methods["ike"] == asdict(method_info("ike"))
    evaluate(subject, methods=["ike", "retrieval"], **asked)
    assert [go["cases_asked"] for go in held(folder)["runs"]] == [8, 4, lost]
    for case, one in folder.results(ike).items():
        assert [each.answer for each in one.probes] == [each.answer for each in first[case].probes]
    with pytest.raises(ConfigError, match="differs in the data file"):
        evaluate(subject, methods=["ike"], **{**asked, "cases": dataset(5)})


# -- what is noted -----------------------------------------------------------------------------------------------------


def test_the_versions_are_those_that_are_installed() -> None:
    found = versions()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["memedit"] == memedit.__version__
    assert {"torch", "transformers", "numpy"} <= set(found)
    assert all(found.values())


def test_the_machine_is_told_without_its_name() -> None:
    found = machine()
    assert found["cores"] >= 1
    assert found["threads"] >= 1
    assert found["memory_bytes"] > 2**28
    assert set(found) <= {"system", "cores", "threads", "memory_bytes", "accelerator"}
    json.dumps(found)


REVISION = "from memedit.evaluation.provenance import revision; print(revision())"


def revision_at(place: Path) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", REVISION], cwd=place, capture_output=True, text=True, check=True, timeout=60
    )
    return ran.stdout.strip()


def git(place: Path, *words: str) -> str:
    settings = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    ran = subprocess.run(["git", *settings, *words], cwd=place, capture_output=True, text=True, check=True, timeout=60)
    return ran.stdout.strip()


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The package below a folder that is no working tree."""
    place = tmp_path / "project"
    for name in ("memedit", "memory_store", "classifiers"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    return place


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_revision_is_the_projects_own(copied: Path) -> None:
    assert revision_at(copied) == "None"
    git(copied, "init", "--quiet")
    assert revision_at(copied) == "None"  # nothing is committed
    git(copied, "add", ".")
    git(copied, "commit", "--quiet", "--message", "All")
    head = git(copied, "rev-parse", "HEAD")
    assert revision_at(copied) == head[:12]
    (copied / "memedit" / "__init__.py").write_text("# changed\n")
    assert revision_at(copied) == f"{head[:12]}, with changes"


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_tree_that_the_package_is_only_installed_in_is_not_the_projects(copied: Path) -> None:
    around = copied.parent
    git(around, "init", "--quiet")
    git(around, "commit", "--quiet", "--allow-empty", "--message", "Something else")
    assert revision_at(copied) == "None"


def test_the_peak_of_memory_is_counted_from_when_it_is_watched(tmp_path: Path) -> None:
    if PeakMemory().peak() is None:
        pytest.skip("the system does not say what a process held at most")
    # in a process of its own: nothing that other tests left behind is freed meanwhile
    run_in_a_process_without_threads(hold_much_and_let_it_go, tmp_path, seconds=120)


def hold_much_and_let_it_go(_: Path) -> None:
    first = PeakMemory()
    low = first.peak()
    assert low is not None
    block = bytearray(200 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    del block
    high = first.peak()
    assert high is not None
    assert high - low > 150 * 2**20
    later = PeakMemory().peak()
    assert later is not None
    assert later < high - 100 * 2**20
