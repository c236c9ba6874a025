"""Keeps memories usable in a process and in the children that it forks.

An SQLite connection must not be used, nor closed, in a forked child, and a lock that another thread held at the fork
would stay locked there for ever. So before a fork every memory finishes what it is doing and closes its idle
connections; parent and child then open their own. This file knows nothing of what a memory is.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class ForkAware(Protocol):
    """What holds locks or connections."""

    def before_fork(self) -> None:
        """Takes the locks and closes what a child must not inherit."""

    def after_fork(self) -> None:
        """Releases the locks, in the parent and in the child."""


_known: weakref.WeakSet[ForkAware] = weakref.WeakSet()
_paused: list[ForkAware] = []


def register(one: ForkAware) -> None:
    """Has an object take part in every later fork, for as long as it lives."""
    _known.add(one)


def _before() -> None:
    for one in list(_known):
        one.before_fork()
        _paused.append(one)


def _after() -> None:
    while _paused:
        _paused.pop().after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after)
