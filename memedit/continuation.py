"""The tokens of what follows a prompt: an edit's target, or an expected answer.

This file knows tokenizers; nothing of models, edits or chat templates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["continuation"]


def continuation(tokenizer: Any, prompt: str, prompt_ids: Sequence[int], target: str) -> tuple[int, ...]:
    """The tokens of what follows a prompt, a space between the two unless the prompt ends in one.

    Args:
        tokenizer: The tokenizer.
        prompt: The prompt.
        prompt_ids: Its tokens, as the tokenizer gives them.
        target: What follows, without spaces around it.
    """
    text = f"{prompt}{'' if prompt[-1].isspace() else ' '}{target}"
    # tokenised as a whole, since some tokenizers put a space of their own before a text
    told = tuple(tokenizer(text)["input_ids"])
    if told[: len(prompt_ids)] != tuple(prompt_ids):  # a token reaches across the prompt's end
        return tuple(tokenizer(text[len(prompt) :], add_special_tokens=False)["input_ids"])
    return told[len(prompt_ids) :]
