"""A whole evaluation: asked, stopped, gone on with, added to; in one process and in several."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from echo_model import UNKNOWN, echo_model
from hashing_encoder import HashingEncoder
from test_flattery import Planted, city, dataset, share
from tiny import tiny_model, tiny_tokenizer

from memedit.editors.editor import EditCost, MethodInfo, Treatment
from memedit.editors.subject import Subject
from memedit.errors import ConfigError, UnsupportedCallError
from memedit.evaluation.files import read_report, read_results
from memedit.evaluation.runfolder import RunFolder
from memedit.evaluation.runner import evaluate, republish


def subject(**changes):
    made = Subject(echo_model(), tiny_tokenizer(), HashingEncoder(), name="echo")
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def by_prompt(name="planted"):
    return Planted(lambda text, edits: next((city(e) for e in edits if e.prompt in text), None), name=name)


def lines(folder):
    return {path.name: path.read_text().splitlines() for path in sorted((folder / "cells").glob("*.jsonl"))}


def test_the_unedited_model_stands_beside_every_figure(tmp_path):
    report = evaluate(subject(), methods=by_prompt(), cases=dataset(), edits=[1, 5, 10], seeds=2, out=tmp_path)
    assert {figure.edits for figure in report.find(method="planted", measure="reliability")} == {1, 5, 10}
    for figure in report.find(method="planted", measure="reliability", reading="anywhere"):
        assert (figure.before, figure.delta, set(figure.by_seed)) == (0.0, 1.0, {0, 1})
    (result, *_) = read_results(tmp_path / "cells" / "made.up~planted~free~10~1.jsonl")
    said = [(one.kind, one.answer, one.before) for one in result.probes]
    assert said == [
        ("edit", city(dataset().cases[int(result.case)].edits[0]), UNKNOWN),
        ("paraphrase", UNKNOWN, UNKNOWN),
        ("same_subject", UNKNOWN, UNKNOWN),
    ]
    assert read_report(tmp_path / "results.json") == report
    assert "planted" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "results.csv").read_text().startswith("dataset,method,protocol")


def test_what_was_asked_is_not_asked_again(tmp_path):
    whole = evaluate(subject(), methods=by_prompt(), cases=dataset(), edits=[1, 10], out=tmp_path / "whole")
    first = by_prompt()
    evaluate(subject(), methods=first, cases=dataset(), edits=[1, 10], out=tmp_path / "run")
    cells = tmp_path / "run" / "cells"
    cut = cells / "made.up~planted~free~10~0.jsonl"
    kept = cut.read_text().splitlines(keepends=True)
    cut.write_text("".join(kept[:4]) + kept[4][:30])  # killed in the middle of a line
    again = by_prompt()
    resumed = evaluate(subject(), methods=again, cases=dataset(), edits=[1, 10], out=tmp_path / "run")
    assert len(again.seen) == 6 * 3, "the six cases that were lost, three probes each"
    values = [(f.measure, f.kind, f.reading, f.edits, f.value) for f in whole.figures if f.unit == "share"]
    assert values == [(f.measure, f.kind, f.reading, f.edits, f.value) for f in resumed.figures if f.unit == "share"]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["runs"][-1]["cases_asked"] == 6


def test_other_methods_sizes_and_seeds_are_added(tmp_path):
    evaluate(subject(), methods=by_prompt("one"), cases=dataset(), edits=1, out=tmp_path)
    before = lines(tmp_path)
    two = by_prompt("two")
    report = evaluate(subject(), methods=two, cases=dataset(), edits=[2], seeds=2, out=tmp_path)
    assert {cell.cell.method for cell in report.cells} == {"base", "one", "two"}
    assert share(report, "one", "reliability", edits=1) == share(report, "two", "reliability", edits=2) == 1.0
    assert {name: text for name, text in lines(tmp_path).items() if name in before} == before
    assert list(report.config["methods"]) == ["one", "two"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"max_new_tokens": 7}, "max_new_tokens"),
        ({"cases": dataset(9)}, "the data file"),
        ({"model": Subject(tiny_model(), tiny_tokenizer(), HashingEncoder(), name="echo")}, "the model's weights"),
        ({"limit": 3}, "limit"),
    ],
)
def test_results_that_cannot_stand_together_are_kept_apart(tmp_path, changes, named):
    asked = {"model": subject(), "methods": by_prompt(), "cases": dataset(), "out": tmp_path}
    evaluate(**asked)
    before = lines(tmp_path)
    with pytest.raises(ConfigError, match=named):
        evaluate(**{**asked, **changes})
    assert lines(tmp_path) == before


def test_two_files_of_one_format_do_not_mix(tmp_path):
    for name in ("one.jsonl", "two.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(case.to_json()) + "\n" for case in dataset().cases))
    asked = {"model": subject(), "methods": by_prompt(), "cases": "jsonl", "out": tmp_path / "run"}
    evaluate(**asked, data=tmp_path / "one.jsonl")
    with pytest.raises(ConfigError, match="the files of 'jsonl'"):
        evaluate(**asked, data=tmp_path / "two.jsonl")


def test_a_case_that_fails_is_told_of_and_tried_again(tmp_path):
    def fussy(text, edits):
        if "ompany 3" in text:
            raise RuntimeError("no threes")
        return next((city(e) for e in edits if e.prompt in text), None)

    report = evaluate(subject(), methods=Planted(fussy), cases=dataset(), edits=10, out=tmp_path)
    (summary,) = [one for one in report.cells if one.cell.method == "planted"]
    assert (summary.cases, summary.failed) == (10, 1)
    results = read_results(tmp_path / "cells" / "made.up~planted~free~10~0.jsonl")
    assert [(one.case, one.error) for one in results if one.error] == [("3", "RuntimeError: no threes")]
    assert share(report, "planted", "reliability", edits=10) == 1.0
    mended = evaluate(subject(), methods=by_prompt(), cases=dataset(), edits=10, out=tmp_path)
    (summary,) = [one for one in mended.cells if one.cell.method == "planted"]
    assert (summary.cases, summary.failed) == (10, 0)


class Overwriting:
    """A parameter editor: writes the newest edit's number into a weight, and says so."""

    INFO = MethodInfo(
        name="overwriting", title="x", group="none", changes="weights", paper="none", summary="x", batch=False
    )

    def create(self, subject):
        self.subject, self.made, self.before = subject, [], None
        return self

    @property
    def info(self):
        return self.INFO

    def edit(self, edits):
        weight = self.subject.model.get_output_embeddings().weight
        if self.before is None:
            self.before = weight.detach().clone()
        self.made += edits
        weight.data += len(edits)
        return EditCost(edits=len(edits), seconds=1.0, setup_seconds=2.0)

    def treat(self, prompts):
        return [Treatment()] * len(prompts)

    def undo(self):
        if self.before is not None:
            self.subject.model.get_output_embeddings().weight.data.copy_(self.before)
        self.before, self.made = None, []


