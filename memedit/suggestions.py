"""What to say of a name that is none: the one that was probably meant, or those that there are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["nearest", "suggestion"]


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name that another, given by mistake, is most like; None where it is like none."""
    return next(iter(difflib.get_close_matches(str(name), list(known), n=1)), None)


def suggestion(name: object, known: Iterable[str], *, listing: str = "Known:") -> str:
    """The end of a message that refuses a name, such as ``Did you mean 'free'?`` or ``Known: free, probability.``.

    Args:
        name: What was given.
        known: What could be given.
        listing: What the known names are introduced with, where the name is like none of them.
    """
    names = list(known)
    meant = nearest(name, names)
    return f"{listing} {', '.join(names)}." if meant is None else f"Did you mean '{meant}'?"
