"""Pairs: that the label is right by construction, that kinds are what they say, that a number names one pair."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from test_bank import SMALL, bank_of

from training.bank import Bank
from training.facts import Fact
from training.pairs import NEGATIVE, POSITIVE, Pair, PairMaker
from training.wording import asked, described, excluding, in_context, roughly

SOURCES = {"bank": 1.0, "counterfact": 1.0, "traffic": 0.2, "alias": 0.5, "compound": 0.3}
PASSAGE = "The harvest was poor that year and the river froze early in the winter."

FACT = Fact(
    subject="Ada Lovelace",
    prompt="Ada Lovelace was born in",
    target="Oslo",
    source="counterfact",
    relation="place of birth",
    paraphrases=("Rain fell. Ada Lovelace first saw the light of day in",),
    neighbours=("Grace Hopper was born in",),
    others=("London",),
)


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    return bank_of(tmp_path).with_names(
        {
            "person": ["Ada Lovelace", "Grace Hopper", "Alan Turing", "Kurt Gödel"],
            "city": ["Lyon", "Oslo", "Bergen", "London", "Turku"],
        }
    )


@pytest.fixture
def maker(bank: Bank) -> PairMaker:
    return PairMaker(
        bank,
        [FACT],
        near=[("Where was Charles Babbage born?",)],
        traffic=[("who sang the first song on the moon", (0,)), ("a question that nothing is near", ())],
        passages=[PASSAGE],
        aliases={"person": (("Alan Turing", "A. M. Turing"), ("Kurt Gödel", "Kurt Goedel"))},
        sources=SOURCES,
        seed=7,
    )


@pytest.fixture
def pairs(maker: PairMaker) -> list[Pair]:
    return [maker.pair(number) for number in range(3000)]


def of_kind(pairs: list[Pair], kind: str) -> list[Pair]:
    found = [pair for pair in pairs if pair.kind == kind]
    assert found, kind
    return found


def short(target: str) -> str:
    """A target without the running text that follows it now and then, as it stands in a query."""
    return target.partition(". ")[0].lower()


def test_a_number_names_one_pair(maker: PairMaker, bank: Bank):
    again = PairMaker(
        bank,
        [FACT],
        near=maker.near,
        traffic=maker.traffic,
        passages=maker.passages,
        aliases=maker.aliases,
        sources=SOURCES,
        seed=7,
    )
    assert [maker.pair(number) for number in (5, 900, 3)] == [again.pair(number) for number in (5, 900, 3)]
    assert maker.pair(1) != maker.pair(2)


def test_labels_follow_kinds(pairs: list[Pair]):
    for pair in pairs:
        if pair.kind in POSITIVE:
            assert pair.governed, pair
        elif pair.kind in NEGATIVE or pair.kind == "traffic":
            assert not pair.governed, pair


def test_both_labels_are_well_represented(pairs: list[Pair]):
    share = sum(pair.governed for pair in pairs) / len(pairs)
    assert 0.3 < share < 0.6


def test_a_source_without_weight_is_not_drawn(maker: PairMaker, bank: Bank):
    only = PairMaker(
        bank,
        [FACT],
        near=maker.near,
        traffic=maker.traffic,
        passages=maker.passages,
        aliases={},
        sources={"bank": 0.0, "counterfact": 1.0, "alias": 1.0, "zsre": 1.0},
        seed=7,
    )
    assert {only.pair(number).source for number in range(200)} == {"counterfact"}


def test_another_relation_of_the_subject_never_overlaps(pairs: list[Pair]):
    # birth and residence overlap in the small bank, so a person has no other relation to be asked for
    assert not [pair for pair in pairs if pair.kind == "other relation" and "Lovelace" in pair.prompt]


def test_another_subject_is_another(pairs: list[Pair]):
    for pair in of_kind(pairs, "other subject, same words"):
        if pair.source == "counterfact":
            assert "lovelace" not in pair.query.lower(), pair


def test_reversed_names_the_target_and_not_the_subject(pairs: list[Pair]):
    for pair in of_kind(pairs, "reversed"):
        assert short(pair.target) in pair.query.lower(), pair
        if pair.source == "counterfact":
            assert "lovelace" not in pair.query.lower(), pair


def test_excluding_names_the_target(pairs: list[Pair]):
    for pair in of_kind(pairs, "excluding"):
        assert short(pair.target) in pair.query.lower(), pair


def test_another_excluded_does_not_name_the_target(pairs: list[Pair]):
    for pair in of_kind(pairs, "another excluded"):
        assert short(pair.target) not in pair.query.lower(), pair


def test_excluding_elsewhere_is_about_another_subject(pairs: list[Pair]):
    for pair in of_kind(pairs, "excluding, other subject"):
        if pair.source == "counterfact":
            assert "lovelace" not in pair.query.lower(), pair


def test_running_text_follows_some_targets(pairs: list[Pair]):
    made_up = [pair for pair in pairs if pair.source in ("bank", "counterfact")]
    followed = [pair for pair in made_up if ". " in pair.target]
    assert 0.02 < len(followed) / len(made_up) < 0.09
    assert all(pair.target.partition(". ")[2] in PASSAGE for pair in followed)


FOUNDED = """
[[relation]]
name = "founding year"
subject = "city"
object = "year"
labels = ["founding year"]
stubs = ["{s} was founded in"]
questions = ["When was {s} founded?"]

