"""Where a fact's subject is among the tokens of a prompt.

Methods that locate and then edit act at one token, as a rule the last one of the subject (Meng et al. 2022, Locating
and Editing Factual Associations in GPT, section 2.2). The subject is looked for in the prompt's text, as it is decoded
from the very tokens that the model reads: whatever a chat template puts around it, and however the tokenizer cuts or
joins words, the token is the one in which the subject begins or ends. This file knows nothing of models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, get_args

from memedit.errors import UnsupportedCallError
from memedit.rows import PromptReader

__all__ = ["TokenChoice", "subject_token"]

TokenChoice = Literal["subject_last", "subject_first", "last"]
"""Which token: the subject's last or first one, or the prompt's last, where the answer begins."""


def subject_token(
    reader: PromptReader, ids: Sequence[int], *, prompt: str, names: Sequence[str], place: TokenChoice = "subject_last"
) -> int:
    """Finds the token of a prompt at which an edit acts.

    Args:
        reader: Reads token ids of the model.
        ids: The whole prompt, as the model reads it.
        prompt: The edit's own prompt, which stands somewhere in it; of several places the last counts.
        names: The subject and its other names, in the order in which they are looked for. A whole word goes before a
            part of one; upper and lower case are the same.
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
            found = re.compile(pattern.format(re.escape(name.strip())), re.IGNORECASE).search(text, own)
            if found is not None and found[0]:
                begin, end = found.span()
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
