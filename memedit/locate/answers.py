"""The tokens of an answer, whether the model gives it, and how a prompt's tokens are shown.

Knows tokenizers and next-token predictions; nothing of what goes on inside a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from memedit.continuation import continuation
from memedit.errors import InvalidPromptError
from memedit.locate.records import Fact
from memedit.passes import logits_of
from memedit.subject_tokens import SubjectTokens

__all__ = ["AnswerTokens", "answer_tokens", "answers_known", "own_answer", "token_labels"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerTokens:
    """An answer to a prompt.

    Attributes:
        ids: Its tokens.
        known: Whether the model gives it, choosing the likeliest token each time.
        says: What the model gives, as many tokens as the answer has.
    """

    ids: tuple[int, ...]
    known: bool
    says: str


def answer_tokens(model: Any, tokenizer: Any, prompt: str, prompt_ids: Sequence[int], answer: str) -> AnswerTokens:
    """The tokens of an expected answer, and whether the model gives it.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        prompt: The prompt.
        prompt_ids: Its tokens.
        answer: What is expected.

    Raises:
        InvalidPromptError: The answer is empty.
    """
    ids = continuation(tokenizer, prompt, prompt_ids, answer.strip()) if answer.strip() else ()
    if not ids:
        raise InvalidPromptError(f"the answer to {prompt!r} is empty; leave it away, or say what is expected")
    said: list[int] = []
    for _ in ids:
        said.append(_next_token(model, [*prompt_ids, *said]))
    return AnswerTokens(ids=ids, known=tuple(said) == ids, says=tokenizer.decode(said))


def answers_known(model: Any, tokenizer: Any, facts: Sequence[Fact]) -> list[bool]:
    """Whether the model gives the expected answer of each fact, in one pass.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        facts: Facts with answers.
    """
    import torch

    if not facts:
        return []
    prompts = [tokenizer(fact.prompt)["input_ids"] for fact in facts]
    answers = [
        continuation(tokenizer, fact.prompt, ids, (fact.answer or "").strip())
        for fact, ids in zip(facts, prompts, strict=True)
    ]
    rows = [[*ids, *answer[:-1]] for ids, answer in zip(prompts, answers, strict=True)]
    with torch.no_grad():
        likeliest = logits_of(model, rows, keep=max(map(len, answers))).argmax(dim=-1).tolist()
    return [tuple(said[-len(answer) :]) == answer for said, answer in zip(likeliest, answers, strict=True)]


def own_answer(model: Any, tokenizer: Any, prompt_ids: Sequence[int]) -> AnswerTokens:
    """The model's own likeliest next token as the answer.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        prompt_ids: The prompt's tokens.
    """
    token = _next_token(model, prompt_ids)
    return AnswerTokens(ids=(token,), known=True, says=tokenizer.decode([token]))


def _next_token(model: Any, ids: Sequence[int]) -> int:
    """The model's likeliest next token."""
    return int(logits_of(model, [list(ids)], keep=1)[0, -1].argmax())


def token_labels(prompt: str, place: SubjectTokens, tokenizer: Any) -> tuple[str, ...]:
    """The prompt's tokens as the characters that each stands for.

    A character that is spread over several tokens is shown at each of them with its part, such as ``京 1/2``; a special
    token as the tokenizer names it.

    Args:
        prompt: The prompt.
        place: Its tokens and their characters.
        tokenizer: The tokenizer.
    """
    labels = []
    for position, (start, end) in enumerate(place.offsets):
        if start == end:
            labels.append(str(tokenizer.convert_ids_to_tokens(place.ids[position])))
            continue
        sharing = [other for other, offsets in enumerate(place.offsets) if offsets == (start, end)]
        part = f" {sharing.index(position) + 1}/{len(sharing)}" if len(sharing) > 1 else ""
        labels.append(f"{prompt[start:end]}{part}")
    return tuple(labels)
