"""When two edits are the same: keys and content hashes over folded text.

Folding composes Unicode (NFC) and turns every run of whitespace into one space; it is applied to a copy, the stored
text stays as given. This file knows nothing of databases.
"""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass

from memory_store.records import Edit, as_json


@dataclass(frozen=True, slots=True)
class Keys:
    """What an edit is looked up by, within its namespace.

    Attributes:
        prompt: Digest of the prompt, folded, without case: edits that share it are about the same thing.
        fact: Digest of that and the target, folded: edits that share it say the same.
    """

    prompt: bytes
    fact: bytes


def fold(text: str) -> str:
    """Returns the text with composed characters and single spaces."""
    if text.isascii():
        return " ".join(text.split())
    return " ".join(unicodedata.normalize("NFC", text).split())


def keys_of(edit: Edit) -> Keys:
    """Returns the keys of an edit. Case counts in a target ("us" is not "US") and not in a prompt."""
    prompt = fold(fold(edit.prompt).casefold())
    return Keys(prompt=_digest(prompt), fact=_digest(f"{prompt}\0{fold(edit.target)}"))


def content_hash(edit: Edit) -> str:
    """Returns the SHA-256, in hexadecimal, of what an edit says and of how it is found."""
    content = [
        fold(edit.namespace),
        fold(edit.prompt),
        fold(edit.target),
        None if edit.subject is None else fold(edit.subject),
        [fold(text) for text in edit.aliases],
        [fold(text) for text in edit.paraphrases],
    ]
    return hashlib.sha256(as_json(content).encode()).hexdigest()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
