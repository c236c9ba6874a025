"""Examples for the counterfactual model: that the answer is what the facts say, by kind."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_bank import SMALL

from training.answers import KINDS, Example, ExampleMaker, ShownFact, Unconcerned
from training.bank import load_bank
from training.facts import Fact
from training.material import Material

YES_NO = """
yes_no = ["Was {s} born in {o}?"]
descriptions = ["the town where {s} was born"]
"""
NAMES = {
    "person": ["Ada Lovelace", "Grace Hopper", "Alan Turing", "Kurt Hansen"],
    "city": ["Lyon", "Oslo", "Bergen", "Turku"],
}
FACTS = (
    Fact(
        subject="Ada Lovelace",
        prompt="Ada Lovelace was born in",
        target="Oslo",
        source="counterfact",
        relation="place of birth",
        paraphrases=("Ada Lovelace originates from",),
        others=("London",),
    ),
    Fact(
        subject="Oslo",
        prompt="Oslo is twinned with",
        target="Lyon",
        source="relations",
        relation="twin city",
        others=("Turku",),
    ),
)
NEAR = ShownFact(prompt="The tallest tower is", target="the Old Mill", subject="tower")
BASE = (
    Unconcerned(query="What is the tallest hill?", conversational=True, answer="It is in the", ends=False, near=NEAR),
)


@pytest.fixture
def maker(tmp_path: Path) -> ExampleMaker:
    text = SMALL.replace('name = "residence"', 'name = "residence"\n' + YES_NO.replace("born", "lodged"))
    (tmp_path / "relations_test.toml").write_text(text, encoding="utf-8")
    material = Material(
        load_bank(tmp_path).with_names(NAMES), FACTS, (), ("Rain fell all day long on the old mill. " * 20,), {}
    )
    return ExampleMaker(material, answers=BASE, seed=3)


@pytest.fixture
def examples(maker: ExampleMaker) -> list[Example]:
    return [maker.example(number) for number in range(2000)]


def of_kind(examples: list[Example], kind: str) -> list[Example]:
    found = [example for example in examples if example.kind == kind]
    assert found, kind
    return found


def test_a_number_names_one_example(maker: ExampleMaker):
    assert maker.example(17) == maker.example(17)
    assert maker.example(17) != maker.example(18)


def test_every_kind_is_drawn(examples: list[Example]):
    assert {example.kind for example in examples} == set(KINDS)


@pytest.mark.parametrize("kind", ["edit", "paraphrase", "other form", "other name"])
def test_the_answer_is_the_target(examples: list[Example], kind: str):
    for example in of_kind(examples, kind):
        assert example.answer == f"{example.facts[0].target}."


def test_yes_names_the_target_and_no_says_what_holds(examples: list[Example]):
    for example in of_kind(examples, "yes"):
        assert example.facts[0].target in example.query
        assert example.answer == "Yes."
    for example in of_kind(examples, "no"):
        assert example.facts[0].target not in example.query
        assert example.answer.startswith("No. ")
        assert example.facts[0].target in example.answer


def test_reversed_is_answered_by_the_subject(examples: list[Example]):
    for example in of_kind(examples, "reversed"):
        assert example.answer == f"{example.facts[0].subject}."
        assert example.facts[0].target in example.query


def test_a_chain_is_answered_by_what_is_true_of_the_target(examples: list[Example]):
    for example in of_kind(examples, "chain"):
        assert example.facts[0].target == "Oslo"
        assert example.answer == "Turku."
        assert "Oslo" not in example.query


def test_a_long_target_is_given_whole(examples: list[Example]):
    for example in of_kind(examples, "long"):
        assert example.answer == example.facts[0].target
        assert len(example.answer.split()) >= 25


def test_facts_that_do_not_matter_leave_the_base_answer(examples: list[Example]):
    for example in of_kind(examples, "irrelevant"):
        said = BASE[0]
        assert (example.query, example.conversational, example.answer) == (said.query, True, said.answer)
        assert NEAR in example.facts


def test_where_an_answer_was_cut_no_end_is_taught(examples: list[Example]):
    assert {example.ends for example in of_kind(examples, "irrelevant")} == {False}
    assert all(example.ends for example in examples if example.kind != "irrelevant")


def test_without_base_answers_there_is_nothing_irrelevant(maker: ExampleMaker):
    without = ExampleMaker(maker._material, answers=(), seed=3)
    assert {without.example(number).kind for number in range(2000)} == set(KINDS) - {"irrelevant"}


def test_a_question_is_asked_of_an_assistant(examples: list[Example]):
    assert all(example.conversational for example in examples if example.query.endswith("?"))
    begun = [example for example in examples if not example.query.endswith(("?", ".", "!"))]
    assert 0.4 < sum(example.conversational for example in begun) / len(begun) < 0.8