@pytest.mark.parametrize("sequential", [False, True])
def test_a_parameter_editor_is_asked_while_its_weights_are_changed_and_leaves_none(tmp_path, sequential):
    made = Subject(tiny_model(), tiny_tokenizer(), HashingEncoder(), name="tiny")
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    report = evaluate(
        made,
        methods=Overwriting(),
        cases=dataset(4),
        edits=[1, 4],
        out=tmp_path,
        max_new_tokens=4,
        sequential=sequential,
    )
    for name, value in made.model.state_dict().items():
        assert value.equal(before[name]), name
    (kl,) = report.find(method="overwriting", measure="locality", reading="kl", kind=None, edits=4)
    assert kl.value > 0.0
    (cost,) = report.find(method="overwriting", measure="efficiency", kind="seconds an edit", edits=4)
    assert cost.value == pytest.approx(1.0 if sequential or not Overwriting.INFO.batch else 0.25)


def test_edits_in_weights_are_made_once_for_all_that_is_asked_of_them(tmp_path):
    class Counted(Overwriting):
        calls = 0

        def edit(self, edits):
            type(self).calls += 1
            return super().edit(edits)

    asked = {"methods": Counted(), "cases": dataset(4), "edits": [1, 2], "max_new_tokens": 4}
    made = Subject(tiny_model(), tiny_tokenizer(), HashingEncoder(), name="tiny")
    alone = [evaluate(made, protocol=one, **asked) for one in ("teacher-forced", "free")]
    Counted.calls = 0
    together = evaluate(made, protocol=["teacher-forced", "free"], out=tmp_path, **asked)
    assert Counted.calls == 4 + 4  # one edit at a time; four groups of one, and two of two
    for report, protocol in zip(alone, ("teacher-forced", "free"), strict=True):
        wanted = [one for one in report.find(method="overwriting", protocol=protocol) if one.measure != "efficiency"]
        assert wanted
        for figure in wanted:
            assert figure in together.figures


def test_ablations_tell_routing_errors_from_answering_errors():
    report = evaluate(
        subject(), methods=["ike", "ice-oracle"], cases=dataset(), edits=10, protocol=["oracle-router", "no-router"]
    )
    assert share(report, "ike", "generalization", edits=10, protocol="oracle-router") == 1.0
    assert share(report, "ike", "locality", edits=10, reading="identical", protocol="oracle-router") == 1.0
    assert share(report, "ike", "locality", edits=10, reading="identical", protocol="no-router") == 0.0
    skipped = {(one.cell.method, one.cell.protocol): one.skipped for one in report.cells if one.skipped}
    assert set(skipped) == {("ice-oracle", "oracle-router"), ("ice-oracle", "no-router")}


