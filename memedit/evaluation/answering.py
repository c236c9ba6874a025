"""Lets a model answer, and rate, many prompts at once: sorted by length, in batches as large as fit, each prompt once.

A prompt may come with context that is put into it; what is generated goes through the same forward pass as in
`memedit.model.EditedModel`. Decoding is greedy, with no penalty on repetition, and ends where the model ends it; the
limit on its length is one for all prompts, so that it tells nothing of an answer. This file knows nothing of edits,
methods or references.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from memedit.counterfactual import GREEDY
from memedit.editors.subject import Subject
from memedit.errors import UnsupportedCallError
from memedit.injection import Context, ContextInjection, splice
from memedit.passes import folded_head, logits_of, max_positions, pad_left
from memedit.recital import Writing

if TYPE_CHECKING:
    import torch

__all__ = ["Answer", "Answerer", "Rating", "Row"]

DEFAULT_BATCH_TOKENS = 4_096
"""Tokens of a batch, prompts and answers and padding together, from which the batch size follows."""

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt as it is to be answered.

    Attributes:
        ids: Its token ids.
        context: What is put into it.
        model: What answers in place of the subject's model.
    """

    ids: tuple[int, ...]
    context: Context | None = None
    model: Any | None = None

    @property
    def seen(self) -> tuple[int, ...]:
        """The token ids that the answering model reads."""
        return self.ids if self.context is None else tuple(splice(self.ids, self.context.insertions)[0])


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said.

    Attributes:
        text: The words, without special tokens.
        tokens: How many tokens it has, the one that ends it included.
        cut: Whether it was still going on at the limit.
        seconds: What it took, its batch's time divided among its rows.
    """

    text: str
    tokens: int
    cut: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Rating:
    """How likely a model finds the tokens of a given continuation.

    Attributes:
        log_probabilities: Of each token, natural logarithm, those before it given.
        likeliest: The likeliest token at each of the places.
    """

    log_probabilities: tuple[float, ...]
    likeliest: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Mean log-probability a token."""
        return sum(self.log_probabilities) / len(self.log_probabilities)


