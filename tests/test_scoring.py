"""How answers are read, how words overlap, and what is made of a router's decision."""

from __future__ import annotations

import re
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memedit.evaluation import Match, Probe, ProbePrompt, Reference
from memedit.evaluation.cases import folded
from memedit.evaluation.datasets.probes import probe
from memedit.evaluation.scoring import is_said, overlap, read, rouge_l, routed, says_old
from memedit.queries import Query
from memedit.routing import Candidate, Decision, RoutingTimings
from memory_store import Edit

SEAT = ProbePrompt(text="The headquarters of Acme Rockets is in")
QUESTION = ProbePrompt(text="Where is Acme Rockets based?", form="question")
LISBON = Reference(answers=("Lisbon", "Lisboa", "the Portuguese capital"), old_answers=("Porto", "Oporto"))


def reading(answer: str, prompt: ProbePrompt = SEAT, reference: Reference = LISBON) -> Match:
    match = read(answer, prompt, reference)
    assert match is not None
    return match


# -- phrases -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "start", "anywhere", "exact"),
    [
        ("Lisbon", True, True, True),
        ("Lisbon, Portugal.", True, True, False),
        ("It is in Lisbon.", False, True, False),
        ("lisboa!", True, True, True),
        ("the Portuguese capital, of course", True, True, False),
        ("Lisbonne", False, False, False),
        ("Porto", False, False, False),
        ("", False, False, False),
    ],
)
def test_any_alias_counts(answer: str, start: bool, anywhere: bool, exact: bool) -> None:
    match = reading(answer)
    assert (match.start, match.anywhere, match.exact) == (start, anywhere, exact)
    assert is_said(match) == anywhere


@pytest.mark.parametrize(
    "answer",
    [
        "The headquarters of Acme Rockets is in Lisbon",
        "the headquarters of  acme rockets is in: Lisbon",
        "Headquarters of Acme Rockets is in the Lisbon.",
    ],
)
def test_a_statement_that_is_repeated_is_read_behind_the_repetition(answer: str) -> None:
    match = reading(answer)
    assert match.start
    assert match.exact


def test_what_a_repetition_itself_names_is_not_said() -> None:
    reference = Reference(answers=("Acme Rockets",), old_answers=("headquarters",))
    for answer in (f"{SEAT.text} Lisbon", SEAT.text, f"{SEAT.text}."):
        assert reading(answer, reference=reference) == Match()
        assert says_old(answer, SEAT, reference) is False
    assert reading("Acme Rockets", reference=reference).exact


def test_half_a_word_behind_a_statement_is_no_repetition() -> None:
    prompt = ProbePrompt(text="Acme is in")
    assert reading("Acme is innovative, and in Lisbon", prompt).anywhere
    assert not reading("Acme is innovative, and in Lisbon", prompt).start


def test_a_question_is_not_taken_for_a_statement() -> None:
    reference = Reference(answers=("based in Lisbon",))
    answer = f"{QUESTION.text} based in Lisbon"
    assert not reading(answer, QUESTION, reference).start
    assert reading(answer, QUESTION, reference).anywhere


@pytest.mark.parametrize(
    ("answer", "said"),
    [("Porto", True), ("Not Porto but Lisbon", True), ("in oporto", True), ("Lisbon", False), ("Portobello", False)],
)
def test_an_old_answer_is_found_anywhere(answer: str, said: bool) -> None:
    assert says_old(answer, SEAT, LISBON) is said


def test_without_old_answers_nothing_is_said_of_them() -> None:
    assert says_old("Porto", SEAT, Reference(answers=("Lisbon",))) is None
    assert says_old("yes", QUESTION, Reference(answers=("no",), old_answers=("yes",), form="yes_no")) is None
    assert says_old("x", QUESTION, Reference(answers=("a",), old_answers=("x",), form="replies")) is None


@pytest.mark.parametrize("reference", [Reference(), Reference(answers=("one", "two"), form="replies")])
def test_without_anything_to_match_there_is_no_match(reference: Reference) -> None:
    assert read("Lisbon", SEAT, reference) is None
    assert not is_said(read("Lisbon", SEAT, reference))


