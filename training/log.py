"""The log of a training run: one JSON object a line, cut back to the checkpoint that a resumed run goes on from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["TrainingLog"]


class TrainingLog:
    """A log that is written line by line; one process writes it at a time.

    Args:
        path: The file, made with its folder where it is not there.
        length: How much of what is there counts, in bytes; the rest is cut off.
    """

    def __init__(self, path: Path, *, length: int = 0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("ab")
        if self._stream.tell() > length:
            self._stream.truncate(length)

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes one record; it can be read when this returns.

        Args:
            record: JSON values.
        """
        self._stream.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        self._stream.flush()

    def sync(self) -> int:
        """Makes sure that what was written is on disk, and says how many bytes that is."""
        os.fsync(self._stream.fileno())
        return os.fstat(self._stream.fileno()).st_size

    def close(self) -> None:
        """Closes the file."""
        self._stream.close()
