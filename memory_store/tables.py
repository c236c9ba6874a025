"""The tables of a memory.

Written with SQLAlchemy Core and without anything that only SQLite has, so that another database can serve later.
Times are microseconds since 1970 (UTC) as integers. An edit's ``number`` is its integer key, never used twice: a
purged edit leaves its row behind, emptied.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)

metadata = MetaData()

_KEY = BigInteger().with_variant(Integer, "sqlite")

meta = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
"""What the memory knows of itself, by the names below."""

META_SCHEMA = "schema_version"
META_MEMORY_ID = "memory_id"
META_FINGERPRINT = "encoder_fingerprint"
META_DIMENSION = "dimension"
META_GENERATION = "generation"
"""Counts the times that vectors were replaced without a change of edits; older indexes are worthless."""

settings = Table(
    "settings",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
"""JSON values that users of the memory keep with it."""

namespace_settings = Table(
    "namespace_settings",
    metadata,
    Column("sequence", _KEY, primary_key=True, autoincrement=True),
    Column("namespace", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("value", Text),
    Column("at", BigInteger, nullable=False),
    Index("namespace_settings_by_key", "namespace", "key", "sequence"),
    sqlite_autoincrement=True,
)
"""JSON values that users of the memory keep for a namespace: each that was ever set, in order. The last of a key is in
force; one without a value says that the setting was forgotten."""

edits = Table(
    "edits",
    metadata,
    Column("number", _KEY, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False, unique=True),
    Column("namespace", Text, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("subject", Text),
    Column("aliases", Text, nullable=False),
    Column("paraphrases", Text, nullable=False),
    Column("source", Text),
    Column("author", Text),
    Column("expires_at", BigInteger),
    Column("metadata", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("version", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("content_hash", Text, nullable=False),
    Column("prompt_key", LargeBinary),
    Column("fact_key", LargeBinary),
    Index("edits_by_prompt", "namespace", "prompt_key"),
    Index("edits_by_state", "namespace", "state", "expires_at"),
    Index(
        "edits_one_of_a_fact",
        "namespace",
        "fact_key",
        unique=True,
        sqlite_where=text("state = 'active'"),
        postgresql_where=text("state = 'active'"),
    ),
)
"""Each edit as it now stands. The database itself holds that no fact is active twice in a namespace."""

changes = Table(
    "changes",
    metadata,
    Column("sequence", _KEY, primary_key=True, autoincrement=True),
    Column("edit", _KEY, ForeignKey("edits.number"), nullable=False),
    Column("namespace", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("snapshot", Text),
    Index("changes_by_edit", "edit", "sequence"),
    sqlite_autoincrement=True,
)
"""Every change in order, with the edit as it was afterwards (JSON)."""

vectors = Table(
    "vectors",
    metadata,
    Column("id", _KEY, primary_key=True, autoincrement=False),
    Column("edit", _KEY, ForeignKey("edits.number"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("vector", LargeBinary, nullable=False),
)
"""The encoded texts of each edit, purged ones excepted; ``vector`` is little-endian float32.

The id is ``edit << POSITION_BITS | position``, the position being that of the text in ``Edit.texts()``.
"""

POSITION_BITS = 12
"""Low bits of a vector id that hold the position: 4,096 texts an edit, over the 1,002 that the limits allow."""