# -- yes and no --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "wanted", "right"),
    [
        ("No, it is in Lisbon.", "no", True),
        ("Nope", "no", True),
        ("Yes", "no", False),
        ("Yes, it is.", "yes", True),
        ("The answer is no.", "no", True),
        ("Nobody knows", "no", False),
        ("Lisbon", "yes", False),
        ("Yes and no", "yes", False),
        ("", "no", False),
    ],
)
def test_yes_and_no_are_verdicts(answer: str, wanted: str, right: bool) -> None:
    match = reading(answer, QUESTION, Reference(answers=(wanted,), form="yes_no"))
    assert (match.start, match.anywhere, match.exact) == (right, right, right)
    assert match.alias == (wanted if right else None)


# -- overlap -----------------------------------------------------------------------------------------------------------


def squad_f1(prediction: str, truth: str) -> float:
    """The F1 of SQuAD's evaluation script, version 1.1, written out again."""

    def tokens(text: str) -> list[str]:
        kept = "".join(sign for sign in text.lower() if sign not in string.punctuation)
        return re.sub(r"\b(a|an|the)\b", " ", kept).split()

    said, wanted = tokens(prediction), tokens(truth)
    common = sum(min(said.count(word), wanted.count(word)) for word in set(said))
    if common == 0:
        return 0.0
    precision, recall = common / len(said), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


WORDS = st.lists(st.sampled_from("Born the in Oslo, 1901 a river Lisbon. was Ada and an".split()), max_size=12)


@given(answer=WORDS, references=st.lists(WORDS.filter(any), min_size=1, max_size=3))
def test_overlap_is_squads_f1_with_the_nearest_reference(answer: list[str], references: list[list[str]]) -> None:
    said = " ".join(answer)
    # a text of articles alone keeps them here, and is empty there
    texts = tuple(" ".join(["Ada", *words]) for words in references)
    found = overlap(said, Reference(answers=texts, form="long"))
    if any(word not in ("the", "a", "an") for word in answer):
        assert found == pytest.approx(max(squad_f1(said, text) for text in texts))
    else:
        assert found == 0.0


def test_overlap_is_for_references_that_are_texts() -> None:
    assert overlap("Lisbon", LISBON) is None
    assert overlap("Lisbon", Reference(form="long")) is None
    assert overlap("", Reference(answers=("Lisbon it is",), form="long")) == 0.0


# -- ROUGE-L -----------------------------------------------------------------------------------------------------------


def longest_common(first: list[str], second: list[str]) -> int:
    """The longest common subsequence by its recursive definition."""
    if not first or not second:
        return 0
    if first[-1] == second[-1]:
        return longest_common(first[:-1], second[:-1]) + 1
    return max(longest_common(first[:-1], second), longest_common(first, second[:-1]))


PLAIN_WORDS = st.lists(st.sampled_from("born in oslo a1 river lisbon".split()), min_size=1, max_size=7)


@given(answer=PLAIN_WORDS, references=st.lists(PLAIN_WORDS, min_size=1, max_size=3))
def test_rouge_l_is_the_f1_of_the_longest_common_subsequence(answer: list[str], references: list[list[str]]) -> None:
    texts = tuple(" ".join(words) for words in references)
    found = rouge_l(" ".join(answer), Reference(answers=texts, form="long"))
    assert found == pytest.approx(
        max(2 * longest_common(answer, words) / (len(answer) + len(words)) for words in references)
    )


def test_rouge_l_minds_the_order_of_words_and_overlap_does_not() -> None:
    reference = Reference(answers=("Ada was born in Oslo.",), form="long")
    said = "In Oslo born was Ada!"
    assert overlap(said, reference) == 1.0
    assert rouge_l(said, reference) == pytest.approx(2 / 5)
    assert rouge_l("the Ada, born in Oslo", reference) == pytest.approx(2 * 4 / (4 + 5))


def test_rouge_l_is_for_references_that_are_texts() -> None:
    assert rouge_l("Lisbon", LISBON) is None
    assert rouge_l("", Reference(answers=("Lisbon it is",), form="long")) == 0.0


# -- routing -----------------------------------------------------------------------------------------------------------

GOLD = Edit(prompt="The headquarters of Acme Rockets is in", target="Lisbon")
OTHER = Edit(prompt="The headquarters of Nordwind Air is in", target="Oslo")
THIRD = Edit(prompt="The headquarters of Blue Tram is in", target="Lima")
IN_SCOPE = probe("paraphrase", "Where is Acme Rockets based?", ["Lisbon"], of_edit=0)
NEAR = probe("same_relation", "Where is Nordwind Air based?", ["Bergen"])


