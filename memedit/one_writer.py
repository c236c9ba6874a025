"""A folder that one process writes into at a time. This file knows nothing of what is in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from memedit.errors import ConfigError

__all__ = ["one_writer"]


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Keeps other processes from writing into a folder, for the length of a ``with`` block.

    Args:
        folder: The folder, which is there.

    Raises:
        ConfigError: Another one is writing.
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError(
            f"Another process is writing into {folder}; wait for it to end, or name another folder."
        ) from error
    try:
        yield
    finally:
        lock.release()
