"""The connection to the database, and everything that is particular to SQLite.

Transactions: ``reading`` sees one snapshot from its first query on; ``writing`` begins with ``BEGIN IMMEDIATE``, so a
writer decides on what is committed and cannot fail for having read something older.

Durability: the journal is a write-ahead log and ``synchronous`` is FULL. With NORMAL, SQLite syncs the log only at
checkpoints, and the last commits can be lost when the machine loses power (though not when the process is killed);
FULL syncs the log at every commit, so what ``add`` returned is on the disk, as far as the disk keeps its word.
``secure_delete`` overwrites what is deleted with zeros.

This file knows nothing of edits.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool, StaticPool

from memory_store.errors import (
    MemoryBusyError,
    MemoryClosedError,
    NotAMemoryError,
    ReadOnlyMemoryError,
    StorageError,
)

BUSY_TIMEOUT_S = 60.0
"""How long a transaction waits for another process to finish writing."""

TRUNCATION_TIMEOUT_S = 5.0
"""How long a purge waits for other processes to finish reading, so that the log can be emptied."""

_IMMEDIATE = "memory_store_immediate"


class Database:
    """A database file, or a database in memory, and its transactions.

    Safe to use from several threads: writers of one process queue up on a lock, so they do not spend the time that
    SQLite allows for other processes. In memory there is one connection, so readers queue up too.

    Args:
        path: The file, or ``None`` for a database that lives as long as this object.

    Raises:
        NotAMemoryError: The path is not a database, or its folder does not exist.
        ReadOnlyMemoryError: The file does not exist and cannot be created.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.lock = threading.RLock()
        self._closed = False
        if path is not None:
            if path.is_dir():
                raise NotAMemoryError(f"{path} is a folder; a memory is a file. Name a file in it.")
            if not path.parent.is_dir():
                raise NotAMemoryError(
                    f"There is no folder {path.parent} to keep {path.name} in: create it, or check the path."
                )
        self._engine = self._create_engine()

    @property
    def name(self) -> str:
        """The path, or ``":memory:"``."""
        return ":memory:" if self.path is None else str(self.path)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Opens a transaction that reads one snapshot. Do not nest."""
        if self.path is None:
            with self.lock, self._transaction(immediate=False) as connection:
                yield connection
        else:
            with self._transaction(immediate=False) as connection:
                yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Opens the one writing transaction; commits at the end of the block, rolls back on any exception."""
        with self.lock, self._transaction(immediate=True) as connection:
            yield connection

    def compact(self) -> bool:
        """Rewrites the whole file without any deleted content and empties the write-ahead log.

        Returns:
            Whether the log was emptied; ``False`` if another process kept reading from it.
        """
        if self.path is None:
            return True
        with self.lock, self._translated():
            connection = self._raw()
            try:
                connection.execute("VACUUM")
                connection.execute(f"PRAGMA busy_timeout={int(1000 * TRUNCATION_TIMEOUT_S)}")
                busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
                return not busy
            finally:
                connection.close()

    def integrity_problems(self) -> list[str]:
        """Returns what SQLite's own checks of pages, indexes and foreign keys find."""
        with self.reading() as connection:
            rows = connection.exec_driver_sql("PRAGMA integrity_check(20)").all()
            found = [f"SQLite reports damage: {row[0]}." for row in rows if row[0] != "ok"]
            orphans = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        found.extend(f"Row {row[1]} of {row[0]} refers to a missing row of {row[2]}." for row in orphans)
        return found

    def size(self) -> int:
        """Returns the bytes on disk: the file, its log and the log's index."""
        if self.path is None:
            return 0
        files = [self.path, *(self.path.with_name(self.path.name + end) for end in ("-wal", "-shm"))]
        return sum(file.stat().st_size for file in files if file.exists())

    def release(self) -> None:
        """Closes idle connections; later transactions open new ones. In memory this does nothing."""
        if self.path is not None:
            self._engine.dispose()

    def close(self) -> None:
        """Closes every connection. SQLite empties the log when the last process closes."""
        with self.lock:
            self._closed = True
            self._engine.dispose()

    @contextmanager
    def _transaction(self, *, immediate: bool) -> Iterator[Connection]:
        if self._closed:
            raise MemoryClosedError(f"The memory {self.name} was closed; open it again with EditMemory(...).")
        with self._translated(), self._engine.connect() as connection:
            if immediate:
                connection.execution_options(**{_IMMEDIATE: True})
            with connection.begin():
                yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turns SQLite's errors into the memory's own."""
        try:
            yield
        except DBAPIError as error:
            raise self._storage_error(str(error.orig)) from error
        except sqlite3.Error as error:
            raise self._storage_error(str(error)) from error

    def _storage_error(self, reason: str) -> StorageError:
        lowered = reason.lower()
        if "locked" in lowered or "busy" in lowered:
            return MemoryBusyError(
                f"{self.name} stayed locked by another process for {BUSY_TIMEOUT_S:.0f} s; try again."
            )
        if "readonly" in lowered or "read-only" in lowered:
            return ReadOnlyMemoryError(
                f"{self.name} cannot be written ({reason}); check the permissions of the file and its folder."
            )
        if "not a database" in lowered:
            return NotAMemoryError(f"{self.name} is not an SQLite database; give the path of a memory or a new one.")
        if "malformed" in lowered or "corrupt" in lowered:
            return NotAMemoryError(
                f"{self.name} is damaged ({reason}). Restore it from a backup; "
                "`sqlite3 FILE .recover` saves what can still be read."
            )
        if "unable to open" in lowered:
            return ReadOnlyMemoryError(
                f"{self.name} cannot be opened ({reason}); check the path and the permissions of its folder."
            )
        return StorageError(f"{self.name}: {reason}.")

    def _create_engine(self) -> Engine:
        if self.path is None:
            engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        else:
            engine = create_engine(
                URL.create("sqlite", database=str(self.path)),
                poolclass=QueuePool,
                pool_size=4,
                max_overflow=-1,
                connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_S},
            )
        event.listen(engine, "connect", self._prepare)
        event.listen(engine, "begin", _begin)
        return engine

    def _prepare(self, connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        """Sets up each new connection."""
        if not isinstance(connection, sqlite3.Connection):
            return
        _configure(connection, persistent=self.path is not None)

    def _raw(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.name, timeout=BUSY_TIMEOUT_S)
        _configure(connection, persistent=True)
        return connection


def _configure(connection: sqlite3.Connection, *, persistent: bool) -> None:
    connection.isolation_level = None  # transactions are begun by _begin, not guessed by the driver
    if persistent:
        _use_write_ahead_log(connection)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA secure_delete=ON")


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Switches to the log; SQLite does not wait by itself where several processes do so at the same moment."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _begin(connection: Connection) -> None:
    """Begins a transaction on the driver's own cursor, which takes a tenth of the time of SQLAlchemy's way."""
    immediate = connection.get_execution_options().get(_IMMEDIATE, False)
    connection.connection.cursor().execute("BEGIN IMMEDIATE" if immediate else "BEGIN")
