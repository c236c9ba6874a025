"""Lets a model answer some rows of a batch from a context that the caller never sees.

The decoding loop of ``transformers`` runs over the caller's own tokens, so that everything that counts or reads them
(length limits, stopping criteria, logits processors, streamers, beams, the returned sequences) works as on the base
model. Only the model's forward pass differs: for every row it is the base model's own, and for governed rows its
last-token logits are replaced by those of a second pass over the same row with context spliced in; or, where the model
that answers has another vocabulary, by logits that allow one token alone, the next of a script which that model has
written beforehand. Rows that no edit governs are therefore, bit for bit, rows of the base model's own call.

This file works on token ids. It knows nothing of edits, text or tokenizers.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memedit.errors import UnsupportedCallError
from memedit.passes import pad_left, positions, takes
from memedit.quotations import Quotation, lead_on
from memedit.recital import Recital, Script, Writing

if TYPE_CHECKING:
    import torch

__all__ = [
    "Context",
    "ContextInjection",
    "Insertion",
    "StopTokens",
    "governed_logits",
    "splice",
]

Forward = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Insertion:
    """Context to be put into a row.

    Attributes:
        position: The index of the row's own token before which the context goes; the row's length for its end.
        ids: The context's token ids.
        replaces: How many of the row's own tokens from there on it stands in place of.
    """

    position: int
    ids: tuple[int, ...]
    replaces: int = 0


@dataclass(frozen=True, slots=True)
class StopTokens:
    """Tokens at which a governed continuation ends, because the context would make the model go on in its manner.

    Attributes:
        ids: The tokens; each counts as the end of text.
        blank: Tokens that say nothing (white space). Nothing stops a row whose newest token is one of these, or that
            has said nothing yet: an answer may begin on a new line.
    """

    ids: tuple[int, ...]
    blank: frozenset[int]


@dataclass(frozen=True, slots=True)
class Context:
    """What a governed row is answered from.

    Attributes:
        insertions: What is spliced into the row.
        stop: Where its continuation ends early, if anywhere.
        not_first: Tokens that its continuation does not begin with.
        quotations: Texts that its continuation goes on quoting where it begins to; of one sequence a row only.
        script: What it continues with, in place of what a model of the base model's vocabulary would say; nothing is
            spliced into such a row.
    """

    insertions: tuple[Insertion, ...]
    stop: StopTokens | None = None
    not_first: tuple[int, ...] = ()
    quotations: tuple[Quotation, ...] = ()
    script: Script | None = None

    @property
    def length(self) -> int:
        """How many tokens it adds to the row; negative where it stands in place of more than it brings."""
        return sum(len(insertion.ids) - insertion.replaces for insertion in self.insertions)

    def for_likelihoods(self) -> tuple[Insertion, ...]:
        """What is spliced into the row, for whoever asks how likely its tokens are.

        Raises:
            UnsupportedCallError: It has a script, of which no model of the base model's vocabulary knows.
        """
        if self.script is not None:
            raise UnsupportedCallError(
                "there are no logits for a prompt that an edit governs, because the counterfactual model has another "
                'vocabulary than the base model; use mode "ike" for likelihoods, or call generate'
            )
        return self.insertions


def splice(ids: Sequence[int], insertions: Sequence[Insertion]) -> tuple[list[int], list[int]]:
    """Put context into a row.

    Args:
        ids: The row's own token ids.
        insertions: What goes where; those at one position keep their order.

    Returns:
        The row with its context, and for each own token its new index; for one that was replaced, the index of the last
        token that stands in its place.

    Raises:
        ValueError: An insertion lies outside the row, or replaces tokens by none.
    """
    for insertion in insertions:
        if not 0 <= insertion.position <= insertion.position + insertion.replaces <= len(ids):
            raise ValueError(
                f"insertion at {insertion.position}"
                f"{f' in place of {insertion.replaces} tokens' if insertion.replaces else ''} "
                f"lies outside a row of {len(ids)} tokens"
            )
        if insertion.replaces and not insertion.ids:
            raise ValueError(f"insertion at {insertion.position} replaces {insertion.replaces} tokens by none")
    spliced: list[int] = []
    places: list[int] = []
    ordered = sorted(insertions, key=lambda insertion: insertion.position)
    upcoming = kept_from = 0
    for index in range(len(ids) + 1):
        while upcoming < len(ordered) and ordered[upcoming].position == index:
            spliced.extend(ordered[upcoming].ids)
            kept_from = max(kept_from, index + ordered[upcoming].replaces)
            upcoming += 1
        if index < min(kept_from, len(ids)):
            places.append(len(spliced) - 1)
        elif index < len(ids):
            places.append(len(spliced))
            spliced.append(ids[index])
    return spliced, places


class ContextInjection:
    """The forward pass of one ``generate`` call in which some rows are governed.

    Args:
        model: The base model.
        mask: 1 for the caller's own tokens, 0 for padding, ``[rows, width]``.
        contexts: For each governed row, what it is answered from.
        answering: The model that answers governed rows; it shares the base model's vocabulary.
        end_of_text: The token that ends a row; None where none does, and then no stop token does either.
        padding: The token that rows which have ended are filled up with; None for ``end_of_text``.
        writing: How the scripts among the contexts are written.

    Raises:
        UnsupportedCallError: A row has a script, and nothing ends a row or more tokens are wanted than the script has.
    """

    def __init__(
        self,
        model: Any,
        mask: torch.Tensor,
        contexts: Mapping[int, Context],
        *,
        answering: Any | None = None,
        end_of_text: int | None = None,
        padding: int | None = None,
        writing: Writing | None = None,
    ) -> None:
        self._model = model
        self._base: Forward = model.forward
        self._answering = answering if answering is not None else model
        self._answer: Forward = self._answering.forward
        self._takes_positions = takes(self._answering, "position_ids")
        self._own = [[place for place, kept in enumerate(row) if kept] for row in mask.tolist()]
        self._width = mask.shape[1]
        self._contexts = {row: context for row, context in sorted(contexts.items()) if context.script is None}
        self._whole = len(self._contexts) == len(self._own)
        self._end = end_of_text
        self._ended = [False] * len(self._contexts)
        self._prompt_mask: torch.Tensor | None = None
        self._said: list[list[int]] = [[] for _ in self._contexts]
        scripts = {row: context.script for row, context in sorted(contexts.items()) if context.script is not None}
        self._recital = Recital(scripts, writing or Writing(), end=end_of_text, padding=padding) if scripts else None
        self._steps = 0

    @property
    def used(self) -> bool:
        """Whether the forward pass was called at all."""
        return self._steps > 0

    def attach(self) -> Any:
        """The base model with this forward pass; it shares every weight, buffer and hook with the base model."""
        model = copy.copy(self._model)

        @functools.wraps(self._base)
        def forward(*args: Any, **kwargs: Any) -> Any:
            return self._forward(*args, **kwargs)

        model.forward = forward
        return model

    def _forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> Any:
        """One step; the arguments are those that the decoding loop gives the base model, rows times beams of them."""
        step, self._steps = self._steps, self._steps + 1
        expansion = input_ids.shape[0] // len(self._own)
        if self._recital is not None:
            self._recital.check(input_ids[:, -1].tolist(), expansion, step)
            if len(self._recital.rows) == len(self._own):
                return self._recited_alone(input_ids, expansion, step)
        rows = [row * expansion + beam for row in self._contexts for beam in range(expansion)]
        if self._whole:
            # a cache that the loop made for the base model need not fit another
            cache = None if step == 0 and self._answering is not self._model else past_key_values
            outputs = self._answer_rows(rows, expansion, input_ids, cache, kwargs)
            outputs.logits = outputs.logits.to(input_ids.device)
            return outputs
        base_cache, cache = (
            (past_key_values.base, past_key_values.governed)
            if isinstance(past_key_values, _PairedCache)
            else (past_key_values, None)
        )
        given = {} if position_ids is None else {"position_ids": position_ids}
        outputs = self._base(
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=base_cache,
            **given,
            **kwargs,
        )
        if self._recital is not None:
            outputs.logits = outputs.logits.clone()
            self._recital.recite(outputs.logits[:, -1], expansion, step)
        if not rows:
            return outputs
        if expansion > 1 or cache is None or not self._have_ended(input_ids[rows, -1].tolist()):
            governed = self._answer_rows(rows, expansion, input_ids, cache, kwargs)
            logits = outputs.logits.clone()
            logits[rows, -1] = governed.logits[:, -1].to(logits)
            outputs.logits = logits
            cache = governed.past_key_values
        if kwargs.get("use_cache") and outputs.past_key_values is not None:
            outputs.past_key_values = _PairedCache(outputs.past_key_values, cache, rows)
        return outputs

    def _recited_alone(self, input_ids: torch.Tensor, expansion: int, step: int) -> Any:
        """One step where every row has a script: no model has anything to add."""
        import torch
        from transformers.modeling_outputs import CausalLMOutputWithPast

        vocabulary = self._model.config.get_text_config().vocab_size
        logits = torch.empty((input_ids.shape[0], 1, vocabulary), dtype=torch.float32, device=input_ids.device)
        if self._recital is not None:
            self._recital.recite(logits[:, -1], expansion, step)
        return CausalLMOutputWithPast(logits=logits)

    def _have_ended(self, newest: list[int]) -> bool:
        """Whether every governed row has ended: the decoding loop fills them up by itself, whatever their logits.

        Args:
            newest: The newest token of each governed row.
        """
        ended = [done or token == self._end for done, token in zip(self._ended, newest, strict=True)]
        self._ended = ended
        return all(ended)

    def _answer_rows(
        self, rows: list[int], expansion: int, input_ids: torch.Tensor, cache: Any, kwargs: dict[str, Any]
    ) -> Any:
        """The answering model's pass over the governed rows; ``logits[:, -1]`` belongs to each row's last token."""
        import torch

        chosen = input_ids[rows].to(self._answering.device)
        first = cache is None or cache.get_seq_length() == 0
        if first:
            chosen, mask = self._spliced(rows, expansion, chosen)
            self._prompt_mask = mask
        else:
            prompt = self._prompt_mask
            if prompt is None:
                raise UnsupportedCallError("a governed prompt cannot continue a cache that holds another prompt")
            generated = cache.get_seq_length() + chosen.shape[1] - prompt.shape[1]
            mask = torch.cat([prompt, prompt.new_ones((prompt.shape[0], generated))], dim=1)
        places = positions(mask)[:, -chosen.shape[1] :]
        if expansion == 1:  # which beam goes on from which is not known here
            self._note(input_ids[rows], begins=first)
        outputs = self._answer(
            input_ids=chosen,
            attention_mask=mask,
            past_key_values=cache,
            **({"position_ids": places} if self._takes_positions else {}),
            **kwargs,
        )
        if expansion == 1:
            for place, row in enumerate(rows):
                lead_on(outputs.logits[place, -1], self._said[place], self._contexts[row].quotations)
        if first and input_ids.shape[1] == self._width:
            for place, row in enumerate(rows):
                outputs.logits[place, -1, list(self._contexts[row // expansion].not_first)] = float("-inf")
        else:
            for place, newest in enumerate(chosen[:, -1].tolist()):
                stop = self._contexts[rows[place] // expansion].stop
                if stop is not None and newest not in stop.blank:
                    self._end_at(outputs.logits[place, -1], stop.ids)
        return outputs

    def _note(self, input_ids: torch.Tensor, *, begins: bool) -> None:
        """Keep what the governed rows have said so far.

        Args:
            input_ids: What the decoding loop gives of them: whole rows where no cache goes on, or their newest tokens.
            begins: Whether these are whole rows.
        """
        for said, ids in zip(self._said, input_ids.tolist(), strict=True):
            said[:] = ids[self._width :] if begins else [*said, *ids]

    def _end_at(self, logits: torch.Tensor, stops: tuple[int, ...]) -> None:
        """Hand the best logit of the stop tokens on to the end of text, in place; ``logits`` is ``[vocabulary]``."""
        if self._end is not None:
            ids = list(stops)
            best = logits[[*ids, self._end]].max()
            logits[ids] = float("-inf")
            logits[self._end] = best

    def _spliced(self, rows: list[int], expansion: int, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The governed rows with their context, left-padded, and their mask; both ``[governed, width]``."""
        texts = []
        for row, ids in zip(rows, input_ids.tolist(), strict=True):
            caller = row // expansion
            own = [ids[place] for place in self._own[caller]]
            texts.append(splice(own, self._contexts[caller].insertions)[0] + ids[self._width :])
        return pad_left(texts, device=input_ids.device)


