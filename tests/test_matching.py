"""Normalised matching of free answers: what counts, what does not, and laws that hold for any text."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memedit.evaluation import Match, first_sentence, match_answer, normalise_answer, read_yes_no

TRICKY = st.text("aA bt.the',+#1230½é\u0301’`-–\"!?東🚁ßİ\u200d_$%", max_size=14)
"""Texts of signs that change each other's meaning."""
WORDS = st.lists(st.text(string.ascii_letters, min_size=2, max_size=6), min_size=1, max_size=5).map(" ".join)


def squad_normalised(text: str) -> str:
    """The normalisation of SQuAD's evaluation script, told anew; for plain words ours must agree with it."""
    text = "".join(sign for sign in text.lower() if sign not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("The  Beatles.", "beatles"),
        ("“Paris”, France!", "paris france"),
        ("U.S.A.", "usa"),
        ("Washington, D.C.", "washington dc"),
        ("1,234,567 people", "1234567 people"),
        ("3.5", "3.5"),
        ("in 1,2 and 3", "in 1 2 and 3"),
        ("New York-based", "new york based"),
        ("ROCK’N’ROLL", "rocknroll"),
        ("Ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
        ("Straße", "strasse"),
        ("e\u0301te\u0301", "été"),
        ("C++", "c++"),
        ("C# and F#.", "c# and f#"),
        ("£5", "5"),
        ("A", "a"),
        ("The The", "the the"),
        ("🚁", "🚁"),
        ("!!!", "!!!"),
        ("  ", ""),
    ],
)
def test_normalised(text: str, normalised: str) -> None:
    assert normalise_answer(text) == normalised


@pytest.mark.parametrize(
    ("answer", "aliases", "start", "anywhere", "exact"),
    [
        ("Paris", ["Paris"], True, True, True),
        ("paris.", ["Paris"], True, True, True),
        ("Paris, of course", ["Paris"], True, True, False),
        ("It is in Paris.", ["Paris"], False, True, False),
        ("Parisian", ["Paris"], False, False, False),
        ("comparison", ["Paris"], False, False, False),
        ("It is Lutetia.", ["Paris", "Lutetia"], False, True, False),
        ("The United States", ["United States"], True, True, True),
        ("the U.S.", ["US"], True, True, True),
        ("about 1234 men", ["1,234"], False, True, False),
        ("13", ["3"], False, False, False),
        ("3.5 km", ["3"], False, False, False),
        ("C++", ["C"], False, False, False),
        ("written in C#", ["C"], False, False, False),
        ("東京です", ["東京"], True, True, False),
        ("それは東京", ["東京"], False, True, False),
        ("I flew a 🚁today", ["🚁"], False, True, False),
        ("", ["Paris"], False, False, False),
        ("Paris", [], False, False, False),
        ("the", ["Paris"], False, False, False),
        ("anything", ["!!!"], False, False, False),
        ("a Paris b", ["", "  "], False, False, False),
        ("parisparis paris", ["paris"], False, True, False),
    ],
)
def test_match(answer: str, aliases: list[str], start: bool, anywhere: bool, exact: bool) -> None:
    found = match_answer(answer, aliases)
    assert (found.start, found.anywhere, found.exact) == (start, anywhere, exact)
    assert (found.alias in aliases) == anywhere


def test_the_best_alias_is_told() -> None:
    assert match_answer("It is Washington, D.C.", ["Washington", "Washington, D.C.", "DC"]).alias == "Washington, D.C."
    assert match_answer("DC, or Washington", ["Washington", "DC"]) == Match(True, True, False, "DC")


@given(st.text() | TRICKY)
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise_answer(text)
    assert normalise_answer(once) == once


@given(WORDS)
def test_plain_words_are_normalised_as_by_squad(text: str) -> None:
    assert normalise_answer(text) == (squad_normalised(text) or text.lower())


@given(st.text() | TRICKY, st.lists(st.text() | TRICKY, max_size=4))
def test_each_kind_of_match_implies_the_weaker_one(answer: str, aliases: list[str]) -> None:
    found = match_answer(answer, aliases)
    assert found.exact <= found.start <= found.anywhere
    assert (found.alias is not None) == found.anywhere


@given(st.text(), st.lists(st.text(), max_size=3), st.text())
def test_another_alias_never_spoils_a_match(answer: str, aliases: list[str], other: str) -> None:
    few, many = match_answer(answer, aliases), match_answer(answer, [*aliases, other])
    assert (few.exact, few.start, few.anywhere) <= (many.exact, many.start, many.anywhere)


@given((st.text() | TRICKY).filter(lambda text: text.strip()))
def test_an_alias_matches_itself_exactly(alias: str) -> None:
    assert match_answer(alias, [alias]).exact


@given(WORDS, WORDS, WORDS)
def test_an_alias_among_words_is_found(before: str, alias: str, after: str) -> None:
    found = match_answer(f"{before} {alias} {after}", [alias])
    whole, part = normalise_answer(f"{before} {alias} {after}"), normalise_answer(alias)
    assert found.anywhere == (f" {part} " in f" {whole} ")
    assert found.start == f"{whole} ".startswith(f"{part} ")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Paris. It is big.", "Paris."),
        ("Paris", "Paris"),
        ("  It is in St. Louis. Yes.", "It is in St. Louis."),
        ("George W. Bush won. He did.", "George W. Bush won."),
        ("Made in the U.S. Army. Then", "Made in the U.S. Army."),
        ("It costs 3.5 euros. Cheap!", "It costs 3.5 euros."),
        ('"Paris!" She said.', '"Paris!"'),
        ("Paris\nQ: next", "Paris"),
        ("Paris... Or not", "Paris..."),
        ("東京です。大阪ではない。", "東京です。"),
        ("", ""),
    ],
)
def test_first_sentence(text: str, sentence: str) -> None:
    assert first_sentence(text) == sentence


@given(st.text())
def test_the_first_sentence_is_a_beginning(text: str) -> None:
    sentence = first_sentence(text)
    assert text.strip().startswith(sentence)
    assert bool(sentence) == bool(text.strip())


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("Yes", "yes"),
        ("yes, it is.", "yes"),
        ("No.", "no"),
        ("No, it is in Rome. Yes, really.", "no"),
        ("The answer is no.", "no"),
        ("The answer to your question is: Yes!", "yes"),
        ("True", "yes"),
        ("That is false", None),
        ("No doubt about it", None),
        ("Yes and no", None),
        ("Nobody knows", None),
        ("There is no evidence", None),
        ("Maybe", None),
        ("", None),
    ],
)
def test_yes_and_no(answer: str, verdict: str | None) -> None:
    assert read_yes_no(answer) == verdict
