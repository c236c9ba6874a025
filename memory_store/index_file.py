"""One index in one file, with what it must say of itself to be trusted.

The file is a cache: whatever cannot be read, or does not say exactly what is expected, is treated as absent. Layout:
magic (8 bytes), SHA-256 of all that follows (32), length of the header (4, little-endian), header (JSON), payload.
It is written beside its place, synced and renamed, so a reader sees the old file or the new one. This file knows
nothing of databases.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FORMAT_VERSION = 1
_MAGIC = b"MEMINDEX"
_ABANDONED_AFTER_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexHeader:
    """What an index file says of itself.

    Attributes:
        memory_id: Of the memory it belongs to.
        namespace: Whose vectors it holds.
        sequence: The last change it contains.
        mark: What tells that change from one with the same number in another copy of the memory.
        generation: How often all vectors had been replaced.
        dimension: Length of a vector.
        index_type: Name of the kind of index.
        count: Number of vectors.
        format_version: Of the file.
    """

    memory_id: str
    namespace: str
    sequence: int
    mark: str
    generation: int
    dimension: int
    index_type: str
    count: int
    format_version: int = FORMAT_VERSION


def path_of(folder: Path, namespace: str) -> Path:
    """Returns where the index of a namespace lies; the name is a digest, for a namespace may hold any character."""
    return folder / f"{hashlib.sha256(namespace.encode()).hexdigest()[:32]}.index"


def write(path: Path, header: IndexHeader, payload: NDArray[np.uint8]) -> None:
    """Writes an index file, in one step for any reader.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(exist_ok=True)
    delete_unfinished(path.parent, older_than_s=_ABANDONED_AFTER_S)
    head = json.dumps(asdict(header), ensure_ascii=False).encode()
    head = len(head).to_bytes(4, "little") + head
    digest = hashlib.sha256(head)
    digest.update(payload.data)
    beside = path.with_name(f"{path.stem}.{secrets.token_hex(6)}.tmp")
    try:
        with beside.open("xb") as file:
            file.write(_MAGIC + digest.digest() + head)
            file.write(payload.data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def read(path: Path) -> tuple[IndexHeader, NDArray[np.uint8]] | None:
    """Returns header and payload ``[bytes]``, or ``None`` if there is no such file or it is damaged.

    The payload is mapped, not read: index files are replaced, never altered, so what is mapped stays as it is.
    """
    try:
        data: NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, ValueError):  # an empty file cannot be mapped
        return None
    start = len(_MAGIC) + 32
    if len(data) < start + 4 or data[: len(_MAGIC)].tobytes() != _MAGIC:
        return None
    if hashlib.sha256(data[start:].data).digest() != data[len(_MAGIC) : start].tobytes():
        return None
    length = int.from_bytes(data[start : start + 4].tobytes(), "little")
    try:
        fields = json.loads(data[start + 4 : start + 4 + length].tobytes())
        header = IndexHeader(**fields)
    except (ValueError, TypeError):
        return None
    if header.format_version != FORMAT_VERSION:
        return None
    return header, data[start + 4 + length :]


def delete_all(folder: Path) -> None:
    """Deletes every index file, unfinished ones included."""
    for path in folder.glob("*.index"):
        path.unlink(missing_ok=True)
    delete_unfinished(folder)


def delete_unfinished(folder: Path, *, older_than_s: float = 0.0) -> None:
    """Deletes files that were not written to their end, such as those of a killed process."""
    for path in folder.glob("*.tmp"):
        try:
            if time.time() - path.stat().st_mtime >= older_than_s:
                path.unlink(missing_ok=True)
        except FileNotFoundError:
            continue


def size(folder: Path) -> int:
    """Returns the bytes of all index files."""
    return sum(path.stat().st_size for path in folder.glob("*.index"))
