"""From what a user would type to the token ids that a model reads.

A model with a chat template is asked through it, in every probe; one without reads what was typed. The legacy
protocols put bare text before every model, as the published tables do. Answers are never seen here.
"""

from __future__ import annotations

from memedit.editors.subject import Subject
from memedit.evaluation.cases import ProbePrompt

__all__ = ["answer_ids", "bare_ids", "prompt_ids"]

_SPEAKERS = {"user": "User", "assistant": "Assistant"}


def prompt_ids(subject: Subject, prompt: ProbePrompt) -> tuple[int, ...]:
    """The prompt as the model is asked it: through its chat template, or as it was typed.

    Args:
        subject: The model.
        prompt: What is typed. Earlier turns become lines of a dialogue where the model has no chat template.

    Returns:
        Token ids, special tokens included.
    """
    return subject.chat_ids(prompt.messages()) if subject.chats else bare_ids(subject, prompt)


def bare_ids(subject: Subject, prompt: ProbePrompt) -> tuple[int, ...]:
    """The prompt as plain text.

    Args:
        subject: The model.
        prompt: What is typed.

    Returns:
        Token ids, with whatever token the tokenizer begins a text with.
    """
    text = prompt.text
    if prompt.turns:
        lines = [f"{_SPEAKERS[turn.role]}: {turn.content}" for turn in prompt.turns]
        text = "\n".join([*lines, f"User: {prompt.text}", "Assistant:"])
    return tuple(subject.tokenizer(text)["input_ids"])


def answer_ids(subject: Subject, answer: str) -> tuple[int, ...]:
    """The tokens of an answer behind a bare prompt, set off by a space as in the published evaluations.

    Args:
        subject: The model.
        answer: The answer.

    Returns:
        The token ids that follow those of `bare_ids`.
    """
    return tuple(subject.tokenizer(f" {answer.strip()}", add_special_tokens=False)["input_ids"])
