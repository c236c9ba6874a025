"""Answers governed prompts with the counterfactual model (SERAC, Mitchell et al. 2022).

Where the base model has the very vocabulary of the counterfactual model, the latter takes the base model's place in the
forward pass of governed rows, so that sampling, beams and streaming are its own. Any other base model is handed a
script: what the counterfactual model says, in the base model's tokens, which the decoding loop is then made to say.

This file knows the two vocabularies, not how an edit was chosen.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from memedit.chat_format import Turn
from memedit.counterfactual import CounterfactualModel, Request
from memedit.errors import ConfigError
from memedit.injection import Context, Insertion, StopTokens
from memedit.queries import is_elliptical
from memedit.quotations import Quotation
from memedit.recital import Script, Writing
from memedit.routing import Decision
from memedit.rows import PromptReader, RowPrompt

__all__ = ["CounterfactualResponder"]

_REMEMBERED_TOKENS = 16
"""How many tokens of a row a script is fitted to."""

_UNLIMITED_TOKENS = 256
"""How long a script may be where the caller sets no limit that is known."""

_REMEMBERED_REFUSALS = 512
"""How many probabilities of refusals are kept: `ask` decides, then generates, and a prompt is read once for both."""


class CounterfactualResponder:
    """Lets the counterfactual model answer.

    Args:
        counterfactual: The counterfactual model.
        model: The base model.
        tokenizer: The base model's tokenizer.
        refuse_from: The probability, that the edits do not answer a query, from which on they are taken not to govern
            it; None to answer whatever the router finds governed. It mends a router that goes by similarity; the
            trained scope classifier knows better.

    Raises:
        ConfigError: ``refuse_from`` is no probability.
    """

    def __init__(
        self, counterfactual: CounterfactualModel, model: Any, tokenizer: Any, *, refuse_from: float | None = None
    ) -> None:
        if refuse_from is not None and not 0.0 <= refuse_from <= 1.0:
            raise ConfigError(f"refuse_from must be a probability, from 0 to 1, or None, given {refuse_from}")
        self.refuse_from = refuse_from
        self.counterfactual = counterfactual
        self.shares_vocabulary = _same_vocabulary(counterfactual, model, tokenizer)
        self._reader = PromptReader(tokenizer)
        ends = model.generation_config.eos_token_id
        known = counterfactual.tokenizer.eos_token_id in (ends if isinstance(ends, list) else [ends])
        self._refusals: dict[Request, float] = {}
        self._stop = None if known else StopTokens((counterfactual.tokenizer.eos_token_id,), frozenset())

    @property
    def name(self) -> str:
        """``"counterfactual model"`` and which."""
        return f"counterfactual model {self.counterfactual.name}"

    @property
    def model(self) -> Any | None:
        """The counterfactual model where it has the base model's vocabulary; else None, and contexts hold scripts."""
        return self.counterfactual.model if self.shares_vocabulary else None

    def confirm(self, prompts: Sequence[RowPrompt], decisions: Sequence[Decision]) -> list[Decision]:
        """The counterfactual model reads query and edits: where they do not answer the query, no edit governs it."""
        if self.refuse_from is None:
            return list(decisions)
        started = time.perf_counter()
        requests = {
            place: replace(self._request(prompt, decision, _asked(prompt)), begun="")
            for place, (prompt, decision) in enumerate(zip(prompts, decisions, strict=True))
            if decision.governed
        }
        known = self._refusals  # other threads may put another in its place meanwhile, and never change this one
        new = [one for one in dict.fromkeys(requests.values()) if one not in known]
        known = {**known, **(dict(zip(new, self.counterfactual.refusals(new), strict=True)) if new else {})}
        refusals = {place: known[one] for place, one in requests.items()}
        self._refusals = dict(list(known.items())[-_REMEMBERED_REFUSALS:])
        seconds = time.perf_counter() - started
        return [
            self._confirmed(decision, refusals[place], seconds) if place in refusals else decision
            for place, decision in enumerate(decisions)
        ]

    def _confirmed(self, decision: Decision, refusal: float, seconds: float) -> Decision:
        """The decision with what the reading cost; where the edits do not answer the query, with none."""
        decision = replace(decision, timings=replace(decision.timings, confirm=seconds))
        if self.refuse_from is None or refusal < self.refuse_from:
            return decision
        return replace(
            decision,
            edits=(),
            reason=f"{decision.reason}; but the counterfactual model, which would have to answer, finds that the edit "
            f"does not answer it (probability {refusal:.3f})",
        )

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
        script = Script(
            self,
            tuple(reads),
            prompt.ids[-_REMEMBERED_TOKENS:],
            may_be_empty=bool(request.begun),
            quotations=self._quotations(request),
        )
        return Context((), script=script)

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
        found: dict[int, list[tuple[int, ...]]] = {}
        for may_be_empty in (False, True):
            places = [place for place, script in enumerate(scripts) if script.may_be_empty == may_be_empty]
            texts = iter(
                self.counterfactual.complete(
                    [scripts[place].reads for place in places for _ in range(writing.copies)],
                    max_new_tokens=limit,
                    may_be_empty=may_be_empty,
                    quotations=[scripts[place].quotations for place in places for _ in range(writing.copies)],
                    sampling=writing.sampling,
                )
            )
            for place in places:
                behind = scripts[place].behind
                found[place] = [self._in_base_tokens(behind, next(texts).rstrip()) for _ in range(writing.copies)]
        return [found[place] for place in range(len(scripts))]

    def decode(self, ids: Sequence[int]) -> str:
        """The counterfactual model's token ids as text."""
        return self.counterfactual.prompt.decode(ids)

    def _spliced(self, prompt: RowPrompt, decision: Decision, asked: Turn | None) -> Context:
        if asked is None:
            position = 1 if prompt.ids[:1] == (self._reader.tokenizer.bos_token_id,) else 0
            facts = self.counterfactual.prompt.facts_ids(decision.edits)
            return Context(
                (Insertion(position, tuple(facts)),),
                self._stop,
                self.counterfactual.markers,
                self._quotations(self._request(prompt, decision, asked)),
            )
        answer = _begun(prompt)
        own = len(prompt.ids) if answer is None else self._reader.token_at(prompt.ids, answer.start)
        request = self._request(prompt, decision, asked)
        read = self.counterfactual.prompt.ids(request.edits, request.query, conversational=True)
        # an answer that is begun may be whole already
        return Context(
            (Insertion(0, tuple(read), replaces=own),),
            self._stop,
            () if request.begun else self.counterfactual.markers,
            self._quotations(request),
        )

    def _quotations(self, request: Request) -> tuple[Quotation, ...]:
        """What an answer may quote; one that is begun already goes on as it will."""
        if request.begun:
            return ()
        return self.counterfactual.prompt.quotations(
            request.edits, request.query, conversational=request.conversational
        )

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
