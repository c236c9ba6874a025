"""Examples for the counterfactual model: that the answer is what the facts say, by kind."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from test_bank import SMALL

from training.answers import KINDS, Example, ExampleMaker, ShownFact
from training.bank import load_bank
from training.facts import Fact
from training.material import Material
from training.pairs import Pair, PairMaker

YES_NO = """
yes_no = ["Was {s} born in {o}?"]
descriptions = ["the town where {s} was born"]
"""
STUDIES = """
[[relation]]
name = "place of study"
subject = "person"
object = "city"
labels = ["place of study"]
stubs = ["{s} went to university in"]
questions = ["Where did {s} study?"]
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
NEAR = ShownFact(prompt="The tallest tower is", target="the Old Mill", subject="the tallest tower")


class Beside(PairMaker):
    """Draws the same pair again and again."""

    def __init__(self) -> None:
        """Nothing to draw from is needed."""

    def ungoverned(self, rng: random.Random) -> Pair:
        return Pair(
            query="What is the tallest hill?",
            prompt=NEAR.prompt,
            target=NEAR.target,
            governed=False,
            kind="other subject",
            source="bank",
            subject="the tallest tower",
        )


@pytest.fixture
def maker(tmp_path: Path) -> ExampleMaker:
    text = SMALL.replace('name = "residence"', 'name = "residence"\n' + YES_NO.replace("born", "lodged"))
    (tmp_path / "relations_test.toml").write_text(text + STUDIES, encoding="utf-8")
    material = Material(
        load_bank(tmp_path).with_names(NAMES),
        FACTS,
        (),
        ("Rain fell all day long. It filled the pond by the old mill. " * 20,),
        {},
    )
    return ExampleMaker(material, pairs=Beside(), seed=3)


@pytest.fixture
def examples(maker: ExampleMaker) -> list[Example]:
    return [maker.example(number) for number in range(2000)]


def of_kind(examples: list[Example], kind: str) -> list[Example]:
    found = [example for example in examples if example.kind == kind]
    assert found, kind
    return found


def holds(query: str, name: str) -> bool:
    """Whether a name stands in a query, which may be typed in haste, without capitals."""
    return name.casefold() in query.casefold()


def test_a_number_names_one_example(maker: ExampleMaker):
    assert maker.example(17) == maker.example(17)
    assert maker.example(17) != maker.example(18)


def test_every_kind_is_drawn(examples: list[Example]):
    assert {example.kind for example in examples} == set(KINDS)


@pytest.mark.parametrize("kind", ["edit", "paraphrase", "other form", "other name"])
def test_the_answer_is_the_target(examples: list[Example], kind: str):
    for example in of_kind(examples, kind):
        assert example.answer == example.facts[0].target.removesuffix(".") + "."


def test_yes_names_the_target_and_no_says_what_holds(examples: list[Example]):
    for example in of_kind(examples, "yes"):
        assert holds(example.query, example.facts[0].target)
        assert example.answer == "Yes."
    for example in of_kind(examples, "no"):
        assert not holds(example.query, example.facts[0].target)
        assert example.answer == f"No, {example.facts[0].target.removesuffix('.')}."


def test_reversed_is_answered_by_the_subject(examples: list[Example]):
    for example in of_kind(examples, "reversed"):
        subject = example.answer.removesuffix(".")
        assert holds(example.facts[0].prompt, subject)
        assert example.facts[0].subject in (subject, None)
        assert holds(example.query, example.facts[0].target)


def test_a_chain_is_answered_by_what_is_true_of_the_target(examples: list[Example]):
    for example in of_kind(examples, "chain"):
        assert example.facts[0].target == "Oslo"
        assert example.answer == "Turku."
        assert not holds(example.query, "Oslo")


def test_no_is_also_said_of_what_was_true_before(examples: list[Example]):
    twinned = [example.query for example in of_kind(examples, "no") if example.facts[0].subject == "Oslo"]
    others = [query for query in twinned if not holds(query, "Turku")]
    assert len(twinned) - len(others) > 2 * max(1, sum(holds(query, "Lyon") for query in others))


