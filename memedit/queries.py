"""What part of an input is the question.

A model's input is seldom the bare question an edit was written for: it follows an unrelated sentence, stands at the
end of a long document, is the last turn of a conversation, or leans on the turn before it ("And where is it based?").
:func:`question_query` and :func:`conversation_query` reduce such inputs to a :class:`Query`: a few short windows, any
of which may match an edit; the best match wins.

This file works on plain strings. It knows nothing of tokenizers, chat templates, encoders or edits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from memedit.errors import InvalidPromptError

__all__ = [
    "MAX_WINDOW_WORDS",
    "QUESTION_MARKS",
    "Query",
    "Utterance",
    "conversation_query",
    "is_elliptical",
    "last_sentence",
    "question_query",
]

MAX_WINDOW_WORDS = 100
"""A longer stretch of text is never a window: its embedding says what the document is about, not what is asked."""

QUESTION_MARKS = ("?", "？")
"""What a question ends with."""

MAX_QUESTIONS = 3
"""Of the questions inside a longer text, this many are windows, counted from the end."""

_ABBREVIATIONS = frozenset(
    (
        "mr mrs ms dr prof st jr sr vs etc no vol fig gen col lt sgt capt rev hon inc ltd co corp approx dept est "
        "e.g i.e u.s u.k"
    ).split()
)
_BOUNDARY = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+(?=[\"'“‘(\[]?[A-Z0-9À-ÖØ-Þ\u0400-\u042f¿¡])|(?<=[。！？])|\n+")
_ASKER = re.compile(r"^\s*(?:q|question|query|prompt|user|human|input|instruction)\s*[:：]\s*", re.IGNORECASE)
_ANSWERER = re.compile(r"^\s*(?:a|answer|response|reply|output|assistant|ai|bot)\s*[:：]\s*$", re.IGNORECASE)
_FORM = re.compile(r"^\s*(?:a|answer|response)\s*[:：]\s*\Z", re.IGNORECASE | re.MULTILINE)
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_NAME = re.compile(r"[^\W\d_a-z][\w'’.-]*(?:\s+(?:of|the|de|da|van|von|der|and|&)?\s*[^\W\d_a-z][\w'’.-]*)*")

_PRONOUNS = frozenset(
    "it its they their theirs them he him his she her hers there this that these those one ones".split()
)
_OPENERS = ("and ", "but ", "or ", "so ", "also ", "what about", "how about", "then ")
_EMPTY_WORDS = frozenset(
    (
        "are you sure really why how come is that was true right correct certain what who when where which do does "
        "did the a an and but or so then please tell me explain again no yes ok okay wait hmm huh it this know "
        "think serious seriously"
    ).split()
)


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked, as one or several windows of the input's text.

    Attributes:
        text: The question as a person would quote it; the first window.
        windows: Texts any of which may match an edit, distinct, best guess first.
    """

    text: str
    windows: tuple[str, ...]


class Utterance(Protocol):
    """One turn of a conversation; chat messages and parsed template turns both satisfy it."""

    @property
    def role(self) -> str:
        """``"system"``, ``"user"``, ``"assistant"`` or another role of the template."""

    @property
    def content(self) -> str:
        """What was said."""


def question_query(text: str) -> Query:
    """Find the question in a plain prompt.

    A short prompt is its own only window. In a longer one the windows are its last sentence (joined to the one before
    where it leans on it, as in "Acme builds rockets. Where is it based?"), the last few sentences that end in a
    question mark, and the whole where it is short enough to mean one thing. A prompt that ends in a label to be filled
    in (``Answer:``) asks only what stands before that label: the questions above it are worked examples.

    Args:
        text: What the user typed.

    Raises:
        InvalidPromptError: The text is empty or white space.
    """
    sentences = _sentences(text)
    if not sentences:
        raise InvalidPromptError("the prompt is empty: there is nothing to answer; pass some text")
    last = sentences[-1]
    if _FORM.search(text):
        return _query([last])
    # alone, a sentence that leans on another is like every fact that is worded so ("It is located in")
    leans = len(sentences) > 1 and is_elliptical(last)
    windows = [f"{sentences[-2]} {last}" if leans else last]
    whole = " ".join(sentences)
    if _words(whole) <= MAX_WINDOW_WORDS:
        windows.append(whole)
    questions = [sentence for sentence in sentences[:-1] if sentence.endswith(QUESTION_MARKS)]
    windows.extend(reversed(questions[-MAX_QUESTIONS:]))
    return _query(windows)


