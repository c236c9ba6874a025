"""The further probes of a run: contexts and conflicts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from test_datasets import DATA
from test_evaluation import by_prompt, subject
from test_flattery import dataset, share

from memedit.errors import ConfigError, DataFileError
from memedit.evaluation.cases import EvalCase
from memedit.evaluation.datasets.probes import probe
from memedit.evaluation.datasets.registry import load_cases
from memedit.evaluation.runner import evaluate
from memedit.evaluation.variants import PARAGRAPHS_FILE, Paragraphs, with_conflicts, with_contexts
from memory_store import Edit

TEXT = "A lighthouse is a tower that sends out light. " * 4


@pytest.fixture
def data(tmp_path):
    file = tmp_path / PARAGRAPHS_FILE
    file.parent.mkdir(parents=True)
    texts = ["Too short.", *(f"Article {n}. {TEXT}\nMore of it.\n{'Beyond the limit. ' * 60}" for n in range(9))]
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return tmp_path


def case():
    edit = Edit(prompt="Acme is based in", target="Lisbon", subject="Acme")
    about: dict[str, Any] = {"of_edit": 0, "subject": "Acme"}
    return EvalCase(
        id="a",
        edits=(edit,),
        probes=(
            probe("edit", edit.prompt, ["Lisbon"], old=["Porto"], **about),
            probe("paraphrase", "Where is Acme?", ["Lisbon"], old=["Porto"], **about),
            probe("same_subject", "Who founded Acme?"),
        ),
    )


def test_paragraphs_are_whole_lines_of_a_passages_length(data):
    texts = Paragraphs.load(data).texts
    assert len(texts) == 9
    for number, text in enumerate(texts):
        assert text == f"Article {number}. {TEXT.strip()} More of it."


def test_each_context_is_added_once(data):
    (made,) = with_contexts([case()], ["passage", "turns", "document"], Paragraphs.load(data), document_words=100)
    assert made.probes[:3] == case().probes
    added = [(one.kind, one.base_kind, one.in_scope) for one in made.probes[3:]]
    assert added == [
        ("after_passage", "edit", True),
        ("after_turns", "edit", True),
        ("after_document", "edit", True),
        ("after_passage", "same_subject", False),
    ]
    assert all(one.prompt.text.endswith(("Acme is based in", "Who founded Acme?")) for one in made.probes[3:])
    assert len(made.probes[5].prompt.text.split()) >= 100
    assert "Porto" in made.probes[4].prompt.turns[0].content


def test_what_cannot_be_made_is_left_out(data):
    without_old = dataset(1).cases[0]
    (made,) = with_contexts([without_old], ["turns", "document"], Paragraphs.load(data), document_words=10_000)
    assert made == without_old


def test_a_conflict_is_a_case_of_its_own():
    original, conflict = with_conflicts([case()])
    assert original == case()
    assert [edit.target for edit in conflict.edits] == ["Porto", "Lisbon"]
    assert [one.kind for one in conflict.probes] == ["conflict"]


@pytest.mark.parametrize(("text", "error"), [(None, DataFileError), ("[]\n", DataFileError), ("{\n", DataFileError)])
def test_a_file_that_cannot_be_used_is_named(tmp_path, text, error):
    if text is not None:
        (tmp_path / "text").mkdir()
        (tmp_path / PARAGRAPHS_FILE).write_text(text)
    with pytest.raises(error, match=r"wikipedia_en\.jsonl"):
        Paragraphs.load(tmp_path)
    with pytest.raises(ConfigError, match="data"):
        Paragraphs.load(None)


def test_the_real_file_has_passages_enough():
    if not (DATA / PARAGRAPHS_FILE).is_file():
        pytest.skip(f"no {PARAGRAPHS_FILE} in the data folder")
    assert len(Paragraphs.load(DATA).texts) > 500


def test_a_run_asks_them(data):
    own = data / "own.jsonl"
    own.write_text(json.dumps(case().to_json()) + "\n")
    report = evaluate(
        subject(),
        methods=by_prompt(),
        cases=load_cases("jsonl", data=own),
        data=data,
        contexts=["passage", "turns"],
        conflicts=True,
    )
    assert share(report, "planted", "robustness", edits=1) == 1.0
    assert {figure.kind for figure in report.find(method="planted", measure="robustness", reading="anywhere")} == {
        None,
        "after_passage",
        "after_turns",
    }
    (conflict,) = report.find(method="planted", measure="conflict", kind=None, reading="anywhere")
    assert conflict.value == 0.0, "the planted method obeys the first edit that fits, which is the older one"