class _PairedCache:
    """The base model's cache over all rows, and the answering model's over the governed ones.

    The decoding loop carries it from step to step and reorders it between beams; nothing else of it is used there, and
    what else is asked of it is asked of the base model's cache.
    """

    def __init__(self, base: Any, governed: Any, rows: list[int]) -> None:
        self.base = base
        self.governed = governed
        self._rows = rows

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Follow the beams: row ``i`` goes on from row ``beam_idx[i]``, which is a beam of the same prompt."""
        self.base.reorder_cache(beam_idx)
        place = {row: index for index, row in enumerate(self._rows)}
        sources = beam_idx.tolist()
        self.governed.reorder_cache(beam_idx.new_tensor([place[sources[row]] for row in self._rows]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.base, name)


def governed_logits(
    answering: Any,
    own: Sequence[Sequence[int]],
    contexts: Sequence[Sequence[Insertion]],
    *,
    device: torch.device,
    forward_kwargs: Mapping[str, Any],
) -> list[torch.Tensor]:
    """The answering model's logits at each own token of some rows, their context spliced in.

    Args:
        answering: The model that answers.
        own: Each row's own token ids.
        contexts: What is spliced into each row.
        device: Where the model is.
        forward_kwargs: Passed on to the model.

    Returns:
        For each row a tensor ``[own tokens, vocabulary]``.
    """
    spliced = [splice(ids, context) for ids, context in zip(own, contexts, strict=True)]
    ids, mask = pad_left([text for text, _ in spliced], device=device)
    places_of = {"position_ids": positions(mask)} if takes(answering, "position_ids") else {}
    logits = answering(input_ids=ids, attention_mask=mask, use_cache=False, **places_of, **forward_kwargs).logits
    return [
        logits[row, [ids.shape[1] - len(text) + place for place in places]]
        for row, (text, places) in enumerate(spliced)
    ]
