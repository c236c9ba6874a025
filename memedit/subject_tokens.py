"""Which tokens of a prompt are its subject's.

Found by characters: the tokens that share a character with the subject, as the tokenizer's own offsets have them. So it
does not matter whether a token takes in the space before a word or reaches across the subject's end, or whether a
character is spread over several tokens. A subject that stands in the prompt more than once is taken where it stands
last, as the model has read most there; `SubjectTokens.occurrences` says that there was a choice.

This file knows tokenizers; nothing of models or of what is done at these tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from memedit.errors import InvalidPromptError, UnsupportedCallError

__all__ = ["SubjectTokens", "subject_tokens"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectTokens:
    """A prompt's tokens, and which of them are the subject's.

    Attributes:
        ids: The prompt's token ids, special tokens included.
        offsets: The characters that each token stands for, from and to; both are the same for a special token.
        start: The subject's first token.
        end: The place behind its last token.
        occurrences: How often the subject stands in the prompt.
    """

    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    start: int
    end: int
    occurrences: int

    @property
    def last(self) -> int:
        """The subject's last token."""
        return self.end - 1


def subject_tokens(tokenizer: Any, prompt: str, subject: str) -> SubjectTokens:
    """Find the subject's tokens in a prompt.

    Args:
        tokenizer: A fast tokenizer: one that tells which characters a token stands for.
        prompt: The prompt, as the model reads it, without a chat template.
        subject: The subject, spelt as in the prompt; spaces around it do not count.

    Raises:
        InvalidPromptError: The prompt is empty, or the subject does not stand in it.
        UnsupportedCallError: The tokenizer does not tell of characters.
    """
    subject = subject.strip()
    if not prompt.strip() or not subject:
        raise InvalidPromptError(f"a prompt and its subject are needed; given were {prompt!r} and {subject!r}")
    begin = prompt.rfind(subject)
    if begin < 0:
        spelt = prompt.lower().rfind(subject.lower())
        hint = f"; did you mean {prompt[spelt : spelt + len(subject)]!r}?" if spelt >= 0 else ""
        raise InvalidPromptError(
            f"the subject {subject!r} does not stand in the prompt {prompt!r}; give it as it is spelt there{hint}"
        )
    if not getattr(tokenizer, "is_fast", False):
        raise UnsupportedCallError(
            f"{type(tokenizer).__name__} does not tell which characters a token stands for; load the fast tokenizer"
        )
    encoded = tokenizer(prompt, return_offsets_mapping=True)
    offsets = tuple((int(start), int(end)) for start, end in encoded["offset_mapping"])
    end = begin + len(subject)
    inside = [place for place, (first, last) in enumerate(offsets) if max(first, begin) < min(last, end)]
    if not inside:
        raise InvalidPromptError(f"no token of the prompt {prompt!r} stands for a character of {subject!r}")
    return SubjectTokens(
        ids=tuple(encoded["input_ids"]),
        offsets=offsets,
        start=inside[0],
        end=inside[-1] + 1,
        occurrences=prompt.count(subject),
    )
