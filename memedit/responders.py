"""How a prompt is answered once an edit governs it.

A responder turns a row and the edits that govern it into context, spliced into the row where the model that answers
will read it. :class:`InContextResponder` puts the facts before the question and lets the base model itself answer
(IKE, Zheng et al. 2023, Can We Edit Factual Knowledge by In-Context Learning?).

This file knows the words of a prompt, not how an edit was chosen nor how tokens are generated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from memedit.injection import Insertion
from memedit.prompts import CHAT_FORM, RAW_FORM, InContextForm, Neutraliser, context_ids
from memedit.rows import PromptReader, RowPrompt
from memory_store import Edit

__all__ = ["InContextResponder", "Responder"]


class Responder(Protocol):
    """Answers prompts that an edit governs."""

    @property
    def name(self) -> str:
        """What a person calls this responder, in explanations and reports."""

    @property
    def model(self) -> Any | None:
        """The model that answers, of the base model's vocabulary; None for the base model itself."""

    def contexts(self, prompt: RowPrompt, edits: Sequence[Edit]) -> tuple[Insertion, ...]:
        """What is spliced into a governed row.

        Args:
            prompt: The row.
            edits: The edits that govern it, best first.
        """


class InContextResponder:
    """Lets the base model answer with the facts before its eyes.

    Args:
        reader: Reads rows with the model's tokenizer.
        raw_form: The words for a plain prompt.
        chat_form: The words for a templated conversation.
    """

    def __init__(
        self,
        reader: PromptReader,
        *,
        raw_form: InContextForm = RAW_FORM,
        chat_form: InContextForm = CHAT_FORM,
    ) -> None:
        self.raw_form = raw_form
        self.chat_form = chat_form
        self._reader = reader
        self._neutral = Neutraliser.for_tokenizer(reader.tokenizer)

    @property
    def name(self) -> str:
        """``"in-context"``."""
        return "in-context"

    @property
    def model(self) -> None:
        """None: the base model answers."""
        return

    def contexts(self, prompt: RowPrompt, edits: Sequence[Edit]) -> tuple[Insertion, ...]:
        """The facts before a raw prompt, or at the start of the last user turn of a conversation."""
        tokenizer = self._reader.tokenizer
        facts = tuple(reversed(edits))
        if prompt.turns is None or self._reader.chat_format is None:
            segments = self.raw_form.raw_context(facts, neutral=self._neutral)
            position = 1 if prompt.ids[:1] == (tokenizer.bos_token_id,) else 0
        else:
            segments = self.chat_form.chat_context(facts, neutral=self._neutral, chat_format=self._reader.chat_format)
            asked = next(turn for turn in reversed(prompt.turns) if turn.role == "user" and turn.content.strip())
            position = self._reader.token_at(prompt.ids, asked.start)
        return (Insertion(position, tuple(context_ids(segments, tokenizer))),)
