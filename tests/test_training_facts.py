"""Facts for training: what is read of each file, what is refused, and that the two halves share no name."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from training_samples import CITIES, PEOPLE, write_data, write_lines

from training.bank import load_bank
from training.errors import TrainingDataError
from training.facts import for_training, read_corpus, read_own
from training.material import gather, is_held_out


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data")


def test_counterfact_brings_the_relation_of_its_template(data: Path):
    facts = {fact.subject: fact for fact in read_corpus(data).facts if fact.source == "counterfact"}
    ada = facts["Ada Lovelace"]
    assert (ada.prompt, ada.target, ada.others) == ("Ada Lovelace was born in", CITIES[0], (CITIES[-1],))
    assert ada.relation == "place of birth"
    assert ada.paraphrases == ("It rained. Ada Lovelace originates from",)
    assert ada.neighbours == (f"{PEOPLE[-1]} was born in",)


def test_an_ambiguous_template_is_told_by_the_true_object(data: Path):
    facts = {fact.subject: fact for fact in read_corpus(data).facts}
    assert facts["Nina Simone"].relation == "music genre"


def test_zsre_loses_the_mark_of_its_ordinary_questions(data: Path):
    fact = next(fact for fact in read_corpus(data).facts if fact.source == "zsre")
    assert fact.neighbours == ("who sang the song",)
    assert (fact.target, fact.others, fact.relation) == ("the Rhine", ("the Elbe",), None)


def test_a_relation_file_gives_each_subject_an_object_that_is_not_its_own(data: Path):
    facts = [fact for fact in read_corpus(data).facts if fact.source == "relations"]
    assert [fact.relation for fact in facts] == ["mother"] * 3
    for fact in facts:
        assert fact.target not in fact.others
        assert fact.prompt == f"{fact.subject}'s mother is named"
        assert fact.paraphrases == (f"Who is {fact.subject}'s mother? Their mother is named",)


def test_only_half_of_the_ordinary_questions_are_trained_on(data: Path):
    traffic = [question for question in read_corpus(data).traffic if "cup" in question]
    everything = {
        f"who won the {name} cup in {year}" for name in ("nq_dev", "triviaqa_dev") for year in range(1960, 2000)
    }
    assert set(traffic) == {question for question in everything if for_training(question)}
    assert 20 < len(traffic) < 60


def test_every_file_is_written_down_with_its_digest(data: Path):
    import hashlib

    files = read_corpus(data).files
    assert {"counterfact/train.jsonl", "zsre/train.jsonl", "relations/factual/person_mother.json"} <= files.keys()
    path = data / "counterfact" / "train.jsonl"
    assert files["counterfact/train.jsonl"].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert files["counterfact/train.jsonl"].records == len(PEOPLE) + 1


def test_a_missing_file_is_named(data: Path):
    (data / "zsre" / "train.jsonl").unlink()
    with pytest.raises(TrainingDataError, match=r"zsre/train\.jsonl is missing"):
        read_corpus(data)


def test_a_broken_file_is_named(data: Path):
    (data / "zsre" / "train.jsonl").write_text("{")
    with pytest.raises(TrainingDataError, match=r"zsre/train\.jsonl is not JSON Lines"):
        read_corpus(data)


def test_the_halves_share_no_name(data: Path):
    learnt, held, _ = gather(data, without=["alias"])
    assert learnt.facts
    assert not {fact.subject for fact in learnt.facts} & {fact.subject for fact in held.facts}
    assert {fact.subject for fact in held.facts} == {
        fact.subject for fact in read_corpus(data).facts if is_held_out(fact.subject)
    }
    assert not set(learnt.traffic) & set(held.traffic)


def test_the_bank_learns_the_names_of_facts(data: Path):
    learnt, _, _ = gather(data, without=["alias"])
    known = [person for person in PEOPLE if not is_held_out(person)]
    assert set(known) <= set(learnt.bank.names("person"))
    assert not set(known) <= set(load_bank().names("person"))


def test_a_source_can_be_left_out(data: Path):
    learnt, held, _ = gather(data, without=["alias", "counterfact"])
    assert "counterfact" not in {fact.source for fact in (*learnt.facts, *held.facts)}


def test_own_records_are_facts(tmp_path: Path):
    path = tmp_path / "own.jsonl"
    record = {
        "prompt": "Our hotline is",
        "target": "0800",
        "in_scope": ["What is the hotline?"],
        "out_of_scope": ["Hi"],
    }
    write_lines(path, [record])
    (fact,) = read_own([path], {})
    assert (fact.source, fact.prompt, fact.target) == ("own", "Our hotline is", "0800")
    assert (fact.paraphrases, fact.neighbours) == (("What is the hotline?",), ("Hi",))


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"target": "x"}, "'prompt' must be a text"),
        ({"prompt": "a", "target": ""}, "'target' must be a text"),
        ({"prompt": "a", "target": "b", "in_scope": "c"}, "'in_scope' must be a list"),
        ({"prompt": "a", "target": "b", "inscope": []}, "unknown field 'inscope'"),
        (["a"], "a JSON object, not list"),
    ],
)
def test_a_faulty_own_record_is_named(tmp_path: Path, record: object, told: str):
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({"prompt": "a", "target": "b"}) + "\n" + json.dumps(record) + "\n")
    with pytest.raises(TrainingDataError, match=told) as raised:
        list(read_own([path], {}))
    assert "line 2" in str(raised.value)


def test_the_real_training_splits_are_read_and_their_relations_are_in_the_bank():
    real = Path(os.environ.get("MEMEDIT_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not real.is_dir():
        pytest.skip(f"the training splits are not in {real}; MEMEDIT_DATA names another folder")
    corpus = read_corpus(real)
    bank = load_bank()
    counterfact = [fact for fact in corpus.facts if fact.source == "counterfact"]
    assert len(counterfact) == 10_000
    assert sum(fact.relation is not None for fact in counterfact) > 9_900
    assert {fact.relation for fact in corpus.facts if fact.relation} <= bank.relations.keys()
