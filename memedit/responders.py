"""How a prompt is answered once an edit governs it.

A responder turns a row and the edits that govern it into context, spliced into the row where the model that answers
will read it. :class:`InContextResponder` puts the facts before the question and lets the base model itself answer
(IKE, Zheng et al. 2023, Can We Edit Factual Knowledge by In-Context Learning?).

This file knows the words of a prompt, not how an edit was chosen nor how tokens are generated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from memedit.chat_format import ChatFormat
from memedit.demonstrations import Demonstration, DemonstrationSet
from memedit.errors import ConfigError
from memedit.injection import Context, Insertion
from memedit.prompts import (
    CHAT_FORM,
    MAX_REPEATED_CHARACTERS,
    RAW_FORM,
    InContextForm,
    Neutraliser,
    Segment,
    context_ids,
)
from memedit.routing import Decision
from memedit.rows import PromptReader, RowPrompt

__all__ = ["ConfirmingResponder", "InContextResponder", "Responder", "confirmed"]


class Responder(Protocol):
    """Answers prompts that an edit governs."""

    @property
    def name(self) -> str:
        """What a person calls this responder, in explanations and reports."""

    @property
    def model(self) -> Any | None:
        """The model that answers, of the base model's vocabulary; None for the base model itself."""

    def context(self, prompt: RowPrompt, decision: Decision) -> Context:
        """What a governed row is answered from.

        Args:
            prompt: The row.
            decision: With the edits that govern the row, best first.
        """


@runtime_checkable
class ConfirmingResponder(Responder, Protocol):
    """A responder that reads query and edit together first, and may find that they do not belong together."""

    def confirm(self, prompts: Sequence[RowPrompt], decisions: Sequence[Decision]) -> list[Decision]:
        """The decisions as they stand after that reading.

        Where an edit does not answer the query after all, no edit governs it, and the base model answers. A row that
        was not governed never becomes so.

        Args:
            prompts: The rows.
            decisions: The router's, one a row.
        """


def confirmed(responder: Responder, prompts: Sequence[RowPrompt], decisions: Sequence[Decision]) -> list[Decision]:
    """Decisions as a responder confirms them; the router's own where it has no second opinion.

    Args:
        responder: What answers governed rows.
        prompts: The rows.
        decisions: The router's, one a row.
    """
    return responder.confirm(prompts, decisions) if isinstance(responder, ConfirmingResponder) else list(decisions)


class InContextResponder:
    """Lets the base model answer with the facts before its eyes.

    A small model obeys a fact best when it has seen it answer the very question. That also makes it obey a fact that
    was matched wrongly, or that the answer only follows from; so a form says how like the edit a question must be for
    it to be repeated.

    Args:
        tokenizer: The model's tokenizer.
        raw_form: The words for a plain prompt.
        chat_form: The words for a templated conversation.
        demonstrations: Where the demonstrations come from, for a form that wants some.

    Raises:
        ConfigError: A form wants demonstrations and none are given.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        raw_form: InContextForm = RAW_FORM,
        chat_form: InContextForm = CHAT_FORM,
        demonstrations: DemonstrationSet | None = None,
    ) -> None:
        for form in (raw_form, chat_form):
            if form.demonstrations and demonstrations is None:
                raise ConfigError(
                    f"the form {form.name!r} wants {form.demonstrations} demonstrations; pass "
                    "demonstrations=DemonstrationSet(default_demonstrations(), encoder=...), or a set of your own"
                )
        self.raw_form = raw_form
        self.chat_form = chat_form
        self.demonstrations = demonstrations
        self._reader = PromptReader(tokenizer)
        self._neutral = Neutraliser.for_tokenizer(tokenizer)

    @property
    def name(self) -> str:
        """``"in-context"``."""
        return "in-context"

    @property
    def model(self) -> None:
        """None: the base model answers."""
        return

    def context(self, prompt: RowPrompt, decision: Decision) -> Context:
        """The facts before a raw prompt, or before the last user turn's words in a conversation.

        Answered turns stand right before the question, behind what else that turn says.
        """
        chat_format = self._reader.chat_format
        if prompt.turns is None or chat_format is None:
            return self._before_text(prompt, decision)
        return self._before_turn(prompt, decision, chat_format)

    def _before_text(self, prompt: RowPrompt, decision: Decision) -> Context:
        question = decision.query.text if _similarity(decision) >= self.raw_form.alike else ""
        segments = self.raw_form.raw_context(
            _facts(decision),
            question=question,
            neutral=self._neutral,
            demonstrations=self._demonstrated(self.raw_form, decision),
        )
        begins = prompt.ids[:1] == (self._reader.tokenizer.bos_token_id,)
        stop = self._reader.stop_tokens(self.raw_form.stop) if self.raw_form.stop else None
        return Context(self._insertions(1 if begins else 0, segments), stop)

    def _before_turn(self, prompt: RowPrompt, decision: Decision, chat_format: ChatFormat) -> Context:
        turn = next(turn for turn in reversed(prompt.turns or ()) if turn.role == "user" and turn.content.strip())
        facts = _facts(decision)
        understood = decision.governing.window if decision.governing is not None else ""
        behind = _behind(turn.content, decision.query.text, understood)
        asked = turn.content if not behind and len(turn.content) <= MAX_REPEATED_CHARACTERS else decision.query.text
        question = asked if _similarity(decision) >= self.chat_form.alike else ""
        segments = self.chat_form.chat_context(
            facts,
            question=question,
            understood=understood,
            neutral=self._neutral,
            chat_format=chat_format,
            demonstrations=self._demonstrated(self.chat_form, decision),
        )
        # answered turns go right before the question, so that what stands before it ends with them, not behind them
        between = behind if self.chat_form.repeats(facts[-1], question, understood) else 0
        position = self._reader.token_at(prompt.ids, turn.start + between)
        return Context(self._insertions(position, segments))

    def _demonstrated(self, form: InContextForm, decision: Decision) -> tuple[Demonstration, ...]:
        """The demonstrations nearest to the question, the nearest last, as many as the form wants."""
        if self.demonstrations is None or not form.demonstrations:
            return ()
        return tuple(reversed(self.demonstrations.nearest(decision.query.text, form.demonstrations)))

    def _insertions(self, position: int, segments: tuple[Segment, ...]) -> tuple[Insertion, ...]:
        return (Insertion(position, tuple(context_ids(segments, self._reader.tokenizer))),)


def _facts(decision: Decision) -> tuple[Any, ...]:
    """The edits as a form wants them: the most relevant last."""
    return tuple(reversed(decision.edits))


def _behind(content: str, question: str, understood: str) -> int:
    """Where in a turn the question begins that it ends with; 0 where it is all of the turn, or not what was matched."""
    content = content.rstrip()
    if understood != question or not content.endswith(question) or not content[: -len(question)].strip():
        return 0
    return len(content) - len(question)


def _similarity(decision: Decision) -> float:
    """How like the question is to the edit that governs it."""
    return decision.governing.similarity if decision.governing is not None else -1.0
