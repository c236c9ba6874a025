"""What part of an input is the question."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memedit.errors import InvalidPromptError
from memedit.queries import MAX_WINDOW_WORDS, conversation_query, is_elliptical, question_query


@dataclass
class Said:
    role: str
    content: str


def conversation(*contents):
    roles = ("user", "assistant")
    return [Said(roles[place % 2], content) for place, content in enumerate(contents)]


@pytest.mark.parametrize(
    ("text", "windows"),
    [
        ("Where is Acme Rockets based?", ("Where is Acme Rockets based?",)),
        ("  The headquarters of\tAcme is in ", ("The headquarters of Acme is in",)),
        (
            "Shayna does this and Yossel goes still and dies. Danielle Darrieux, a native",
            (
                "Danielle Darrieux, a native",
                "Shayna does this and Yossel goes still and dies. Danielle Darrieux, a native",
            ),
        ),
        ("The J. Paul Getty Museum is in", ("The J. Paul Getty Museum is in",)),
        (
            "Where did Dr. Smith and Mrs. Jones of St. Louis meet",
            ("Where did Dr. Smith and Mrs. Jones of St. Louis meet",),
        ),
        ("Question: Who is Jane Doe?\nAnswer:", ("Who is Jane Doe?",)),
        ("Q: 1+1?\nA: 2\nQ: Where is Acme based?\nA:", ("Where is Acme based?",)),
        (
            "Acme builds rockets. Where is it based?",
            ("Acme builds rockets. Where is it based?",),
        ),
        (
            "Where is Rio di San Pantalon? It is located in",
            ("Where is Rio di San Pantalon? It is located in", "Where is Rio di San Pantalon?"),
        ),
        ("首都はどこですか。", ("首都はどこですか。",)),
        ("Question:", ("Question:",)),
    ],
)
def test_windows_of_a_plain_prompt(text, windows):
    query = question_query(text)
    assert query.windows == windows
    assert query.text == windows[0]


def test_question_at_the_end_of_a_long_document():
    document = "The company published its annual figures. " * 200
    query = question_query(f"{document}\n\nWhere is Acme Rockets based?")
    assert query.windows == ("Where is Acme Rockets based?",)


def test_question_in_front_of_a_long_document():
    document = "The company published its annual figures. " * 200
    query = question_query(f"Where is Acme Rockets based?\n\n{document}")
    assert "Where is Acme Rockets based?" in query.windows
    assert all(len(window.split()) <= MAX_WINDOW_WORDS for window in query.windows)


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("Where is it based?", True),
        ("And who is its director?", True),
        ("Are you sure?", True),
        ("why?", True),
        ("Who wrote Hamlet?", False),
        ("where is acme rockets based?", False),
        ("Where is Acme and who owns it?", False),
        ("", False),
    ],
)
def test_ellipsis(sentence, expected):
    assert is_elliptical(sentence) is expected


def test_last_user_turn_stands_alone():
    query = conversation_query(conversation("Where is Acme based?", "In Lisbon.", "Who wrote Hamlet?"))
    assert query.windows == ("Who wrote Hamlet?",)


def test_elliptical_turn_borrows_the_name_not_the_relation():
    query = conversation_query(
        conversation("Who is the director of Acme Rockets?", "Jane Doe.", "And where is it based?")
    )
    assert query.text == "And where is it based?"
    assert query.windows == ("Acme Rockets And where is it based?", "Jane Doe And where is it based?")
    assert not any("director" in window for window in query.windows)


def test_a_challenge_asks_the_earlier_question_again():
    query = conversation_query(conversation("Where is Acme based?", "In Porto.", "Are you sure?"))
    assert "Where is Acme based? Are you sure?" in query.windows


def test_system_turns_and_prefilled_answers_are_not_the_question():
    turns = [Said("system", "Be brief."), Said("user", "Who wrote Hamlet?"), Said("assistant", "Hamlet was")]
    assert conversation_query(turns).windows == ("Who wrote Hamlet?",)


@pytest.mark.parametrize("text", ["", "  \n\t"])
def test_empty_prompt(text):
    with pytest.raises(InvalidPromptError, match="prompt is empty"):
        question_query(text)


def test_conversation_without_a_user():
    with pytest.raises(InvalidPromptError, match="no user turn"):
        conversation_query([Said("system", "Be brief."), Said("assistant", "Hello.")])


@given(st.one_of(st.text(max_size=300), st.text(alphabet='. ?!:\n"AaQ', max_size=60)))
def test_any_text_gives_distinct_bounded_windows_or_a_clear_error(text):
    try:
        query = question_query(text)
    except InvalidPromptError:
        assert not text.split()
        return
    assert text.split()
    assert query.windows
    assert len(set(query.windows)) == len(query.windows) <= 6
    assert all(window == window.strip() and window for window in query.windows)
