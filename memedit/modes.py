"""Who answers governed prompts: the base model in context, the counterfactual model, or whichever does better here.

``"ike"`` puts the facts before the question and lets the base model answer; ``"serac"`` lets the counterfactual model
answer; ``"auto"`` tries both on a small self-test of made-up facts (``data/self_test.jsonl``) and takes the better one.
Each fact is asked for in two ways, and once something else is asked while the fact is given, as it is when the router
is wrong. What was found is kept in memedit's cache, so that a model is tried once.

This file knows nothing of memories or routing: in the self-test the fact is given.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, get_args

from classifiers.saved_folder import write_atomically
from memedit.counterfactual import GREEDY, CounterfactualModel, has_shipped_model
from memedit.counterfactual_responder import CounterfactualResponder
from memedit.errors import ConfigError
from memedit.fingerprints import model_fingerprint
from memedit.injection import ContextInjection
from memedit.passes import folded_head, pad_left
from memedit.pulling import cache_folder
from memedit.queries import Query
from memedit.recital import Writing
from memedit.responders import InContextResponder, Responder, confirmed
from memedit.routing import Candidate, Decision, RoutingTimings
from memedit.rows import PromptReader
from memory_store import Edit

__all__ = ["Mode", "ModeChoice", "TestFact", "Verdict", "choose_mode", "self_test", "self_test_facts"]

Mode = Literal["ike", "serac", "auto"]

_WRONGLY = 0.07
"""What near misses weigh in the self-test: of the probes that the trained scope classifier lets through one in fourteen
asks for something else than the edit (109 of 1,531 of five sets, docs/counterfactual.md)."""

_ANSWER_TOKENS = 24
_LIKE, _UNLIKE = 1.0, 0.7
"""How like the edit its questions are in the self-test, and other questions that a router might take for them."""

_BATCH = 16


@dataclass(frozen=True, slots=True)
class ModeChoice:
    """Who answers, and why.

    Attributes:
        mode: ``"ike"`` or ``"serac"``.
        reason: Why, in a sentence.
        responder: What answers.
    """

    mode: str
    reason: str
    responder: Responder


@dataclass(frozen=True, slots=True, kw_only=True)
class TestFact:
    """One made-up fact of the self-test.

    Attributes:
        prompt: The words that the target continues.
        target: What is to be said.
        subject: What the fact is about.
        paraphrase: Other words that the target continues.
        question: A question that it answers.
        near_miss: A question about the same subject or relation that it does not answer.
    """

    prompt: str
    target: str
    subject: str
    paraphrase: str
    question: str
    near_miss: str

    __test__ = False  # the name is not that of a test


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a responder did in the self-test.

    Attributes:
        right: Prompts that the fact answers, answered with it.
        of: How many there were.
        spared: Near misses that were not answered with it.
        of_spared: How many there were.
    """

    right: int
    of: int
    spared: int
    of_spared: int

    @property
    def score(self) -> float:
        """Mean of the two shares, weighted as a router sends both kinds; from 0 to 1."""
        return (1 - _WRONGLY) * self.right / self.of + _WRONGLY * self.spared / self.of_spared

    def __str__(self) -> str:
        """The two counts."""
        return f"{self.right} of {self.of} answered, {self.spared} of {self.of_spared} near misses spared"


def choose_mode(
    mode: Mode, model: Any, tokenizer: Any, *, counterfactual: CounterfactualModel | str | Path | None = None
) -> ModeChoice:
    """Who answers the governed prompts of a model.

    Args:
        mode: What is asked for.
        model: The base model.
        tokenizer: Its tokenizer.
        counterfactual: The counterfactual model, or the folder of its adapter; None for the one that comes with
            memedit.

    Raises:
        ConfigError: There is no such mode.
        ModelNotFoundError: ``"serac"`` is asked for, and there is no counterfactual model.
    """
    if mode not in get_args(Mode):
        raise ConfigError(f"There is no mode {mode!r}; there are {', '.join(map(repr, get_args(Mode)))}.")
    in_context = InContextResponder(tokenizer)
    if mode == "ike":
        return ModeChoice("ike", "asked for", in_context)
    if mode == "auto" and counterfactual is None and not has_shipped_model():
        return ModeChoice("ike", "chosen by auto: this version comes with no counterfactual model", in_context)
    if not isinstance(counterfactual, CounterfactualModel):
        counterfactual = CounterfactualModel.load(counterfactual, device=model.device)
    other = CounterfactualResponder(counterfactual, model, tokenizer)
    note = f"; {counterfactual.note}" if counterfactual.note else ""
    if mode == "serac":
        return ModeChoice("serac", f"asked for{note}", other)
    ike, serac = _verdicts(model, tokenizer, in_context, other)
    better = serac.score > ike.score
    reason = (
        f"chosen by auto: in a self-test of {len(self_test_facts())} made-up facts, serac {serac}; ike {ike}"
        f"{'' if better or ike.score > serac.score else ' (as good, and needs no second model)'}{note}"
    )
    return ModeChoice("serac", reason, other) if better else ModeChoice("ike", reason, in_context)


