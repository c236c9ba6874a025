"""Lets a model answer some rows of a batch from a context that the caller never sees.

The decoding loop of ``transformers`` runs over the caller's own tokens, so that everything that counts or reads them
(length limits, stopping criteria, logits processors, streamers, beams, the returned sequences) works as on the base
model. Only the model's forward pass differs: for every row it is the base model's own, and for governed rows its
last-token logits are replaced by those of a second pass over the same row with context spliced in. Rows that no edit
governs are therefore, bit for bit, rows of the base model's own call.

This file works on token ids. It knows nothing of edits, text or tokenizers.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memedit.errors import UnsupportedCallError

if TYPE_CHECKING:
    import torch

__all__ = ["Context", "ContextInjection", "Insertion", "StopTokens", "governed_logits", "splice"]

Forward = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Insertion:
    """Context to be put into a row.

    Attributes:
        position: The index of the row's own token before which the context goes; the row's length for its end.
        ids: The context's token ids.
    """

    position: int
    ids: tuple[int, ...]


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
    """

    insertions: tuple[Insertion, ...]
    stop: StopTokens | None = None

    @property
    def length(self) -> int:
        """How many tokens it adds to the row."""
        return sum(len(insertion.ids) for insertion in self.insertions)


def splice(ids: Sequence[int], insertions: Sequence[Insertion]) -> tuple[list[int], list[int]]:
    """Put context into a row.

    Args:
        ids: The row's own token ids.
        insertions: What goes where; those at one position keep their order.

    Returns:
        The row with its context, and for each own token its new index.

    Raises:
        ValueError: An insertion lies outside the row.
    """
    for insertion in insertions:
        if not 0 <= insertion.position <= len(ids):
            raise ValueError(f"insertion at {insertion.position} lies outside a row of {len(ids)} tokens")
    spliced: list[int] = []
    places: list[int] = []
    ordered = sorted(insertions, key=lambda insertion: insertion.position)
    upcoming = 0
    for index in range(len(ids) + 1):
        while upcoming < len(ordered) and ordered[upcoming].position == index:
            spliced.extend(ordered[upcoming].ids)
            upcoming += 1
        if index < len(ids):
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
    """

    def __init__(
        self,
        model: Any,
        mask: torch.Tensor,
        contexts: Mapping[int, Context],
        *,
        answering: Any | None = None,
        end_of_text: int | None = None,
    ) -> None:
        self._model = model
        self._base: Forward = model.forward
        self._answer: Forward = (answering if answering is not None else model).forward
        self._takes_positions = "position_ids" in inspect.signature(self._answer).parameters
        self._own = [[place for place, kept in enumerate(row) if kept] for row in mask.tolist()]
        self._width = mask.shape[1]
        self._contexts = dict(sorted(contexts.items()))
        self._whole = len(self._contexts) == len(self._own)
        self._end = end_of_text
        self._ended = [False] * len(self._contexts)
        self._prompt_mask: torch.Tensor | None = None
        self.used = False

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
        self.used = True
        expansion = input_ids.shape[0] // len(self._own)
        rows = [row * expansion + beam for row in self._contexts for beam in range(expansion)]
        if self._whole:
            return self._answer_rows(rows, expansion, input_ids, past_key_values, kwargs)
        base_cache, cache = (
            (past_key_values.base, past_key_values.governed)
            if isinstance(past_key_values, _PairedCache)
            else (past_key_values, None)
        )
        positions = {} if position_ids is None else {"position_ids": position_ids}
        outputs = self._base(
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=base_cache,
            **positions,
            **kwargs,
        )
        if expansion > 1 or cache is None or not self._have_ended(input_ids[rows, -1].tolist()):
            governed = self._answer_rows(rows, expansion, input_ids, cache, kwargs)
            logits = outputs.logits.clone()
            logits[rows, -1] = governed.logits[:, -1].to(logits)
            outputs.logits = logits
            cache = governed.past_key_values
        if kwargs.get("use_cache") and outputs.past_key_values is not None:
            outputs.past_key_values = _PairedCache(outputs.past_key_values, cache, rows)
        return outputs

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

        chosen = input_ids[rows].to(self._model.device)
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
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -chosen.shape[1] :]
        outputs = self._answer(
            input_ids=chosen,
            attention_mask=mask,
            past_key_values=cache,
            **({"position_ids": positions} if self._takes_positions else {}),
            **kwargs,
        )
        if not first or input_ids.shape[1] > self._width:
            for place, newest in enumerate(chosen[:, -1].tolist()):
                stop = self._contexts[rows[place] // expansion].stop
                if stop is not None and newest not in stop.blank:
                    self._end_at(outputs.logits[place, -1], stop.ids)
        return outputs

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
        return _pad_left(texts, input_ids)


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
    import torch

    spliced = [splice(ids, context) for ids, context in zip(own, contexts, strict=True)]
    like = torch.zeros(0, dtype=torch.long, device=device)
    ids, mask = _pad_left([text for text, _ in spliced], like)
    positions = (
        {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
        if "position_ids" in inspect.signature(answering.forward).parameters
        else {}
    )
    logits = answering(input_ids=ids, attention_mask=mask, use_cache=False, **positions, **forward_kwargs).logits
    return [
        logits[row, [ids.shape[1] - len(text) + place for place in places]]
        for row, (text, places) in enumerate(spliced)
    ]


def _pad_left(texts: Sequence[Sequence[int]], like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of one width and their mask, on the device and of the type of ``like``."""
    width = max(len(text) for text in texts)
    ids = like.new_zeros((len(texts), width))
    mask = like.new_zeros((len(texts), width))
    for row, text in enumerate(texts):
        ids[row, width - len(text) :] = like.new_tensor(list(text))
        mask[row, width - len(text) :] = 1
    return ids, mask
