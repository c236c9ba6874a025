"""In what words a model sees the edit that governs a prompt: in-context editing (IKE, Zheng et al. 2023).

A form turns facts into segments of text that are spliced in front of what the caller wrote: before a raw prompt, or in
the last user turn of a templated one. The caller's own tokens stay as they are. Which form is the default was decided
by measurement: ``benchmarks/prompt_forms.py`` prints the figures.

This file knows nothing of memories, routing or generation.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from memedit.chat_format import ChatFormat
from memedit.demonstrations import Demonstration
from memedit.queries import QUESTION_MARKS, last_sentence
from memory_store.records import MAX_TEXT_CHARACTERS

__all__ = [
    "CHAT_FORM",
    "IKE_FORM",
    "MAX_FACT_CHARACTERS",
    "MAX_REPEATED_CHARACTERS",
    "PLAIN_FORM",
    "RAW_FORM",
    "Fact",
    "InContextForm",
    "Neutraliser",
    "Segment",
    "asks_yes_or_no",
    "context_ids",
    "neutralise",
    "statement",
]

MAX_FACT_CHARACTERS = MAX_TEXT_CHARACTERS
"""A longer text is cut before it enters a model's context; the memory takes none that is longer."""

MAX_REPEATED_CHARACTERS = 400
"""A longer question is not repeated: it would cost more than the fact."""

_END_OF_DEMONSTRATION = "\n\n"
"""What closes a demonstration in a raw prompt."""

_VERB_FIRST = re.compile(
    r"\s*(?:is|are|am|was|were|do|does|did|has|have|had|can|could|will|would|shall|should|may|might|must)(?:n['’]t)?\b",
    re.IGNORECASE,
)

_POLITE = re.compile(
    r"\s*(?:(?:do|would) you (?:happen to )?know"
    r"|(?:can|could|would|will) you (?:please |kindly )?(?:tell|say|name|give|remind|inform|help|explain)"
    r"|(?:may|might|can|could) i (?:please )?(?:ask|know|have))\b(?!.*\b(?:if|whether)\b)",
    re.IGNORECASE | re.DOTALL,
)
"""Openings that ask with a verb first, and not for yes or no; unless they go on to ask whether."""