def test_distractors_fill_the_memory_up(tmp_path):
    own = tmp_path / "own.jsonl"
    own.write_text(
        "".join(
            json.dumps({"edits": [{"prompt": f"Ship {n} sails to", "target": "Rome"}], "probes": []}) + "\n"
            for n in range(20)
        )
    )
    asked = by_prompt()
    report = evaluate(subject(), methods=asked, cases=dataset(), edits=25, distractors="jsonl", data=own, limit=4)
    assert set(asked.in_place) == {25}
    assert share(report, "planted", "reliability", edits=25) == 1.0
    with pytest.raises(ConfigError, match="distractors"):
        evaluate(subject(), methods=asked, cases=dataset(), edits=26)


def test_a_method_that_cannot_work_says_so_before_anything_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("memedit.counterfactual.shipped_folder", lambda: tmp_path / "nowhere")
    with pytest.raises(UnsupportedCallError, match="serac"):
        evaluate(subject(), methods=["ike", "serac"], cases=dataset(), out=tmp_path)
    assert lines(tmp_path) == {}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"methods": "ikee"}, "ike"),
        ({"protocol": "freee"}, "free"),
        ({"cases": "counterfakt:dev"}, "counterfact"),
        ({"edits": 0}, "edits"),
        ({"seeds": 0}, "seeds"),
        ({"speed": 9}, "speed"),
        ({"workers": 2}, "name or folder"),
    ],
)
def test_wrong_settings_are_named(wrong, message):
    with pytest.raises(ConfigError, match=message):
        evaluate(**{"model": subject(), "methods": "ike", "cases": dataset(3), **wrong})


def test_two_runs_do_not_write_into_one_folder(tmp_path):
    with RunFolder(tmp_path).locked(), pytest.raises(ConfigError, match="writing"):
        evaluate(subject(), methods=by_prompt(), cases=dataset(3), out=tmp_path)


def test_a_report_is_made_anew_from_the_folder(tmp_path):
    report = evaluate(subject(), methods=by_prompt(), cases=dataset(), out=tmp_path)
    for name in ("results.json", "results.csv", "report.html"):
        (tmp_path / name).unlink()
    assert republish(tmp_path) == report
    assert (tmp_path / "report.html").is_file()


# -- with the real encoder and folders, as other processes need them


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny-model")
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def own_file(folder: Path) -> Path:
    path = folder / "own.jsonl"
    cases = [replace(case, source=None) for case in dataset().cases]
    path.write_text("".join(json.dumps(case.to_json()) + "\n" for case in cases))
    return path


def shown(folder):
    """What was answered and how it was routed, by cell and case."""
    found = {}
    for path in sorted((folder / "cells").glob("*.jsonl")):
        for result in read_results(path):
            found[path.name, result.case] = [(p.answer, p.before, p.match, p.routed) for p in result.probes]
    return found


@pytest.mark.real
def test_several_processes_come_to_the_same(tmp_path, tiny_folder, minilm_folder):
    asked: dict[str, Any] = {
        "model": str(tiny_folder),
        "encoder": str(minilm_folder),
        "methods": ["ike", "retrieval"],
        "cases": "jsonl",
        "data": own_file(tmp_path),
        "edits": [1, 10],
        "max_new_tokens": 6,
    }
    evaluate(**asked, out=tmp_path / "one")
    evaluate(**asked, out=tmp_path / "two", workers=2)
    assert shown(tmp_path / "one") == shown(tmp_path / "two")
    assert len(shown(tmp_path / "one")) == 10 * 5


def run_for_long(model, encoder, data, out):
    evaluate(model, encoder=encoder, methods="ike", cases="jsonl", data=data, edits=[1, 2, 5], seeds=9, out=out)


@pytest.mark.real
def test_a_run_that_was_killed_goes_on(tmp_path, tiny_folder, minilm_folder):
    out, data = tmp_path / "run", own_file(tmp_path)
    process = multiprocessing.get_context("spawn").Process(
        target=run_for_long, args=(str(tiny_folder), str(minilm_folder), data, out)
    )
    process.start()
    deadline = time.monotonic() + 120
    while sum(map(len, lines(out).values()), 0) < 25:
        assert process.is_alive(), "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    there = sum(len(read_results(out / "cells" / name)) for name in lines(out))
    assert there < 10 * 28
    (stopped,) = json.loads((out / "run.json").read_text())["runs"]
    assert stopped["cases_asked"] is None
    assert stopped["versions"]["torch"], "what a stopped run depended on is known too"
    run_for_long(str(tiny_folder), str(minilm_folder), data, out)
    run = json.loads((out / "run.json").read_text())["runs"]
    assert sum(len(read_results(out / "cells" / name)) for name in lines(out)) == 10 * 28
    assert run[-1]["cases_asked"] == 10 * 28 - there
