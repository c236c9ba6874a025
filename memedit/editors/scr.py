"""Selective Contextual Reasoning: the model itself chooses the fact that a question is about, or none.

He et al. 2025 (arXiv 2505.18690) retrieve the k facts that are most similar to a question, let the language model pick
the one that it is about, or none, and answer in context of it; nothing is trained and no threshold is set. What is here
follows the published description of the method: wording, k and how the choice is read are ours. Retrieval is memedit's
own, with all its windows of a longer prompt, so that what differs from ``ike`` is the choice. It is read from the
likelihoods of the facts' numbers instead of from a sampled reply: the same prompt is always decided in the same way,
no reply is unreadable, and the choice has a probability.

The model reads every query once more, with the facts before it, whether or not any of them is near.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from classifiers import SimilarityScope
from memedit.editors.editor import MethodInfo
from memedit.editors.memory_editor import MemoryEditor
from memedit.editors.subject import Subject
from memedit.errors import ConfigError, UnsupportedCallError
from memedit.passes import logits_of
from memedit.prompts import PLAIN_FORM, Fact, Neutraliser, Segment, context_ids, statement
from memedit.queries import Query
from memedit.responders import InContextResponder
from memedit.routing import Candidate, Decision, Router
from memory_store import EditMemory

__all__ = ["INFO", "FactChooser", "ScrOptions", "SelectingRouter", "create"]

INFO = MethodInfo(
    name="scr",
    title="Selective Contextual Reasoning",
    group="external knowledge",
    changes="memory",
    paper="He et al. 2025, arXiv 2505.18690 (Selective Contextual Reasoning)",
    summary="Retrieves the five nearest facts, lets the model itself pick one or none, and puts it before the prompt.",
)

MAX_CANDIDATES = 9
"""Facts are chosen by a number of one digit."""


_EVERY_CANDIDATE = SimilarityScope(threshold_similarity=-1.0)
"""Leaves the decision to the model: it has no floor that a candidate could lie under."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrOptions:
    """What can be set.

    Attributes:
        candidates: How many facts the model chooses among, 1 to 9.
        batch_tokens: At most so many tokens, padding included, are read at once; a longer prompt is read alone.
    """

    candidates: int = 5
    batch_tokens: int = 8_192

    def __post_init__(self) -> None:
        if not 1 <= self.candidates <= MAX_CANDIDATES:
            raise ConfigError(f"candidates must be 1 to {MAX_CANDIDATES}; it is {self.candidates}.")
        if self.batch_tokens < 1:
            raise ConfigError(f"batch_tokens must be at least 1; it is {self.batch_tokens}.")


@dataclass(frozen=True, slots=True)
class _Example:
    """A choice that a model without a chat template is shown before the one to be made.

    Attributes:
        question: What is asked.
        facts: The facts to choose among.
        chosen: Number of the right one, from 1; 0 for none.
    """

    question: str
    facts: tuple[str, ...]
    chosen: int


_REPLY = "\nNumber:"
"""What a number stands behind where there are no turns."""

_EXAMPLES = (
    _Example(
        "Who leads Nordwind Air?",
        (
            "The head office of Nordwind Air is in Tallinn.",
            "The chief executive of Nordwind Air is Ingrid Solheim.",
            "The chief executive of Ostmark Rail is Pavel Novak.",
        ),
        2,
    ),
    _Example(
        "The Gullfoss Bridge was opened in",
        (
            "The Gullfoss Bridge was designed by Maria Okafor.",
            "The Belmora Bridge was opened in 1931.",
            "The capital of Freedonia is Fredville.",
        ),
        0,
    ),
)