[[relation]]
name = "climate"
subject = "city"
object = "weather"
labels = ["climate"]
stubs = ["The climate of {s} is"]
questions = ["What climate has {s}?"]
"""


@pytest.fixture
def compounds(tmp_path: Path) -> list[Pair]:
    text = SMALL.replace('city = ""', 'city = ""\nyear = ""\nweather = ""') + FOUNDED
    bank = bank_of(tmp_path, text).with_names({"year": ["1802", "1911"], "weather": ["mild", "harsh"]})
    maker = PairMaker(
        bank, [FACT], near=[()], traffic=[], passages=[PASSAGE], aliases={}, sources={"compound": 1.0}, seed=2
    )
    return [maker.pair(number) for number in range(600)]


def test_a_compound_edit_asks_and_tells_two_things(compounds: list[Pair]):
    about = {"twinned": "twin", "founded": "found", "climate": "climate"}
    for pair in compounds:
        asked_for = {word for word in about if word in pair.prompt.lower()}
        told = {word for word in about if word in pair.target.lower()}
        assert asked_for == told, pair
        assert len(told) == 2, pair


def test_a_part_of_a_compound_is_governed_and_a_third_relation_is_not(compounds: list[Pair]):
    words = {"twin": "twinned", "found": "founded", "climate": "climate"}
    for kind, governed in (("part of a compound", True), ("compound, other relation", False)):
        for pair in of_kind(compounds, kind):
            (asked_for,) = {whole for word, whole in words.items() if word in pair.query.lower()}
            assert pair.governed is governed
            assert (asked_for in pair.prompt.lower()) is governed, pair


def test_a_compound_about_another_subject_is_not_governed(compounds: list[Pair]):
    for pair in of_kind(compounds, "compound, other subject"):
        (subject,) = {name for name in ("Lyon", "Oslo") if name in pair.prompt}
        assert not pair.governed
        assert subject.lower() not in pair.query.lower(), pair


def test_a_chain_describes_the_object_and_does_not_name_it(pairs: list[Pair]):
    for pair in of_kind(pairs, "chain"):
        assert "twin" in pair.query.lower(), pair
        assert short(pair.target) not in pair.query.lower(), pair


def test_an_alias_stands_for_the_subject(pairs: list[Pair]):
    for pair in of_kind(pairs, "alias"):
        names = {"Alan Turing", "A. M. Turing"} if "Turing" in pair.prompt else {"Kurt Gödel", "Kurt Goedel"}
        (used,) = [name for name in names if name in pair.prompt]
        (asked_by,) = names - {used}
        assert asked_by.lower() in pair.query.lower(), pair


def test_ordinary_questions_come_with_facts_near_them(pairs: list[Pair]):
    for pair in of_kind(pairs, "traffic"):
        assert "who sang the first song on the moon" in pair.query.lower(), pair


def test_every_kind_that_the_material_allows_is_drawn(pairs: list[Pair]):
    drawn = Counter(pair.kind for pair in pairs)
    silent = {kind for kind in (*POSITIVE, *NEGATIVE) if kind not in drawn}
    # what needs yes/no forms, or a subject with relations that do not overlap
    others = {"other relation", "like relation", "other relation, yes/no", "other chain", "of another"}
    assert silent <= {"yes/no", "other subject, yes/no", *others}, silent


def test_words_of_a_question_are_those_of_its_relation(bank: Bank):
    relation = bank.relations["place of birth"]
    rng = random.Random(0)
    texts = {asked(relation, "Grace Hopper", rng) for _ in range(300)}
    assert {"Grace Hopper was born in", "Where was Grace Hopper born?", "The birthplace of Grace Hopper is"} <= texts
    assert all("Grace Hopper" in text and "{" not in text for text in texts)


def test_a_description_is_not_followed_by_a_possessive(bank: Bank):
    relation = bank.relations["twin city"]
    rng = random.Random(0)
    texts = {asked(relation, "the city where she died", rng, clause=True) for _ in range(300)}
    assert not [text for text in texts if "died's" in text]


def test_a_description_denotes_by_label_where_there_is_no_form(bank: Bank):
    relation = replace(bank.relations["place of birth"], descriptions=())
    assert described(relation, "Ada", random.Random(0)) == "the birthplace of Ada"


def test_an_exclusion_keeps_the_verb_at_its_end(bank: Bank):
    relation = replace(bank.relations["residence"], stubs=("The home of {s} is",), labels=("home",))
    rng = random.Random(0)
    texts = {excluding(relation, "Ada", "Oslo", rng) for _ in range(200)}
    assert "The home of Ada, which is not Oslo, is" in texts


def test_what_stands_before_a_query_is_a_sentence():
    rng = random.Random(0)
    for _ in range(50):
        text = in_context("Where is it?", "one two three four five six seven eight nine ten", rng)
        before = text.removesuffix(" Where is it?")
        assert before.endswith(".")
        assert before[0].isupper()


def test_a_rough_query_keeps_its_words():
    rng = random.Random(0)
    for _ in range(50):
        assert "where was ada lovelace born" in roughly("Where was Ada Lovelace born?", rng).lower()


def test_the_small_bank_of_these_tests_is_the_one_meant():
    assert 'overlaps = ["residence"]' in SMALL


def test_ungoverned_pairs_are_drawn_alone(maker: PairMaker):
    drawn = [maker.ungoverned(random.Random(number)) for number in range(400)]
    assert drawn == [maker.ungoverned(random.Random(number)) for number in range(400)]
    assert not any(pair.governed for pair in drawn)
    assert len({pair.kind for pair in drawn}) > 8
