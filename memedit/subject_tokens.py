"""Which tokens of a prompt are its subject's.

Methods that locate and then edit act at one of them, as a rule the last (Meng et al. 2022, *Locating and Editing
Factual Associations in GPT*, section 2.2); causal tracing corrupts them all. The subject is looked for in the prompt's
text, as it is decoded from the very tokens that the model reads: whatever a chat template puts around it, and however
the tokenizer cuts or joins words, a token is the subject's if it has a character of it.

This file knows tokenizers; nothing of models or of what is done at these tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from memedit.errors import InvalidPromptError, UnsupportedCallError
from memedit.rows import PromptReader

__all__ = ["SubjectTokens", "TokenChoice", "subject_token", "subject_tokens"]

TokenChoice = Literal["subject_last", "subject_first", "last"]
"""Which token: the subject's last or first one, or the prompt's last, where the answer begins."""


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


def subject_token(
    reader: PromptReader, ids: Sequence[int], *, prompt: str, names: Sequence[str], place: TokenChoice = "subject_last"
) -> int:
    """Finds the token of a prompt at which an edit acts.

    Args:
        reader: Reads token ids of the model.
        ids: The whole prompt, as the model reads it.
        prompt: The edit's own prompt, which stands somewhere in it; of several places the last counts here too.
        names: The subject and its other names, in the order in which they are looked for. A whole word goes before a
            part of one; upper and lower case are the same. Of several places the last counts, as the model has read
            most there.
        place: Which token is wanted.

    Returns:
        Its index.

    Raises:
        UnsupportedCallError: The subject is not known, or not in the prompt.
    """
    if place not in get_args(TokenChoice):
        raise UnsupportedCallError(f"'{place}' is no token of a prompt; choose {', '.join(get_args(TokenChoice))}")
    if place == "last":
        return len(ids) - 1
    if not names:
        raise UnsupportedCallError(
            f"the edit {prompt[:60]!r} has no subject, and this method edits what the model knows of one: give the "
            "edit a subject, the words in its prompt that name what the fact is about"
        )
    text = reader.decode(ids)
    own = max(0, text.rfind(prompt.strip()))
    for pattern in (r"(?<!\w){}(?!\w)", "{}"):
        for name in names:
            found = list(re.compile(pattern.format(re.escape(name.strip())), re.IGNORECASE).finditer(text, own))
            if found and found[-1][0]:
                begin, end = found[-1].span()
                return (
                    reader.token_at(ids, begin + 1) - 1
                    if place == "subject_first"
                    else _ending(reader, ids, text[:end])
                )
    raise UnsupportedCallError(
        f"the subject {names[0]!r} is not in the prompt {prompt[:60]!r}: give the subject as the prompt words it, or "
        "the prompt's name for it as one of its aliases"
    )


def _ending(reader: PromptReader, ids: Sequence[int], begun: str) -> int:
    """The token with which the beginning of a text is complete."""
    count = reader.token_at(ids, len(begun))
    while count < len(ids) and not reader.decode(ids[:count]).startswith(begun):
        count += 1  # a character that is several tokens reads as something else until the last one
    return count - 1


def subject_tokens(tokenizer: Any, prompt: str, subject: str) -> SubjectTokens:
    """Find all of the subject's tokens in a prompt, and what each token stands for.

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
    if subject not in prompt:
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
    ids, reader = tuple(encoded["input_ids"]), PromptReader(tokenizer)
    return SubjectTokens(
        ids=ids,
        offsets=offsets,
        start=subject_token(reader, ids, prompt=prompt, names=[subject], place="subject_first"),
        end=subject_token(reader, ids, prompt=prompt, names=[subject], place="subject_last") + 1,
        occurrences=prompt.count(subject),
    )
