"""A folder that one process writes into at a time. This file knows nothing of what is in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from memedit.errors import ConfigError

__all__ = ["one_writer"]


@contextmanager
def one_writer(folder: Path, *, doing: str = "writing", error: type[Exception] = ConfigError) -> Iterator[None]:
    """Keeps other processes from writing into a folder, for the length of a ``with`` block.

    Args:
        folder: The folder, which is there.
        doing: What is done there, for the message.
        error: What is raised where another process does it.

    Raises:
        ConfigError: Another one is writing; or what ``error`` says.
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as timeout:
        raise error(
            f"Another process is {doing} into {folder}; wait for it to end, or name another folder."
        ) from timeout
    try:
        yield
    finally:
        lock.release()