class Fact(Protocol):
    """What a form needs of an edit."""

    @property
    def prompt(self) -> str:
        """The words that the target continues, or the question that it answers."""

    @property
    def target(self) -> str:
        """What the model is to say."""

    @property
    def subject(self) -> str | None:
        """What the fact is about, where that is known."""

    @property
    def aliases(self) -> Sequence[str]:
        """Other names of the subject."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a context.

    Attributes:
        text: The words.
        markup: Whether special tokens in it are meant as such. Only a template's own markup is; a fact never is.
    """

    text: str
    markup: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InContextForm:
    """One way of putting facts before a prompt.

    A raw prompt sees lines, each fact behind ``fact_label``, the caller's prompt behind ``prompt_label``. A
    conversation sees the same lines inside the last user turn. Where the form repeats the question, the fact's prompt
    and then the very question have been answered with the target: in earlier turns of a conversation; in lines before a
    raw prompt, which are labelled as the caller's own where that is a question, and as facts where it is to be gone on
    with.

    Attributes:
        name: How the form is called in results.
        fact_label: What a fact's line begins with.
        prompt_label: What is put straight before the caller's prompt. It ends with a line's end: the caller's tokens
            were made to begin a text, not to follow a space.
        repetitions: How often the question in the caller's own words, answered, follows the fact. Facts are seldom
            worded as they are asked for; a small model continues what it has seen word for word. It also makes the
            model obey a fact that has nothing to do with the question, so it is left out where the question does not
            name the fact's subject, where the target cannot be the answer (`asks_yes_or_no`), and where the question is
            long.
        alike: The similarity of question and edit from which on the question is repeated.
        demonstrations: How many demonstrations it wants.
        stop: Strings at which a raw prompt's continuation is to be cut, because the form makes the model go on with
            them.
    """

    name: str
    fact_label: str = ""
    prompt_label: str = ""
    repetitions: int = 0
    alike: float = -1.0
    demonstrations: int = 0
    stop: tuple[str, ...] = ()

    def raw_context(
        self,
        facts: Sequence[Fact],
        *,
        question: str = "",
        neutral: Neutraliser,
        demonstrations: Sequence[Demonstration] = (),
    ) -> tuple[Segment, ...]:
        """What is spliced before a raw prompt.

        Args:
            facts: The facts in scope, the most relevant last.
            question: The part of the prompt that asks, such as its last sentence; empty: nothing can be repeated.
            neutral: The neutraliser of the model's tokenizer.
            demonstrations: Demonstrations to begin with, the most relevant last.

        Returns:
            The segments, in order.
        """
        shown = "".join(
            self._lines([(neutral(fact), neutral(told))], self.fact_label)
            + f"{statement(neutral(asked), neutral(answer))}{_END_OF_DEMONSTRATION}"
            for fact, told, asked, answer in _shown(demonstrations)
        )
        if not facts:
            return ()
        repeated = question if self.repeats(facts[-1], question) else ""
        label = self.prompt_label if repeated.rstrip().endswith(QUESTION_MARKS) else self.fact_label
        return (Segment(shown + self._lines(self._pairs(facts, repeated, neutral), label)),)

    def chat_context(
        self,
        facts: Sequence[Fact],
        *,
        question: str = "",
        understood: str = "",
        neutral: Neutraliser,
        chat_format: ChatFormat,
        demonstrations: Sequence[Demonstration] = (),
    ) -> tuple[Segment, ...]:
        """What is spliced into the last user turn's content: at its start or, answered turns, before its question.

        Args:
            facts: The facts in scope, the most relevant last.
            question: What the user asks: the whole turn or, where that is long, the question in it; empty: nothing can
                be repeated.
            understood: The question with what it leans on, such as a name from an earlier turn ("Acme Rockets And where
                is it based?"); the subject counts as named where it is named here.
            neutral: The neutraliser of the model's tokenizer.
            chat_format: The template's markup.
            demonstrations: Demonstrations to begin with, the most relevant last.

        Returns:
            The segments, in order; those of the template's own markup are marked as such.
        """
        turns = [
            (self._lines([(neutral(fact), neutral(told))], self.fact_label) + neutral(asked), neutral(answer))
            for fact, told, asked, answer in _shown(demonstrations)
        ]
        if not facts:
            return ()
        as_turns = self.repeats(facts[-1], question, understood)
        pairs = self._pairs(facts, question if as_turns else "", neutral)
        inside = () if as_turns else (Segment(self._lines(pairs, self.fact_label)),)
        earlier = [*turns, *pairs] if as_turns else turns
        return (*(segment for turn in earlier for segment in _earlier_turn(*turn, chat_format)), *inside)

    def repeats(self, fact: Fact, question: str, understood: str = "") -> bool:
        """Whether the form repeats a question, answered, behind a fact.

        Args:
            fact: The most relevant fact.
            question: What would be repeated; empty: nothing can be.
            understood: The question with what it leans on.
        """
        short = 0 < len(question.strip()) <= MAX_REPEATED_CHARACTERS
        wanted = self.repetitions > 0 and short and _names_subject(f"{question} {understood}", fact)
        return wanted and not asks_yes_or_no(question, fact.target)

    def _pairs(self, facts: Sequence[Fact], repeated: str, neutral: Neutraliser) -> list[tuple[str, str]]:
        """Prompts and their answers, harmless: each fact, then the question that is repeated, if one is."""
        pairs = [(neutral(fact.prompt), neutral(fact.target)) for fact in facts]
        if repeated:
            pairs += [(neutral(repeated), neutral(facts[-1].target))] * self.repetitions
        return pairs

    def _lines(self, pairs: Sequence[tuple[str, str]], label: str) -> str:
        """The pairs as labelled lines, and the label of the prompt that follows them."""
        return "".join(f"{label}{statement(*pair)}\n" for pair in pairs) + self.prompt_label


PLAIN_FORM = InContextForm(name="plain")
"""The fact alone, as a statement."""

IKE_FORM = InContextForm(
    name="ike",
    fact_label="New Fact: ",
    prompt_label="Prompt:\n",
    demonstrations=3,
    stop=("\n",),
)
"""Labelled fields after copy, update and retain demonstrations, as the paper has it."""

RAW_FORM = InContextForm(
    name="repeat",
    fact_label="New Fact: ",
    prompt_label="Prompt:\n",
    repetitions=1,
    alike=0.6,
    stop=("\n",),
)
"""The default for raw prompts."""

CHAT_FORM = InContextForm(
    name="repeat-turns",
    fact_label="New Fact: ",
    prompt_label="Prompt:\n",
    repetitions=2,
    alike=0.81,
)
"""The default for conversations. A question less like the edit than ``alike`` may well be governed by it, but is seldom
answered by its bare target: it asks with yes or no, the other way round, or for something that follows."""


def statement(prompt: str, target: str) -> str:
    """A fact as one statement: prompt (or question) and target, closed by a full stop."""
    return f"{prompt} {_sentence(target)}"


def asks_yes_or_no(question: str, target: str) -> bool:
    """Whether a question's answer can hardly be the target: it names the target itself, or opens with an English verb.

    Args:
        question: What is asked, perhaps behind other sentences: the last one counts.
        target: The fact's answer.

    Returns:
        True for "Is Acme based in Lisbon?" and "Was it founded in Rome?"; the second kind is known in English alone.
        "Can you tell me where Acme is based?" asks for no yes or no.
    """
    if not question.rstrip().endswith(QUESTION_MARKS):
        return False
    if target.strip() and target.strip().casefold() in question.casefold():
        return True
    asked = last_sentence(question)
    return _VERB_FIRST.match(asked) is not None and _POLITE.match(asked) is None