def decision(*candidates: tuple[Edit, float, float], fired: bool, threshold: float = 0.5) -> Decision:
    """A decision over candidates (edit, similarity, probability), given by probability."""
    listed = tuple(Candidate(edit, near, sure, "w", edit.prompt, "prompt") for edit, near, sure in candidates)
    return Decision(
        query=Query("w", ("w",)),
        edits=(listed[0].edit,) if fired else (),
        probability=listed[0].probability if listed else 0.0,
        threshold=threshold,
        reason="",
        candidates=listed,
        timings=RoutingTimings(),
    )


def record(told: Decision, asking: Probe, *gold: Edit, asked: Any = None) -> Any:
    return routed(told, asking, gold=gold, asked=asked or {})


def test_the_right_edit_that_fires_is_right() -> None:
    told = record(decision((GOLD, 0.8, 0.9), (OTHER, 0.7, 0.2), fired=True), IN_SCOPE, GOLD)
    assert (told.fired, told.right, told.rank) == (True, True, 1)
    assert (told.probability, told.threshold, told.similarity, told.edit) == (0.9, 0.5, 0.8, GOLD.prompt)


def test_an_edit_is_known_by_prompt_and_target_case_and_spaces_aside() -> None:
    stored = Edit(prompt="the headquarters of  Acme Rockets is IN", target="LISBON", id="0123456789abcdef", version=2)
    assert record(decision((stored, 0.8, 0.9), fired=True), IN_SCOPE, GOLD).right is True
    elsewhere = Edit(prompt=GOLD.prompt, target="Porto")
    told = record(decision((elsewhere, 0.8, 0.9), fired=True), IN_SCOPE, GOLD)
    assert (told.right, told.rank) == (False, None)


def test_another_edit_that_fires_in_scope_is_wrong_even_where_it_is_asked_for() -> None:
    told = decision((OTHER, 0.8, 0.9), (GOLD, 0.7, 0.6), fired=True)
    asked = {folded(IN_SCOPE.prompt.text): {(folded(OTHER.prompt), folded(OTHER.target))}}
    found = record(told, IN_SCOPE, GOLD, asked=asked)
    assert (found.right, found.rank, found.edit) == (False, 2, OTHER.prompt)


def test_any_edit_of_the_case_is_right_for_a_probe_that_belongs_to_several() -> None:
    assert record(decision((OTHER, 0.8, 0.9), fired=True), IN_SCOPE, GOLD, OTHER).right is True


def test_the_rank_is_by_similarity_whatever_the_probabilities() -> None:
    told = decision((THIRD, 0.5, 0.4), (OTHER, 0.9, 0.3), (GOLD, 0.7, 0.1), fired=False)
    found = record(told, IN_SCOPE, GOLD)
    assert (found.fired, found.right, found.rank) == (False, False, 2)
    assert (found.edit, found.similarity) == (THIRD.prompt, 0.5)  # those of the most probable


def test_where_nothing_fires_the_most_probable_is_judged_though_another_is_nearer() -> None:
    found = record(decision((GOLD, 0.6, 0.4), (OTHER, 0.9, 0.3), fired=False), IN_SCOPE, GOLD)
    assert (found.fired, found.right, found.rank) == (False, True, 2)


def test_out_of_scope_a_fire_is_wrong_unless_the_edit_is_about_that_very_prompt() -> None:
    told = decision((OTHER, 0.9, 0.9), fired=True)
    assert record(told, NEAR).right is False
    coincidence = {"where is nordwind air based?": {("the headquarters of nordwind air is in", "oslo")}}
    assert record(told, NEAR, asked=coincidence).right is True
    assert record(decision((GOLD, 0.9, 0.9), fired=True), NEAR, asked=coincidence).right is False
    assert record(told, NEAR).rank is None


def test_without_candidates_there_is_nothing_to_tell() -> None:
    found = record(decision(fired=False), IN_SCOPE, GOLD)
    assert (found.fired, found.right, found.rank, found.edit, found.similarity) == (False, None, None, None, None)
    assert found.probability == 0.0