def self_test(model: Any, tokenizer: Any, responder: Responder) -> Verdict:
    """How a responder answers when it is given a fact, rightly and wrongly.

    Args:
        model: The base model.
        tokenizer: Its tokenizer.
        responder: What answers.
    """
    facts = self_test_facts()
    asked = [(fact, text) for fact in facts for text in (fact.paraphrase, fact.question)]
    missed = [(fact, fact.near_miss) for fact in facts]
    answers = _answers(model, tokenizer, responder, [*asked, *missed])
    said = [
        fact.target.casefold() in answer.casefold()
        for (fact, _), answer in zip([*asked, *missed], answers, strict=True)
    ]
    right, wrong = sum(said[: len(asked)]), sum(said[len(asked) :])
    return Verdict(right, len(asked), len(missed) - wrong, len(missed))


@cache
def self_test_facts() -> tuple[TestFact, ...]:
    """The facts of the self-test."""
    return tuple(TestFact(**json.loads(line)) for line in _data().splitlines() if line.strip())


def _data() -> str:
    return resources.files("memedit").joinpath("data", "self_test.jsonl").read_text(encoding="utf-8")


def _verdicts(
    model: Any, tokenizer: Any, in_context: InContextResponder, other: CounterfactualResponder
) -> tuple[Verdict, Verdict]:
    """How both did, from the cache where the same two models were tried before."""
    parts = (model_fingerprint(model), other.counterfactual.fingerprint, _release(), _data())
    key = hashlib.sha256("\0".join([*parts, str(tokenizer.chat_template)]).encode()).hexdigest()[:32]
    file = cache_folder() / "modes" / f"{key}.json"
    # whatever stands there that is not a verdict is written anew
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads(file.read_bytes())
        return Verdict(**found["ike"]), Verdict(**found["serac"])
    ike, serac = self_test(model, tokenizer, in_context), self_test(model, tokenizer, other)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time alone
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps({"ike": asdict(ike), "serac": asdict(serac)}).encode())
    return ike, serac


def _release() -> str:
    try:
        return version("memedit")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0"


def _answers(model: Any, tokenizer: Any, responder: Responder, asked: Sequence[tuple[TestFact, str]]) -> list[str]:
    """What the model says to each text while the fact is given; greedily, in batches."""
    import torch

    reader = PromptReader(tokenizer)
    chats = reader.chat_format is not None
    answers: list[str] = []
    for begin in range(0, len(asked), _BATCH):
        batch = asked[begin : begin + _BATCH]
        rows = [reader.read(_prompt_ids(tokenizer, text, chats=chats)) for _, text in batch]
        told = [_told(fact, text, _UNLIKE if text == fact.near_miss else _LIKE) for fact, text in batch]
        decisions = confirmed(responder, rows, told)
        contexts = {
            place: responder.context(row, decision)
            for place, (row, decision) in enumerate(zip(rows, decisions, strict=True))
            if decision.governed
        }
        ends = model.generation_config.eos_token_id
        end = (ends[0] if isinstance(ends, list) else ends) if ends is not None else tokenizer.eos_token_id
        pad = end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        ids, mask = pad_left([row.ids for row in rows], device=model.device, pad=pad)
        injection = ContextInjection(
            model,
            mask,
            contexts,
            answering=responder.model,
            end_of_text=end,
            writing=Writing(limit=_ANSWER_TOKENS),
        )
        with torch.inference_mode(), folded_head(model if responder.model is None else responder.model):
            out = injection.attach().generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=_ANSWER_TOKENS,
                eos_token_id=end,
                pad_token_id=pad,
                **GREEDY,
            )
        answers.extend(tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True))
    return answers


def _prompt_ids(tokenizer: Any, text: str, *, chats: bool) -> list[int]:
    if not chats:
        return list(tokenizer(text)["input_ids"])
    encoded = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=True
    )
    return list(encoded["input_ids"])


def _told(fact: TestFact, text: str, similarity: float) -> Decision:
    edit = Edit(prompt=fact.prompt, target=fact.target, subject=fact.subject)
    candidate = Candidate(edit, similarity, 1.0, text, fact.prompt, "prompt")
    return Decision(Query(text, (text,)), (edit,), 1.0, 0.5, "self-test", (candidate,), RoutingTimings())
