"""The durable memory of edits: SQLite holds the truth, a vector index beside it finds what a text is about.

It is handed texts and an encoder's vectors; which models there are, and what is done with an edit, is not known here.
"""

from __future__ import annotations

from memory_store.encoding import UNIT_TOLERANCE, VectorEncoder
from memory_store.errors import (
    AmbiguousIdError,
    ConflictError,
    EditNotFoundError,
    EditStateError,
    EncoderError,
    EncoderMismatchError,
    EncoderRequiredError,
    InvalidArgumentError,
    InvalidEditError,
    InvalidVectorError,
    MemoryBusyError,
    MemoryClosedError,
    MemoryStoreError,
    NotAMemoryError,
    PurgeIncompleteError,
    ReadOnlyMemoryError,
    SchemaVersionError,
    StorageError,
)
from memory_store.exact import EXACT
from memory_store.faiss_index import FAISS_FLAT, FAISS_HALF
from memory_store.indexes import IndexType, VectorIndex
from memory_store.live_indexes import Progress
from memory_store.records import (
    JSON,
    MAX_METADATA_BYTES,
    MAX_NAMESPACE_CHARACTERS,
    MAX_OTHER_TEXTS,
    MAX_TEXT_CHARACTERS,
    Action,
    AddManyProgress,
    AddManyReport,
    AddOutcome,
    AddResult,
    Change,
    ConflictPolicy,
    Edit,
    EditState,
    EditText,
    Hit,
    MemoryStats,
    TextKind,
    VerifyReport,
)
from memory_store.store import EditMemory

__all__ = [
    "EXACT",
    "FAISS_FLAT",
    "FAISS_HALF",
    "JSON",
    "MAX_METADATA_BYTES",
    "MAX_NAMESPACE_CHARACTERS",
    "MAX_OTHER_TEXTS",
    "MAX_TEXT_CHARACTERS",
    "UNIT_TOLERANCE",
    "Action",
    "AddManyProgress",
    "AddManyReport",
    "AddOutcome",
    "AddResult",
    "AmbiguousIdError",
    "Change",
    "ConflictError",
    "ConflictPolicy",
    "Edit",
    "EditMemory",
    "EditNotFoundError",
    "EditState",
    "EditStateError",
    "EditText",
    "EncoderError",
    "EncoderMismatchError",
    "EncoderRequiredError",
    "Hit",
    "IndexType",
    "InvalidArgumentError",
    "InvalidEditError",
    "InvalidVectorError",
    "MemoryBusyError",
    "MemoryClosedError",
    "MemoryStats",
    "MemoryStoreError",
    "NotAMemoryError",
    "Progress",
    "PurgeIncompleteError",
    "ReadOnlyMemoryError",
    "SchemaVersionError",
    "StorageError",
    "TextKind",
    "VectorEncoder",
    "VectorIndex",
    "VerifyReport",
]
