"""The errors of the memory: one small tree.

::

    MemoryStoreError
    ├── InvalidEditError        an edit, or a field of it, that cannot be stored
    ├── InvalidVectorError      vectors of the wrong shape, not finite or not of unit length
    ├── InvalidArgumentError    a call whose other arguments make no sense
    ├── EditNotFoundError       no edit has this id
    ├── AmbiguousIdError        the beginning of an id fits several edits
    ├── EditStateError          the edit's state does not allow the operation
    ├── ConflictError           another edit in force says something else (policy "reject")
    ├── EncoderError
    │   ├── EncoderRequiredError    the operation needs vectors and the memory was opened without an encoder
    │   └── EncoderMismatchError    the memory's vectors come from another encoder
    └── StorageError
        ├── NotAMemoryError         the file is not a memory, or is damaged
        ├── SchemaVersionError      the file was written by a newer version
        ├── ReadOnlyMemoryError     the file cannot be written
        ├── MemoryBusyError         another process kept the file locked too long
        ├── MemoryClosedError       the memory was closed
        └── PurgeIncompleteError    the edit is gone, but traces may remain in a file that another process holds
"""

from __future__ import annotations

__all__ = [
    "AmbiguousIdError",
    "ConflictError",
    "EditNotFoundError",
    "EditStateError",
    "EncoderError",
    "EncoderMismatchError",
    "EncoderRequiredError",
    "InvalidArgumentError",
    "InvalidEditError",
    "InvalidVectorError",
    "MemoryBusyError",
    "MemoryClosedError",
    "MemoryStoreError",
    "NotAMemoryError",
    "PurgeIncompleteError",
    "ReadOnlyMemoryError",
    "SchemaVersionError",
    "StorageError",
]


class MemoryStoreError(Exception):
    """Base class of every error that the memory raises."""


class InvalidEditError(MemoryStoreError, ValueError):
    """An edit that cannot be stored.

    Args:
        message: What is wrong, what was given, what to do.
        position: 0-based place of the edit in the stream given to ``add_many``, otherwise ``None``.
        committed: How many edits from the beginning of that stream are safely stored.
    """

    def __init__(self, message: str, *, position: int | None = None, committed: int = 0) -> None:
        super().__init__(message)
        self.position = position
        self.committed = committed


class InvalidVectorError(MemoryStoreError, ValueError):
    """Vectors of the wrong shape, not finite or not of unit length."""


class InvalidArgumentError(MemoryStoreError, ValueError):
    """A call whose arguments make no sense, such as ``k=0``."""


class EditNotFoundError(MemoryStoreError, LookupError):
    """No edit has this id, or the edit was purged."""


class AmbiguousIdError(MemoryStoreError, LookupError):
    """The beginning of an id fits several edits, or is too short to be looked up."""


class EditStateError(MemoryStoreError, ValueError):
    """The edit's state does not allow the operation, such as an update of a removed edit."""


class ConflictError(MemoryStoreError, ValueError):
    """Another edit in force stands against the change.

    Args:
        message: Which edits disagree and what to do.
        edit_id: Id of the edit that is there already; empty if it is part of the same chunk.
        position: 0-based place of the edit in the stream given to ``add_many``, otherwise ``None``.
        committed: How many edits from the beginning of that stream are safely stored.
    """

    def __init__(self, message: str, *, edit_id: str, position: int | None = None, committed: int = 0) -> None:
        super().__init__(message)
        self.edit_id = edit_id
        self.position = position
        self.committed = committed


class EncoderError(MemoryStoreError):
    """The memory and the encoder do not go together."""


class EncoderRequiredError(EncoderError):
    """The operation needs vectors and the memory was opened without an encoder."""


class EncoderMismatchError(EncoderError):
    """The memory's vectors come from another encoder: their scores would mean nothing."""


class StorageError(MemoryStoreError, OSError):
    """The file of the memory could not be read or written."""


class NotAMemoryError(StorageError):
    """The file is not a memory, or is damaged."""


class SchemaVersionError(StorageError):
    """The file was written by a newer version of this package."""


class ReadOnlyMemoryError(StorageError):
    """The file, or its folder, cannot be written."""


class MemoryBusyError(StorageError):
    """Another process kept the file locked for longer than the time to wait."""


class MemoryClosedError(StorageError):
    """The memory was closed."""


class PurgeIncompleteError(StorageError):
    """The edit is gone from the memory, but traces may remain in a file that another process holds open."""