class FactChooser:
    """Lets a language model say which of some facts a question is about, by the likelihood of their numbers.

    Args:
        subject: The model that chooses.
        options: What can be set.

    Raises:
        UnsupportedCallError: The tokenizer has no distinct token for each number.
    """

    def __init__(self, subject: Subject, options: ScrOptions) -> None:
        self._model = subject.model
        self._tokenizer = subject.tokenizer
        self._chat_format = subject.reader.chat_format
        self._options = options
        self._neutral = Neutraliser.for_tokenizer(subject.tokenizer)
        self._lead, self._numbers = self._number_tokens()

    def prompt_ids(self, question: str, facts: Sequence[Fact]) -> list[int]:
        """The prompt behind which the number of the fact follows, as token ids.

        Args:
            question: What is asked.
            facts: The facts to choose among, in the order of their numbers.
        """
        statements = [statement(self._neutral(fact.prompt), self._neutral(fact.target)) for fact in facts]
        block = _block(self._neutral(question), statements)
        return [*context_ids(self._segments(block), self._tokenizer), *self._lead]

    def probabilities(self, questions: Sequence[str], facts: Sequence[Sequence[Fact]]) -> list[NDArray[np.float32]]:
        """How probable the model finds each fact to be the one that a question is about.

        Args:
            questions: What is asked.
            facts: For each question the facts to choose among, at most `ScrOptions.candidates`.

        Returns:
            For each question ``[1 + facts]``, summing to 1: none of them, then each fact.
        """
        prompts = [self.prompt_ids(question, some) for question, some in zip(questions, facts, strict=True)]
        found: list[NDArray[np.float32]] = [np.ones(1, dtype=np.float32)] * len(prompts)
        for places in _batches([len(ids) for ids in prompts], self._options.batch_tokens):
            logits = self._last_logits([prompts[place] for place in places])
            for place, row in zip(places, logits, strict=True):
                found[place] = _softmax(row[: 1 + len(facts[place])])
        return found

    def _segments(self, block: str) -> tuple[Segment, ...]:
        """The choice to be made: as a user's turn, or behind worked examples where the tokenizer knows no turns."""
        chat = self._chat_format
        if chat is not None:
            return Segment(chat.opening, markup=True), Segment(block), Segment(chat.generation_prompt, markup=True)
        shown = "".join(f"{_block(one.question, one.facts)}{_REPLY} {one.chosen}\n\n" for one in _EXAMPLES)
        begin = str(self._tokenizer.bos_token) if self._begins() else ""
        return Segment(begin, markup=True), Segment(f"{shown}{block}{_REPLY}")

    def _begins(self) -> bool:
        """Whether the tokenizer puts a begin-of-text token before a text."""
        bos = self._tokenizer.bos_token_id
        return bos is not None and list(self._tokenizer("")["input_ids"][:1]) == [bos]

    def _number_tokens(self) -> tuple[list[int], list[int]]:
        """The tokens that all numbers begin with, and the token by which each then differs, 0 first."""
        space = " " if self._chat_format is None else ""
        spelled = [
            list(self._tokenizer(f"{space}{number}", add_special_tokens=False)["input_ids"])
            for number in range(1 + self._options.candidates)
        ]
        shared = 0
        while all(len(ids) > shared + 1 for ids in spelled) and len({ids[shared] for ids in spelled}) == 1:
            shared += 1
        numbers = [ids[shared] for ids in spelled]
        if len(set(numbers)) < len(numbers):
            raise UnsupportedCallError(
                f"scr reads a choice from the token of its number, and the tokenizer has none for each of 0 to "
                f"{self._options.candidates}; use another method for this model"
            )
        return spelled[0][:shared], numbers

    def _last_logits(self, prompts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """The logits of the numbers behind each prompt, ``[prompts, numbers]``, in one left-padded pass."""
        import torch

        with torch.inference_mode():
            logits = logits_of(self._model, prompts, keep=1)[:, -1, self._numbers]
        read: NDArray[np.float32] = logits.float().cpu().numpy()
        return read


class SelectingRouter(Router):
    """A router whose decision the model itself takes.

    A decision's probability is that of the best fact, its threshold that of none of them.

    Args:
        memory: Where the edits are.
        subject: The model that chooses, and the encoder that retrieves.
        options: What can be set.
    """

    def __init__(self, memory: EditMemory, subject: Subject, options: ScrOptions) -> None:
        super().__init__(memory, subject.encoder, _EVERY_CANDIDATE, candidates=options.candidates)
        self._chooser = FactChooser(subject, options)

    def route(self, queries: Sequence[Query], *, thorough: bool = False) -> list[Decision]:
        """Decide for each query; see `Router.route`.

        Args:
            queries: What was asked.
            thorough: Changes nothing: every candidate is read and listed in any case.
        """
        retrieved = super().route(queries, thorough=thorough)
        asked = [place for place, decision in enumerate(retrieved) if decision.candidates]
        started = time.perf_counter()
        nearest = [_by_similarity(retrieved[place].candidates) for place in asked]
        read = self._chooser.probabilities(
            [candidates[0].window for candidates in nearest],
            [[candidate.edit for candidate in candidates] for candidates in nearest],
        )
        seconds = time.perf_counter() - started
        chosen = {
            place: _chosen(retrieved[place], candidates, probabilities)
            for place, candidates, probabilities in zip(asked, nearest, read, strict=True)
        }
        decisions = [chosen.get(place, decision) for place, decision in enumerate(retrieved)]
        return [replace(one, timings=replace(one.timings, classify=seconds)) for one in decisions]


def create(subject: Subject, options: ScrOptions | None = None) -> MemoryEditor:
    """The method for a model.

    Args:
        subject: The model.
        options: What can be set; None for the defaults.
    """
    chosen = options if options is not None else ScrOptions()
    responder = InContextResponder(subject.tokenizer, raw_form=PLAIN_FORM, chat_form=PLAIN_FORM)
    return MemoryEditor(INFO, subject, responder, router=lambda memory, about: SelectingRouter(memory, about, chosen))


def _block(question: str, facts: Sequence[str]) -> str:
    """The question, the facts with their numbers, and what is to be done."""
    numbered = "".join(f"{number}. {fact}\n" for number, fact in enumerate(facts, start=1))
    return (
        f"Question: {question}\n\nFacts:\n{numbered}\n"
        "Reply with the number of the fact that answers the question. "
        "If no fact is about exactly what the question asks, reply 0."
    )


def _by_similarity(candidates: Sequence[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=lambda candidate: -candidate.similarity)


def _chosen(retrieved: Decision, candidates: Sequence[Candidate], probabilities: NDArray[np.float32]) -> Decision:
    """The decision that the probabilities come to: none of the candidates first, then each."""
    none, *others = map(float, probabilities)
    read = [replace(one, probability=probability) for one, probability in zip(candidates, others, strict=True)]
    ordered = tuple(sorted(read, key=lambda candidate: -candidate.probability))
    best = ordered[0]
    governs = best.probability >= none
    reason = (
        f"the model gives the fact probability {best.probability:.3f} among {len(read)}, "
        f"{'at or above' if governs else 'below'} the {none:.3f} of none of them"
    )
    return replace(
        retrieved,
        edits=(best.edit,) if governs else (),
        probability=best.probability,
        threshold=none,
        reason=reason,
        candidates=ordered,
    )


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max())
    shares: NDArray[np.float32] = powers / powers.sum()
    return shares


def _batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Places of prompts that are read together: of like length, at most so many tokens with their padding."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        if batch and lengths[place] * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