def context_ids(segments: Iterable[Segment], tokenizer: Any) -> list[int]:
    """The token ids of a context; special tokens are parsed in markup alone.

    Args:
        segments: The context.
        tokenizer: A ``transformers`` tokenizer.

    Returns:
        Token ids, without begin-of-text token.
    """
    ids: list[int] = []
    for segment in segments:
        encoded = tokenizer(segment.text, add_special_tokens=False, split_special_tokens=not segment.markup)
        ids.extend(encoded["input_ids"])
    return ids


# Markers of common chat templates, broken up also where the tokenizer at hand does not know them: a memory may serve
# another model tomorrow. <|...|> in any script of brackets, and the markers of Llama 2, Mistral and Gemma.
_GENERIC_MARKERS = (
    r"<\|\w[\w\- ]{0,60}\|>",
    r"<｜[^<>｜]{1,60}｜>",
    r"\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]",
    r"<</?SYS>>",
    r"<(?:start|end)_of_turn>",
)
# Labels that a form puts before its fields, and the role names of plain-text conversations.
_LABEL = re.compile(
    r"\b((?:New )?Fact|Prompt|Question|Answer|System|User|Assistant|Human|Instruction|Response|Q|A):",
    re.IGNORECASE,
)
_WHITE_SPACE = re.compile(r"\s+")
_KEPT_FORMAT_CHARACTERS = "\u200c\u200d"  # joiners that Persian, Indic scripts and emoji need


@dataclass(frozen=True, slots=True)
class Neutraliser:
    """Makes an edit's text unable to act as markup or as another field of a prompt, for one tokenizer.

    Text without markup comes through unchanged, except that white space is folded to single spaces.

    Attributes:
        markup: Finds what has to be broken up.
        limit: The most characters that are let through.
    """

    markup: re.Pattern[str]
    limit: int = MAX_FACT_CHARACTERS

    @classmethod
    def for_tokenizer(cls, tokenizer: Any, *, limit: int = MAX_FACT_CHARACTERS) -> Neutraliser:
        """The neutraliser that knows a tokenizer's special and added tokens and its chat template's markers."""
        known = set(tokenizer.all_special_tokens)
        for token in tokenizer.added_tokens_decoder.values():
            text = str(token)
            if token.special or _looks_like_markup(text):
                known.add(text.strip())
        chat_format = ChatFormat.from_tokenizer(tokenizer)
        known.update(chat_format.markers if chat_format is not None else ())
        # a single character cannot be broken up: some tokenizers pad with a plain '!'
        breakable = sorted((token for token in known if len(token) > 1), key=lambda token: (-len(token), token))
        literal = [re.escape(token) for token in breakable]
        return cls(markup=re.compile("|".join([*literal, *_GENERIC_MARKERS])), limit=limit)

    def __call__(self, text: str) -> str:
        """The text on one line, without control characters, with markup and field labels broken up."""
        folded = _WHITE_SPACE.sub(" ", text)
        visible = "".join(character for character in folded if _is_kept(character)).strip()
        if len(visible) > self.limit:
            visible = visible[: self.limit].rstrip() + "…"
        while (broken := self.markup.sub(_break_up, visible)) != visible:
            visible = broken
        return _LABEL.sub(r"\1 :", visible)


def neutralise(text: str, tokenizer: Any) -> str:
    """The text as `Neutraliser` leaves it; for one text, where no neutraliser is at hand."""
    return Neutraliser.for_tokenizer(tokenizer)(text)


def _looks_like_markup(token: str) -> bool:
    return bool(re.fullmatch(r"\s*(?:<.+>|\[.+\])\s*", token, re.DOTALL))


def _is_kept(character: str) -> bool:
    category = unicodedata.category(character)
    return category not in {"Cc", "Cf", "Cs", "Zl", "Zp"} or character in _KEPT_FORMAT_CHARACTERS


def _break_up(match: re.Match[str]) -> str:
    return f"{match[0][0]} {match[0][1:]}"


def _names_subject(question: str, fact: Fact) -> bool:
    """Whether a question names what the fact is about; taken as given where the subject is not known."""
    names = [name.casefold() for name in (fact.subject, *fact.aliases) if name]
    return not names or any(name in question.casefold() for name in names)


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?", "。", "！", "？")) else f"{text}."


def _shown(demonstrations: Sequence[Demonstration]) -> Iterator[tuple[str, str, str, str]]:
    """Each demonstration's fact, and what is asked and answered; kinds in turn: retain, copy, update."""
    for place, one in enumerate(demonstrations):
        asked, answer = (
            (one.unrelated, one.unrelated_answer),
            (one.prompt, one.target),
            (one.paraphrase, one.target),
        )[place % 3]
        yield one.prompt, one.target, asked, answer


def _earlier_turn(asked: str, answer: str, chat_format: ChatFormat) -> tuple[Segment, ...]:
    """A question and its answer, up to where the next user's content begins."""
    return (
        Segment(asked),
        Segment(chat_format.user_to_assistant, markup=True),
        Segment(_sentence(answer)),
        Segment(chat_format.assistant_to_user, markup=True),
    )