class Answerer:
    """A subject's model, asked in batches.

    Args:
        subject: The model.
        max_new_tokens: The most tokens of an answer, the same for every prompt.
        batch_tokens: The most tokens of a batch; halved by itself where the memory does not suffice.

    Raises:
        ValueError: A limit is not positive.
    """

    def __init__(self, subject: Subject, *, max_new_tokens: int = 32, batch_tokens: int = DEFAULT_BATCH_TOKENS) -> None:
        if max_new_tokens < 1 or batch_tokens < 1:
            raise ValueError(f"limits must be positive, given {max_new_tokens=} and {batch_tokens=}")
        self.subject = subject
        self.max_new_tokens = max_new_tokens
        self.batch_tokens = batch_tokens
        self._remembered: dict[tuple[_Keyed, int], Answer] = {}

    def answer(self, rows: Sequence[Row], *, max_new_tokens: int | None = None, remember: bool = False) -> list[Answer]:
        """Generate greedily behind each row.

        Args:
            rows: The prompts. Equal ones are answered once.
            max_new_tokens: Another limit than the answerer's.
            remember: Take what was answered before for an equal row, and keep what is answered now. Only for a model
                that nothing has changed.

        Returns:
            One answer a row, in order.

        Raises:
            UnsupportedCallError: A row is longer than its model reads.
        """
        limit = self.max_new_tokens if max_new_tokens is None else max_new_tokens
        for row in rows:
            self._check_length(row, limit)
        if not remember:
            return self._in_batches(rows, limit, lambda batch: self._generate(batch, limit))
        keys = [(_Keyed(row), limit) for row in rows]
        new = {key: row for key, row in zip(keys, rows, strict=True) if key not in self._remembered}
        answers = self._in_batches(list(new.values()), limit, lambda batch: self._generate(batch, limit))
        self._remembered.update(zip(new, answers, strict=True))
        return [self._remembered[key] for key in keys]

    def rate(self, rows: Sequence[Row], continuations: Sequence[Sequence[int]]) -> list[Rating]:
        """Rate a given continuation of each row.

        Args:
            rows: The prompts.
            continuations: Token ids, at least one a row.

        Returns:
            One rating a row, in order.

        Raises:
            UnsupportedCallError: A row is longer than its model reads.
            ValueError: A continuation is empty.
        """
        if not all(continuations):
            raise ValueError("a continuation has no tokens; give at least one")
        told = [_Told(row, tuple(behind)) for row, behind in zip(rows, continuations, strict=True)]
        for one in told:
            _check_likelihoods(one.row)
            self._check_length(one.row, len(one.behind))
        return self._in_batches(told, 0, self._rate)

    def divergences(self, rows: Sequence[Row], unedited: Sequence[torch.Tensor]) -> list[float]:
        """Kullback-Leibler divergence of the next-token distribution, unedited from edited, in nats.

        Args:
            rows: The prompts as the method treats them.
            unedited: For each the unedited model's log-probabilities, ``[vocabulary]``.

        Returns:
            One divergence a row; 0 for what is the same, not a number where a model's output is none.
        """
        pairs = [_Paired(row, place) for place, row in enumerate(rows)]

        def batch(some: Sequence[_Paired]) -> list[float]:
            edited = self._next_log_probabilities([one.row for one in some])
            base = [unedited[one.place].to(edited) for one in some]
            # in this order, so that what is not a number stays so: a model gone wrong has not kept its distribution
            return [
                max(float((before.exp() * (before - after)).sum()), 0.0)
                for before, after in zip(base, edited, strict=True)
            ]

        return self._in_batches(pairs, 0, batch)

    def next_log_probabilities(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        """Log-probabilities of the token behind each row, ``[vocabulary]`` each, float32, on the CPU."""
        return self._in_batches(rows, 0, lambda batch: list(self._next_log_probabilities(batch).cpu()))

    # -- batches ---------------------------------------------------------------------------------------------------

    def _in_batches(self, items: Sequence[Any], more: int, work: Callable[[Sequence[Any]], list[R]]) -> list[R]:
        """The result of each item; equal items are worked on once, in batches of similar length.

        Args:
            items: Things with ``width``, ``kind`` and equality, such as rows.
            more: Tokens that will come behind each.
            work: Works on a batch of items of one kind.
        """
        distinct = list(dict.fromkeys(map(_Keyed, items)))
        distinct.sort(key=lambda one: (one.kind, -one.width))
        done: dict[_Keyed, R] = {}
        left = distinct
        while left:
            batch = _batch_of(left, more, self.batch_tokens)
            results = self._fitting(batch, work)
            if results is None:
                continue
            done.update(zip(batch, results, strict=True))
            left = left[len(batch) :]
        return [done[_Keyed(item)] for item in items]

    def _fitting(self, batch: Sequence[_Keyed], work: Callable[[Sequence[Any]], list[R]]) -> list[R] | None:
        """What the work on a batch gives; None where the memory did not suffice and the next batch is to be smaller."""
        import torch

        try:
            with torch.inference_mode():
                return work([one.item for one in batch])
        except torch.cuda.OutOfMemoryError:
            if len(batch) == 1:
                raise
            torch.cuda.empty_cache()
            self.batch_tokens = max(1, self.batch_tokens // 2)
            return None

    def _check_length(self, row: Row, more: int) -> None:
        model = row.model if row.model is not None else self.subject.model
        longest = max_positions(model)
        length = len(row.seen)
        if longest is not None and length + more > longest:
            raise UnsupportedCallError(
                f"a prompt has {length} tokens with its context and {more} more are to come, but the model reads "
                f"{longest}; leave such records out, or ask for fewer new tokens"
            )

    # -- one batch -------------------------------------------------------------------------------------------------

    def _generate(self, batch: Sequence[Row], limit: int) -> list[Answer]:
        """Answers of rows that all have context, or all have none."""
        started = time.perf_counter()
        model = self.subject.model
        answering = model if batch[0].model is None else batch[0].model
        ids, mask = pad_left([row.ids for row in batch], device=model.device, pad=self._pad)
        end_of_text = model.generation_config.eos_token_id
        ends = end_of_text if isinstance(end_of_text, list) else [end_of_text]
        contexts = {place: row.context for place, row in enumerate(batch) if row.context is not None}
        if contexts:
            end = ends[0]
            model = ContextInjection(
                model, mask, contexts, answering=batch[0].model, end_of_text=end, writing=Writing(limit=limit)
            ).attach()
        else:
            model = answering
        with folded_head(answering):
            out = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=limit,
                eos_token_id=end_of_text,
                pad_token_id=self._pad,
                **GREEDY,
            )
        seconds = (time.perf_counter() - started) / len(batch)
        answers = []
        for row in out[:, ids.shape[1] :].tolist():
            end_at = next((place for place, token in enumerate(row) if token in ends), None)
            kept = row if end_at is None else row[:end_at]
            text = self.subject.tokenizer.decode(kept, skip_special_tokens=True).strip()
            count = len(kept) + (end_at is not None)
            answers.append(Answer(text, count, cut=end_at is None, seconds=seconds))
        return answers

    def _rate(self, batch: Sequence[_Told]) -> list[Rating]:
        import torch

        texts = [(*one.row.seen, *one.behind) for one in batch]
        logits = self._logits(batch[0].row.model, texts, keep=max(len(one.behind) for one in batch) + 1)
        ratings = []
        for one, values in zip(batch, logits, strict=True):
            wanted = torch.tensor(one.behind, device=values.device)
            at = values[-len(one.behind) - 1 : -1].float()
            logs = torch.log_softmax(at, dim=-1).gather(1, wanted[:, None])[:, 0]
            ratings.append(Rating(tuple(logs.tolist()), tuple(at.argmax(-1).tolist())))
        return ratings

    def _next_log_probabilities(self, batch: Sequence[Row]) -> torch.Tensor:
        import torch

        for row in batch:
            _check_likelihoods(row)
        logits = self._logits(batch[0].model, [row.seen for row in batch], keep=1)
        return torch.log_softmax(logits[:, -1].float(), dim=-1)

    def _logits(self, model: Any | None, texts: Sequence[Sequence[int]], *, keep: int) -> torch.Tensor:
        """Logits at the last ``keep`` places of each text, ``[texts, keep, vocabulary]``."""
        return logits_of(model if model is not None else self.subject.model, texts, keep=keep, pad=self._pad)

    @property
    def _pad(self) -> int:
        pad = self.subject.tokenizer.pad_token_id
        return int(pad if pad is not None else self.subject.tokenizer.eos_token_id)


@dataclass(frozen=True, slots=True)
class _Told:
    """A row and the continuation that is to be rated."""

    row: Row
    behind: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Paired:
    """A row and the place of what it is compared with."""

    row: Row
    place: int


class _Keyed:
    """An item of a batch with its key, its width, and the kind of batch that it fits into."""

    __slots__ = ("item", "key", "kind", "width")

    def __init__(self, item: Any) -> None:
        row: Row = item if isinstance(item, Row) else item.row
        context = row.context
        stop = context.stop.ids if context is not None and context.stop is not None else ()
        bounds = () if context is None else (stop, context.not_first, context.script)
        behind = () if isinstance(item, Row) else (item.behind if isinstance(item, _Told) else (item.place,))
        self.item = item
        self.width = len(row.seen) + (len(item.behind) if isinstance(item, _Told) else 0)
        self.kind = (row.context is not None, 0 if row.model is None else id(row.model))
        self.key = (self.kind, row.seen, bounds, behind)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Keyed) and self.key == other.key


def _check_likelihoods(row: Row) -> None:
    """Refuse a row that a model of another vocabulary answers.

    Raises:
        UnsupportedCallError: It is one.
    """
    if row.context is not None:
        row.context.for_likelihoods()


def _batch_of(left: Sequence[_Keyed], more: int, limit: int) -> list[_Keyed]:
    """The longest beginning of one kind that fits into so many tokens; at least one item."""
    widest, kind = left[0].width + more, left[0].kind
    size = max(1, limit // widest)
    return [one for one in left[:size] if one.kind == kind]
