"""Whether a free answer says what it should: normalised matching against every alias, and reading yes and no.

The normalisation is that of SQuAD's evaluation script (Rajpurkar et al. 2016, *SQuAD: 100,000+ Questions for Machine
Comprehension of Text*, section 5: case, articles, punctuation and white space are set aside), made fit for matching
inside a text: Unicode is composed (NFKC) and case-folded, punctuation between words becomes a space instead of joining
them, decimal points stay, separators of thousands go, and ``C++`` and ``C#`` stay apart from ``C``. Pure functions over
strings; this file knows nothing of cases or models.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

_ARTICLES = frozenset({"a", "an", "the"})
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_JOINED = re.compile(r"['’ʼ`]|(?<=\b[^\W\d_])\.")
_DECIMAL_POINT = re.compile(r"(?<=\d)\.(?=\d)")
_SUFFIX_SIGNS = re.compile(r"(?<=[^\W_])[+#]+(?!\w)")
_SENTENCE_END = re.compile(r"[.!?]+[\"'”’)\]]*(?=\s+[\"'“‘(\[]*[^\W_a-z])|[。！？]+[」』”]*|\n")
_ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof st jr sr mt ft no inc ltd co corp gen col lt sgt gov sen rep vs eg ie".split()
)
_YES = frozenset({"yes", "yeah", "yep", "correct", "true"})
_NO = frozenset({"no", "nope", "incorrect", "false"})
_NO_VERDICT = re.compile(r"no (?:doubt|question|wonder|idea|matter|one)\b")
_STATED = re.compile(r"\banswer(?: to (?:that|this|your|question)+(?: question)?)? is (\w+)")


@dataclass(frozen=True, slots=True)
class Match:
    """How an answer matches a list of aliases. ``exact`` implies ``start``, which implies ``anywhere``.

    Attributes:
        start: It begins with one of them, ending at a word's end.
        anywhere: One of them stands in it, from word to word.
        exact: It is one of them and nothing else.
        alias: The alias that matched best, as given; None where none did.
    """

    start: bool = False
    anywhere: bool = False
    exact: bool = False
    alias: str | None = None


def match_answer(answer: str, aliases: Sequence[str]) -> Match:
    """Matches a free answer against every alias; the best match counts, and the longest alias among equals."""
    said = normalise_answer(answer)
    found = [_match_one(said, alias) for alias in aliases]
    return max(
        (match for match in found if match.anywhere),
        key=lambda match: (match.exact, match.start, len(match.alias or "")),
        default=Match(),
    )


def normalise_answer(text: str) -> str:
    """Returns a text in the form in which answers are compared: words with single spaces between them.

    Articles are left out unless nothing else is there. A text of punctuation alone stays as it is.
    """
    plain = _composed(text)
    # composed again: what stood on either side of a sign that went may compose
    words = _composed(_without_punctuation(plain)).split()
    kept = [word for word in words if word not in _ARTICLES]
    return " ".join(kept or words) or " ".join(plain.split())


def first_sentence(text: str) -> str:
    """Returns the first sentence or line of an answer; initials, titles and decimals do not end one."""
    text = text.strip()
    for end in _SENTENCE_END.finditer(text):
        if not (end[0].startswith(".") and _is_abbreviation(text[: end.start()])):
            return text[: end.end()].strip()
    return text


def read_yes_no(answer: str) -> Literal["yes", "no"] | None:
    """Reads a free answer as yes or no.

    The first word of the answer decides, or a statement of the form "the answer is no" in the first sentence.

    Returns:
        The verdict; None where there is none, or both stand in the first sentence.
    """
    said = normalise_answer(first_sentence(answer))
    words = said.split()
    if not words or _NO_VERDICT.match(said) or {"yes", "no"} <= set(words):
        return None
    stated = _STATED.search(said)
    for word in (words[0], stated[1] if stated else ""):
        if word in _YES:
            return "yes"
        if word in _NO:
            return "no"
    return None


def _match_one(said: str, alias: str) -> Match:
    wanted = normalise_answer(alias)
    if not wanted:
        return Match()
    place = _find(said, wanted, 0)
    if place < 0:
        return Match()
    return Match(start=place == 0, anywhere=True, exact=said == wanted, alias=alias)


def _find(said: str, wanted: str, start: int) -> int:
    """The first place where words begin and end with what is wanted, -1 where there is none."""
    while (place := said.find(wanted, start)) >= 0:
        if _parts(said, place) and _parts(said, place + len(wanted)):
            return place
        start = place + 1
    return -1


def _parts(text: str, place: int) -> bool:
    """Whether a word may begin or end at a place: at either end, at a space, and where a script knows no spaces."""
    if place in (0, len(text)):
        return True
    beside = text[place - 1 : place + 1]
    return any(sign == " " or _stands_alone(sign) for sign in beside)


def _stands_alone(sign: str) -> bool:
    """Whether a sign is a word by itself, or of a script written without spaces between words."""
    if unicodedata.category(sign) == "So":
        return True
    return any(
        first <= sign <= last
        for first, last in (("\u0e00", "\u0eff"), ("\u1000", "\u109f"), ("\u1780", "\u17ff"), ("\u3040", "\u30ff"))
    ) or any(
        first <= sign <= last
        for first, last in (("\u3400", "\u9fff"), ("\uac00", "\ud7af"), ("\U00020000", "\U0003ffff"))
    )


def _composed(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _without_punctuation(text: str) -> str:
    text = _JOINED.sub("", _THOUSANDS.sub("", text))
    kept = {
        found
        for pattern in (_DECIMAL_POINT, _SUFFIX_SIGNS)
        for one in pattern.finditer(text)
        for found in range(*one.span())
    }
    return "".join(sign if place in kept or not _is_punctuation(sign) else " " for place, sign in enumerate(text))


def _is_punctuation(sign: str) -> bool:
    """Whether a sign is set aside: punctuation, currency, and the symbols among SQuAD's ASCII punctuation."""
    category = unicodedata.category(sign)
    return category.startswith("P") or category == "Sc" or (sign.isascii() and category.startswith("S"))


def _is_abbreviation(before: str) -> bool:
    word = re.split(r"[\s(\[\"']", before)[-1].replace(".", "").casefold()
    return len(word) == 1 or word in _ABBREVIATIONS or re.fullmatch(r"(?:\w\.)+\w", before.split()[-1]) is not None