def test_a_long_target_is_given_whole(examples: list[Example]):
    for example in of_kind(examples, "long"):
        assert example.answer == example.facts[0].target
        assert "the old mill" in example.answer
        assert len(example.answer.split()) >= 10
    asked_the_same = [example.query == example.facts[0].prompt for example in of_kind(examples, "long")]
    assert 0.3 < sum(asked_the_same) / len(asked_the_same) < 0.9


def test_of_a_long_target_a_detail_is_told_alone(examples: list[Example]):
    for example in of_kind(examples, "detail"):
        assert f" {example.answer}" in example.facts[0].target
        assert len(example.answer) < len(example.facts[0].target) / 2
        assert example.query != example.facts[0].prompt


def test_where_no_fact_answers_nothing_is_said(examples: list[Example]):
    unanswered = of_kind(examples, "unanswered")
    for example in unanswered:
        assert (example.query, example.conversational, example.answer) == ("What is the tallest hill?", True, "")
        shown = [replace(fact, aliases=()) for fact in example.facts]
        assert NEAR in shown or replace(NEAR, subject=None) in shown
    assert 0.4 < sum(len(example.facts) == 1 for example in unanswered) / len(unanswered) < 0.8
    assert all(example.answer for example in examples if example.kind != "unanswered")


def test_a_model_that_may_not_be_silent_is_told_what_to_say_of_another_subject(maker: ExampleMaker):
    example = next(one for one in map(maker.example, range(200)) if one.kind == "unanswered")
    assert (example.answer, example.otherwise) == ("", "the Old Mill.")


@pytest.mark.parametrize(
    ("kind", "target"), [("other relation", NEAR.target), ("other subject", "a mill " * 20), ("mention", NEAR.target)]
)
def test_of_another_relation_it_is_told_nothing_to_say(
    maker: ExampleMaker, monkeypatch: pytest.MonkeyPatch, kind: str, target: str
):
    drawn = Beside().ungoverned(random.Random())
    monkeypatch.setattr(Beside, "ungoverned", lambda _self, _rng: replace(drawn, kind=kind, target=target))
    unanswered = [one for one in map(maker.example, range(200)) if one.kind == "unanswered"]
    assert {(one.answer, one.otherwise) for one in unanswered} == {("", "")}


def test_some_facts_do_not_say_what_they_are_about(examples: list[Example]):
    unnamed = [example for example in examples if any(fact.subject is None for fact in example.facts)]
    assert 0.15 < len(unnamed) / len(examples) < 0.25
    for example in unnamed:
        assert all(fact.subject is None and not fact.aliases for fact in example.facts)


def test_some_other_names_are_told_and_only_beside_the_subject(examples: list[Example]):
    named = of_kind(examples, "other name")
    told = [example for example in named if example.facts[0].aliases]
    assert 0.15 < len(told) / len(named) < 0.35
    for example in told:
        assert holds(example.query, example.facts[0].aliases[0])


def test_without_pairs_every_query_is_answered(maker: ExampleMaker):
    without = ExampleMaker(maker._material, pairs=None, seed=3)
    assert {without.example(number).kind for number in range(2000)} == set(KINDS) - {"unanswered"}


def test_what_excludes_another_object_is_still_answered(examples: list[Example]):
    excluding = [one for one in of_kind(examples, "other form") if " not " in one.query or "than" in one.query]
    assert excluding
    for example in excluding:
        assert not holds(example.query, example.facts[0].target)
        assert example.answer == f"{example.facts[0].target.removesuffix('.')}."


def test_some_are_typed_in_haste(examples: list[Example]):
    hasty = [one for one in of_kind(examples, "edit") if one.query == one.facts[0].prompt.lower()]
    assert 0.01 < len(hasty) / len(of_kind(examples, "edit")) < 0.15


def test_a_question_is_asked_of_an_assistant(examples: list[Example]):
    assert all(example.conversational for example in examples if example.query.endswith("?"))
    begun = [example for example in examples if not example.query.endswith(("?", ".", "!"))]
    assert 0.4 < sum(example.conversational for example in begun) / len(begun) < 0.8
