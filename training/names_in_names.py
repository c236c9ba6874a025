"""Names that are part of other things' names: Wii and Wii U, Egypt and the Bank of Egypt.

A shorter name is often another name of the same thing, and as often one of something else. Of names that one source
gives to its things, each its own, two are never of one thing, unless the shorter is how one would call the longer. It
knows nothing of facts or queries.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from training.name_forms import fold, shorten

__all__ = ["called_for_short", "names_in_names"]


def names_in_names(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """For each name those that stand in it, word by word, and those that it stands in.

    Args:
        names: Names; those that begin with a small letter, as common nouns do, are left out.

    Returns:
        Names without any such other are missing.
    """
    by_words: dict[tuple[str, ...], str] = {}
    for name in names:
        if name[:1].isupper() and len(name) > 2:
            by_words.setdefault(tuple(fold(name).split()), name)
    found: dict[str, dict[str, None]] = {}
    for words, longer in by_words.items():
        for begin in range(len(words)):
            for end in range(begin + 1, len(words) + 1):
                shorter = by_words.get(words[begin:end])
                if shorter is not None and end - begin < len(words):
                    found.setdefault(longer, {}).setdefault(shorter)
                    found.setdefault(shorter, {}).setdefault(longer)
    return {name: tuple(others) for name, others in found.items()}


def called_for_short(longer: str, shorter: str, kinds: Collection[str]) -> bool:
    """Whether a thing could be meant by a part of its name.

    Args:
        longer: Its name.
        shorter: The part.
        kinds: What it is: types of the relation bank.
    """
    if fold(shorter) in {fold(form) for kind in kinds for form in shorten(longer, kind)}:
        return True
    words = fold(longer).split()
    return "person" in kinds and fold(shorter) in (words[0], words[-1])
