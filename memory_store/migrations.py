"""Brings the tables of a memory to the present schema, one numbered migration after another.

A migration, once released, is never altered. All that are due run in one transaction: a memory is at the old schema
or at the new one.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, inspect, select

from memory_store import tables
from memory_store.database import Database
from memory_store.errors import NotAMemoryError, SchemaVersionError


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema.

    Attributes:
        number: The version of the schema after it; consecutive from 1.
        title: What it does.
        apply: Does it, within a transaction.
    """

    number: int
    title: str
    apply: Callable[[Connection], None]


def _first_tables(connection: Connection) -> None:
    first = (tables.meta, tables.settings, tables.edits, tables.changes, tables.vectors)
    tables.metadata.create_all(connection, tables=first)
    connection.execute(
        tables.meta.insert(),
        [
            {"key": tables.META_MEMORY_ID, "value": secrets.token_hex(16)},
            {"key": tables.META_GENERATION, "value": "0"},
        ],
    )


def _namespace_settings(connection: Connection) -> None:
    tables.metadata.create_all(connection, tables=(tables.namespace_settings,))


MIGRATIONS = (
    Migration(1, "the first tables", _first_tables),
    Migration(2, "settings of a namespace, with their history", _namespace_settings),
)
SCHEMA_VERSION = MIGRATIONS[-1].number


def migrate(database: Database) -> None:
    """Creates the tables of a new memory, or brings those of an older one up to date.

    Raises:
        NotAMemoryError: The database holds tables of something else.
        SchemaVersionError: It was written by a newer version of this package.
    """
    with database.reading() as connection:
        if _version(connection, database) == SCHEMA_VERSION:
            return
    with database.writing() as connection:
        present = _version(connection, database)
        due = [migration for migration in MIGRATIONS if migration.number > present]
        for migration in due:
            migration.apply(connection)
        if due:
            connection.execute(tables.meta.delete().where(tables.meta.c.key == tables.META_SCHEMA))
            connection.execute(tables.meta.insert(), {"key": tables.META_SCHEMA, "value": str(due[-1].number)})


def _version(connection: Connection, database: Database) -> int:
    """Returns the schema's version, 0 for an empty database."""
    present = set(inspect(connection).get_table_names())
    if not present:
        return 0
    if tables.meta.name not in present or tables.changes.name not in present:
        raise NotAMemoryError(
            f"{database.name} is a database of something else (it has the tables {', '.join(sorted(present))})."
        )
    stored = connection.execute(select(tables.meta.c.value).where(tables.meta.c.key == tables.META_SCHEMA)).scalar()
    version = int(stored or 0)
    if version > SCHEMA_VERSION:
        raise SchemaVersionError(
            f"{database.name} has schema version {version}; this version of the package knows versions up to "
            f"{SCHEMA_VERSION}. Upgrade the package."
        )
    return version