def last_sentence(text: str) -> str:
    """The sentence that a text ends with, labels such as ``Question:`` left out; "" where there is none."""
    return (_sentences(text) or [""])[-1]


def conversation_query(turns: Sequence[Utterance]) -> Query:
    """Find the question in a conversation: the last user turn, helped by earlier turns where it is elliptical.

    Where the last turn cannot be understood alone, what it leans on is put in front: the names that occur in the
    nearest earlier turns ("Acme Rockets" for "And who is its director?"), so that the relation asked about earlier does
    not count as asked again; or the whole earlier question, where the last turn only challenges it ("Are you sure?").

    Args:
        turns: The conversation, oldest first. Only user and assistant turns are read.

    Raises:
        InvalidPromptError: There is no user turn with text in it.
    """
    spoken = [turn for turn in turns if turn.role in {"user", "assistant"} and turn.content.strip()]
    asked = next((index for index in range(len(spoken) - 1, -1, -1) if spoken[index].role == "user"), None)
    if asked is None:
        raise InvalidPromptError("the conversation has no user turn: add a message with role 'user'")
    question = question_query(spoken[asked].content)
    if not is_elliptical(question.text) or len(_sentences(spoken[asked].content)) > 1:
        return question
    windows: list[str] = []
    earlier = spoken[:asked]
    last_answer = next((turn.content for turn in reversed(earlier) if turn.role == "assistant"), None)
    last_question = next(
        (turn.content for turn in reversed(earlier) if turn.role == "user" and not is_elliptical(turn.content)),
        None,
    )
    if last_question is not None:
        lead = question_query(last_question).text
        names = _names(lead)
        if not names or not _content_words(question.text):
            windows.append(f"{lead} {question.text}")
        else:
            windows.append(f"{names} {question.text}")
    if last_answer is not None and _content_words(question.text):
        names = _names(_sentences(last_answer)[0])
        if names:
            windows.append(f"{names} {question.text}")
    return Query(text=question.text, windows=tuple(dict.fromkeys(windows)) or question.windows)


def is_elliptical(sentence: str) -> bool:
    """Whether a sentence needs what was said before to be understood.

    True for sentences that open with a connective ("And in 2020?"), refer back with a pronoun and name nothing
    themselves ("Where is it based?"), or have no content of their own ("Are you sure?").
    """
    lowered = sentence.strip().lower()
    if not lowered:
        return False
    words = [word.lower() for word in _WORD.findall(sentence)]
    if lowered.startswith(_OPENERS) or not _content_words(sentence):
        return True
    return any(word in _PRONOUNS for word in words) and not _names(sentence, skip_first=True)


def _query(windows: Sequence[str]) -> Query:
    distinct = tuple(dict.fromkeys(window for window in windows if window))
    return Query(text=distinct[0], windows=distinct)


def _sentences(text: str) -> list[str]:
    """Split into sentences, without labels such as ``Question:`` and a trailing empty ``Answer:``."""
    pieces = [piece.strip() for piece in _BOUNDARY.split(text)]
    sentences: list[str] = []
    for piece in pieces:
        if not piece:
            continue
        if sentences and _ends_in_abbreviation(sentences[-1]):
            sentences[-1] = f"{sentences[-1]} {piece}"
        else:
            sentences.append(piece)
    while len(sentences) > 1 and _ANSWERER.match(sentences[-1]):
        sentences.pop()
    return [" ".join((_ASKER.sub("", sentence) or sentence).split()) for sentence in sentences]


def _ends_in_abbreviation(sentence: str) -> bool:
    if not sentence.endswith("."):
        return False
    word = (sentence[:-1].split() or [""])[-1].lstrip("(\"'“").lower()
    return word in _ABBREVIATIONS or (len(word) == 1 and word.isalpha())


def _words(text: str) -> int:
    return len(text.split())


def _content_words(sentence: str) -> bool:
    return any(word.lower() not in _EMPTY_WORDS for word in _WORD.findall(sentence))


def _names(sentence: str, *, skip_first: bool = True) -> str:
    """The capitalised stretches of a sentence, the word that opens it left out unless it goes on as a name."""
    found = []
    for match in _NAME.finditer(sentence):
        name = match.group().strip(" .,;:!?")
        opens = match.start() == 0
        if opens and skip_first and " " not in name:
            continue
        if opens and skip_first:
            first, rest = name.split(None, 1)
            name = rest if first.lower() in _EMPTY_WORDS or first.lower() in _PRONOUNS else name
        if name and name != "I":
            found.append(name)
    return " ".join(found)
