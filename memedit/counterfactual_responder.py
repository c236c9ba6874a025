"""Answers governed prompts with the counterfactual model (SERAC, Mitchell et al. 2022).

Where the base model has the very vocabulary of the counterfactual model, the latter takes the base model's place in the
forward pass of governed rows, so that sampling, beams and streaming are its own. Any other base model is handed a
script: what the counterfactual model says, in the base model's tokens, which the decoding loop is then made to say.

This file knows the two vocabularies, not how an edit was chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memedit.chat_format import Turn
from memedit.counterfactual import CounterfactualModel, Request
from memedit.injection import Context, Insertion, StopTokens
from memedit.queries import is_elliptical
from memedit.recital import Script, Writing
from memedit.routing import Decision
from memedit.rows import PromptReader, RowPrompt

__all__ = ["CounterfactualResponder"]

_REMEMBERED_TOKENS = 16
"""How many tokens of a row a script is fitted to."""

_UNLIMITED_TOKENS = 256
"""How long a script may be where the caller sets no limit that is known."""


class CounterfactualResponder:
    """Lets the counterfactual model answer.

    Args:
        counterfactual: The counterfactual model.
        model: The base model.
        tokenizer: The base model's tokenizer.
    """

    def __init__(self, counterfactual: CounterfactualModel, model: Any, tokenizer: Any) -> None:
        self.counterfactual = counterfactual
        self.shares_vocabulary = _same_vocabulary(counterfactual, model, tokenizer)
        self._reader = PromptReader(tokenizer)
        ends = model.generation_config.eos_token_id
        known = counterfactual.tokenizer.eos_token_id in (ends if isinstance(ends, list) else [ends])
        self._stop = None if known else StopTokens((counterfactual.tokenizer.eos_token_id,), frozenset())

    @property
    def name(self) -> str:
        """``"counterfactual model"`` and which."""
        return f"counterfactual model {self.counterfactual.name}"

    @property
    def model(self) -> Any | None:
        """The counterfactual model where it has the base model's vocabulary; else None, and contexts hold scripts."""
        return self.counterfactual.model if self.shares_vocabulary else None

    def context(self, prompt: RowPrompt, decision: Decision) -> Context:
        """The counterfactual model's own prompt in place of a conversation, or the facts before a plain text.

        Where vocabularies differ, the script that it is to write.
        """
        asked = _asked(prompt)
        if self.shares_vocabulary:
            return self._spliced(prompt, decision, asked)
        request = self._request(prompt, decision, asked)
        reads = self.counterfactual.prompt.ids(
            request.edits, request.query, conversational=request.conversational, begun=request.begun
        )
        return Context((), script=Script(self, tuple(reads), prompt.ids[-_REMEMBERED_TOKENS:]))

    def write(self, scripts: Sequence[Script], writing: Writing) -> list[list[tuple[int, ...]]]:
        """Answer what some scripts read, in tokens of the base model.

        Args:
            scripts: What is to be answered.
            writing: How long, and how to sample.

        Returns:
            For each script ``writing.copies`` answers.
        """
        # one text seldom takes more than twice as many tokens in one vocabulary as in another
        limit = _UNLIMITED_TOKENS if writing.limit is None else 2 * writing.limit + 8
        texts = iter(
            self.counterfactual.complete(
                [script.reads for script in scripts for _ in range(writing.copies)],
                max_new_tokens=limit,
                sampling=writing.sampling,
            )
        )
        return [
            [self._in_base_tokens(script.behind, next(texts).rstrip()) for _ in range(writing.copies)]
            for script in scripts
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """The counterfactual model's token ids as text."""
        return self.counterfactual.prompt.decode(ids)

    def _spliced(self, prompt: RowPrompt, decision: Decision, asked: Turn | None) -> Context:
        if asked is None:
            position = 1 if prompt.ids[:1] == (self._reader.tokenizer.bos_token_id,) else 0
            facts = self.counterfactual.prompt.facts_ids(decision.edits)
            return Context((Insertion(position, tuple(facts)),), self._stop)
        answer = _begun(prompt)
        own = len(prompt.ids) if answer is None else self._reader.token_at(prompt.ids, answer.start)
        request = self._request(prompt, decision, asked)
        read = self.counterfactual.prompt.ids(request.edits, request.query, conversational=True)
        return Context((Insertion(0, tuple(read), replaces=own),), self._stop)

    def _request(self, prompt: RowPrompt, decision: Decision, asked: Turn | None) -> Request:
        if asked is None:
            tokenizer = self._reader.tokenizer
            text = tokenizer.decode(list(prompt.ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
            return Request(edits=decision.edits, query=str(text), conversational=False)
        understood = decision.governing.window if decision.governing is not None else ""
        query = understood if understood and is_elliptical(asked.content) else asked.content
        answer = _begun(prompt)
        return Request(edits=decision.edits, query=query, begun=answer.content if answer is not None else "")

    def _in_base_tokens(self, behind: Sequence[int], text: str) -> tuple[int, ...]:
        """The tokens with which a row goes on to say a text.

        A tokenizer may put a space before whatever it is given, or join its first word with what stands before; of the
        ways to tokenise the text, the first is taken that gives it back behind the row.
        """
        if not text:
            return ()
        wanted = self._reader.decode(behind) + text
        ways = [self._encode(text), self._encode(text.lstrip()), self._behind_a_line(text)]
        for ids in ways:
            if self._reader.decode([*behind, *ids]) == wanted:
                return tuple(ids)
        return tuple(ways[0])

    def _behind_a_line(self, text: str) -> list[int]:
        line = self._encode("\n")
        ids = self._encode(f"\n{text}")
        return ids[len(line) :] if ids[: len(line)] == line else ids

    def _encode(self, text: str) -> list[int]:
        tokenizer = self._reader.tokenizer
        return list(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


def _asked(prompt: RowPrompt) -> Turn | None:
    """The turn that is answered; None for a plain text."""
    turns = reversed(prompt.turns or ())
    return next((turn for turn in turns if turn.role == "user" and turn.content.strip()), None)


def _begun(prompt: RowPrompt) -> Turn | None:
    """The answer that the caller has begun, if any."""
    last = prompt.turns[-1] if prompt.turns else None
    return last if last is not None and last.role == "assistant" else None


def _same_vocabulary(counterfactual: CounterfactualModel, model: Any, tokenizer: Any) -> bool:
    """Whether every token id means the same to both models."""
    own = counterfactual.tokenizer

    def added(one: Any) -> dict[int, tuple[str, bool]]:
        return {place: (str(token), token.special) for place, token in one.added_tokens_decoder.items()}

    return (
        model.config.get_text_config().vocab_size == counterfactual.model.config.get_text_config().vocab_size
        and tokenizer.get_vocab() == own.get_vocab()
        and added(tokenizer) == added(own)
    )
