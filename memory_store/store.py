"""``EditMemory``: the durable memory of edits, as its users see it.

It joins the parts: a planner decides what an operation comes to, the ledger writes it in one transaction, and the
indexes follow the history by its sequence numbers, whichever process wrote it. Texts are encoded before the writing
transaction begins, so that no other process waits for an encoder; what was decided then is decided again inside it.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from memory_store import encoding, forks, index_file, ledger, reencoding, retrieval, tables, verification
from memory_store.database import Database
from memory_store.encoding import Encoding, VectorEncoder
from memory_store.errors import (
    ConflictError,
    EditStateError,
    EncoderRequiredError,
    InvalidArgumentError,
    InvalidEditError,
    PurgeIncompleteError,
)
from memory_store.faiss_index import FAISS_HALF
from memory_store.identity import Keys, keys_of
from memory_store.indexes import IndexType, VectorIndex
from memory_store.ledger import Filters, Head
from memory_store.live_indexes import LiveIndexes, Progress
from memory_store.migrations import SCHEMA_VERSION, migrate
from memory_store.planning import Planner
from memory_store.records import (
    JSON,
    AddManyProgress,
    AddManyReport,
    AddResult,
    Change,
    ConflictPolicy,
    Edit,
    EditState,
    Glance,
    Hit,
    MemoryStats,
    SettingChange,
    VerifyReport,
    check_namespace,
    check_policy,
    checked,
    drafted,
    in_utc,
)

_Edits: TypeAlias = "list[Edit]"
_Changes: TypeAlias = "list[Change]"
_SettingChanges: TypeAlias = "list[SettingChange]"
_Hits: TypeAlias = "list[list[Hit]]"
_Vectors: TypeAlias = "dict[str, NDArray[np.float32]]"

_Result = TypeVar("_Result")

_PAGE = 500


class _VectorsMissingError(Exception):
    """Inside a writing transaction it turned out that further texts must be encoded first."""

    def __init__(self, texts: Sequence[str]) -> None:
        super().__init__(f"{len(texts)} texts are not encoded")
        self.texts = texts


class EditMemory:
    """A memory of edits on disk, searchable by vectors. Safe for threads, processes and forks.

    Args:
        path: The database file, created if need be, or ``":memory:"`` for a memory that is gone when closed. Index
            files lie beside it in ``<path>.index/``; they can be deleted at any time.
        encoder: Turns texts into vectors. Without one, everything that needs no new vectors works.
        conflict_policy: What happens when a prompt that has a target in force gets another one.
        progress: Is told how far long work (building an index, encoding again) has come.
        index_type: Kind of vector index.
        reencode: Whether to take an encoder other than the one whose vectors are stored, and to encode every edit
            again with it before anything else.

    Raises:
        EncoderMismatchError: The stored vectors come from another encoder.
        NotAMemoryError: The file is something else, or damaged.
        SchemaVersionError: The file was written by a newer version of this package.
    """

    def __init__(
        self,
        path: str | Path = ":memory:",
        *,
        encoder: VectorEncoder | None = None,
        conflict_policy: ConflictPolicy = "supersede",
        progress: Progress | None = None,
        index_type: IndexType = FAISS_HALF,
        reencode: bool = False,
    ) -> None:
        self._policy = check_policy(conflict_policy)
        self._encoder = encoder
        self._progress = progress
        self._index_type = index_type
        self._database = Database(None if str(path) == ":memory:" else Path(path).expanduser().absolute())
        self._index_lock = threading.RLock()
        self._closed = False
        try:
            migrate(self._database)
            with self._database.reading() as connection:
                memory_id = ledger.get_meta(connection, tables.META_MEMORY_ID) or ""
                stored = encoding.stored_encoding(connection)
            if stored is not None and encoder is not None and not reencode:
                stored.check(encoder, self._database.name)
        except BaseException:
            self._database.close()
            raise
        self._indexes = LiveIndexes(
            folder=self._index_folder, memory_id=memory_id, index_type=index_type, progress=progress
        )
        self._encoding_at: tuple[int, Encoding | None] = (-1, None)
        forks.register(self)
        if reencode:
            self.reencode()

    # -- what it is ---------------------------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """The database file, or ``":memory:"``."""
        return self._database.name

    @property
    def encoder(self) -> VectorEncoder | None:
        """What turns texts into vectors."""
        return self._encoder

    @property
    def conflict_policy(self) -> ConflictPolicy:
        """What happens by default when a prompt that has a target in force gets another one."""
        return self._policy

    @property
    def sequence(self) -> int:
        """Number of the last change committed, by any process."""
        with self._database.reading() as connection:
            return ledger.head(connection).sequence

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"EditMemory({self.path!r})"

    def close(self) -> None:
        """Saves the indexes and closes the memory. Closing again does nothing."""
        with self._index_lock:
            if self._closed:
                return
            if self._indexes.loaded:
                with self._database.reading() as connection:
                    self._indexes.save(connection)
            self._indexes.forget()
            self._closed = True
            self._database.close()

    # -- adding -------------------------------------------------------------------------------------------------------

    def add(
        self,
        edit: Edit | str,
        target: str | None = None,
        *,
        on_conflict: ConflictPolicy | None = None,
        **fields: Any,
    ) -> AddResult:
        """Adds an edit; when this returns, it is on the disk and found by the next search.

        The same prompt and target (case of the prompt, spacing and Unicode composition aside) is one edit: added
        again, it gets the fields that are given and differ as a new version, or stays as it is; removed, superseded or
        expired, it comes back.

        Args:
            edit: A draft, or a prompt.
            target: What follows the prompt, if ``edit`` is one.
            on_conflict: Policy for this call; the memory's own by default.
            **fields: Further fields of ``Edit``.

        Raises:
            InvalidEditError: The edit cannot be stored.
            ConflictError: The policy is ``reject`` and an edit in force says something else.
            EncoderRequiredError: The memory has no encoder.
        """
        draft = checked(drafted(edit, target, fields))
        return self._add_all([draft], self._policy_of(on_conflict))[0]

    def add_many(
        self,
        edits: Iterable[Edit],
        *,
        chunk_size: int = 256,
        on_conflict: ConflictPolicy | None = None,
        on_chunk: Callable[[AddManyProgress], None] | None = None,
    ) -> AddManyReport:
        """Adds a stream of edits, in transactions of ``chunk_size``, each of which is stored whole or not at all.

        Edits that are there already are found before anything is encoded, so an interrupted import is resumed by
        running it again.

        Args:
            edits: Drafts; taken from the iterable as they are needed.
            chunk_size: Edits a transaction.
            on_conflict: Policy for this call; the memory's own by default.
            on_chunk: Is called after each commit.

        Raises:
            InvalidEditError: An edit cannot be stored; the error has its position and how many before it are stored.
            ConflictError: The policy is ``reject`` and an edit in force says something else; likewise.
        """
        if chunk_size < 1:
            raise InvalidArgumentError(f"chunk_size must be at least 1, not {chunk_size}.")
        policy = self._policy_of(on_conflict)
        report = AddManyReport()
        stream = iter(edits)
        while chunk := list(itertools.islice(stream, chunk_size)):
            drafts = _checked_chunk(chunk, report.seen)
            try:
                results = self._add_all(drafts, policy)
            except ConflictError as error:
                place = f" Nothing of edits {report.seen} to {report.seen + len(chunk) - 1} of the stream was stored."
                raise ConflictError(
                    str(error) + place,
                    edit_id=error.edit_id,
                    position=report.seen + (error.position or 0),
                    committed=report.seen,
                ) from error
            report = _counted(report, results)
            if on_chunk is not None:
                on_chunk(_progress_of(report, results))
        self._save_indexes()
        return report

    def _add_all(self, drafts: Sequence[Edit], policy: ConflictPolicy) -> Sequence[AddResult]:
        keyed = [(draft, keys_of(draft)) for draft in drafts]
        vectors: _Vectors = {}
        with self._database.reading() as connection:
            planner, results = self._plan(connection, keyed, policy, datetime.now(UTC))
        self._encode_missing(planner, vectors)
        if not planner.steps:
            return results

        def write(connection: Connection) -> Sequence[AddResult]:
            now = ledger.clock(connection)
            planner, results = self._plan(connection, keyed, policy, now)
            self._commit(connection, planner, vectors, now)
            return results

        return self._write(write, vectors)

    def _plan(
        self,
        connection: Connection,
        keyed: Sequence[tuple[Edit, Keys]],
        policy: ConflictPolicy,
        now: datetime,
    ) -> tuple[Planner, Sequence[AddResult]]:
        wanted = [(draft.namespace, keys.prompt) for draft, keys in keyed]
        planner = Planner(
            ledger.standing_by_prompt(connection, wanted),
            policy=policy,
            now=now,
            next_number=ledger.next_number(connection),
        )
        results = []
        for position, (draft, keys) in enumerate(keyed):
            try:
                results.append(planner.add(draft, keys))
            except ConflictError as error:
                error.position = position
                raise
        return planner, results

    def _write(self, write: Callable[[Connection], _Result], vectors: _Vectors) -> _Result:
        """Runs a writing transaction, again after encoding if it lacked vectors, and brings the indexes up to date."""
        while True:
            try:
                with self._database.writing() as connection:
                    result = write(connection)
            except _VectorsMissingError as missing:
                vectors.update(encoding.encode(self._required_encoder("store this"), missing.texts))
            else:
                break
        self._catch_up()
        return result

    def _commit(self, connection: Connection, planner: Planner, vectors: _Vectors, now: datetime) -> None:
        missing = _texts_to_encode(planner, vectors)
        if missing:
            raise _VectorsMissingError(missing)
        if any(step.new_texts for step in planner.steps):
            encoder = self._required_encoder("store this")
            stored = encoding.stored_encoding(connection)
            if stored is None:
                encoding.store_encoding(connection, encoder)
            else:
                stored.check(encoder, self.path)
        ledger.write(connection, planner.steps, vectors, now)

    def _encode_missing(self, planner: Planner, vectors: _Vectors) -> None:
        missing = _texts_to_encode(planner, vectors)
        if missing:
            vectors.update(encoding.encode(self._required_encoder("add an edit"), missing))

    # -- changing -----------------------------------------------------------------------------------------------------

    def update(self, edit_id: str, *, on_conflict: ConflictPolicy | None = None, **changes: Any) -> Edit:
        """Changes fields of an active edit and returns the new version; without a real change, the edit as it is.

        Args:
            edit_id: Its id, or the beginning of it.
            on_conflict: Policy for this call, if prompt, target or expiry change.
            **changes: New values of fields of ``Edit``; the namespace cannot be changed.

        Raises:
            EditStateError: The edit is not active.
            ConflictError: Another active edit says the same, or the policy is ``reject`` and one says something else.
        """
        if "namespace" in changes:
            raise InvalidEditError("An edit cannot change its namespace; add it in the other one and remove it here.")
        policy = self._policy_of(on_conflict)
        vectors: _Vectors = {}

        def write(connection: Connection) -> Edit:
            number, before = ledger.find(connection, edit_id)
            if before.state != "active":
                raise EditStateError(f"Edit {before.id} is {before.state}; restore it before changing it.")
            draft = checked(before.changed(**changes))
            after = replace(
                draft,
                id=before.id,
                created_at=before.created_at,
                updated_at=before.updated_at,
                version=before.version,
                content_hash=before.content_hash,
            )
            if after == before:
                return before
            says_else = keys_of(after) != keys_of(before) or after.expires_at != before.expires_at
            now = ledger.clock(connection)
            planner = self._planner_for(connection, number, after, policy, now)
            edit = planner.replace(number, after, "update", new_version=True, settle=says_else)
            self._commit(connection, planner, vectors, now)
            return edit

        return self._write(write, vectors)

    def remove(self, edit_id: str) -> Edit:
        """Puts an edit out of force until it is restored; does nothing if it is removed already."""

        def write(connection: Connection) -> Edit:
            number, before = ledger.find(connection, edit_id)
            if before.state == "removed":
                return before
            now = ledger.clock(connection)
            planner = self._planner_for(connection, number, before, self._policy, now)
            after = replace(before, state="removed")
            edit = planner.replace(number, after, "remove", new_version=False, settle=False)
            self._commit(connection, planner, {}, now)
            return edit

        return self._write(write, {})

    def restore(self, edit_id: str, *, on_conflict: ConflictPolicy | None = None) -> Edit:
        """Puts a removed or superseded edit in force again, without encoding; an active one stays as it is.

        Raises:
            ConflictError: Another active edit says the same, or the policy is ``reject`` and one says something else.
        """
        policy = self._policy_of(on_conflict)

        def write(connection: Connection) -> Edit:
            number, before = ledger.find(connection, edit_id)
            if before.state == "active":
                return before
            now = ledger.clock(connection)
            planner = self._planner_for(connection, number, before, policy, now)
            after = replace(before, state="active")
            edit = planner.replace(number, after, "restore", new_version=False, settle=True)
            self._commit(connection, planner, {}, now)
            return edit

        return self._write(write, {})

    def purge(self, edit_id: str) -> None:
        """Erases an edit for good: its text, vectors and history, from every file of the memory.

        The database is rewritten and its log emptied, which takes time in proportion to its size. What the file system
        or the disk keep of overwritten blocks is out of reach. Purging a purged edit does the cleaning again.

        Raises:
            PurgeIncompleteError: The edit is gone, but another process kept reading, so that the log still holds its
                text; purge it again once that process is done.
        """
        with self._index_lock:
            with self._database.writing() as connection:
                number, edit = ledger.find(connection, edit_id, purged=True)
                if edit.state != "purged":
                    ledger.erase(connection, number, edit, ledger.clock(connection))
            clean = self._database.compact()
            self._clean_index_of(edit.namespace)
        if not clean:
            raise PurgeIncompleteError(
                f"Edit {edit.id} is purged, but another process is reading {self.path} and keeps its write-ahead log "
                f"alive, which still holds the text. Purge {edit.id} again when that process is done."
            )

    def _clean_index_of(self, namespace: str) -> None:
        """Replaces the namespace's index file by one without the purged vectors."""
        if self._index_folder is None:
            return
        index_file.path_of(self._index_folder, namespace).unlink(missing_ok=True)
        index_file.delete_unfinished(self._index_folder)
        self._indexes.drop(namespace)
        with self._database.reading() as connection:
            self._current_indexes(connection, [namespace])
            self._indexes.save(connection)

    def _planner_for(
        self, connection: Connection, number: int, after: Edit, policy: ConflictPolicy, now: datetime
    ) -> Planner:
        wanted = [(after.namespace, keys_of(after).prompt)]
        return Planner(
            ledger.standing_by_prompt(connection, wanted, numbers=[number]),
            policy=policy,
            now=now,
            next_number=ledger.next_number(connection),
        )

    # -- reading ------------------------------------------------------------------------------------------------------

    def get(self, edit_id: str) -> Edit:
        """Returns an edit, in any state, by its id or the beginning of it (four characters or more).

        Raises:
            EditNotFoundError: There is none, or it was purged.
            AmbiguousIdError: Several ids begin so.
        """
        with self._database.reading() as connection:
            return ledger.find(connection, edit_id)[1]

    def list(
        self,
        *,
        namespace: str | None = None,
        state: EditState | None = "active",
        subject: str | None = None,
        source: str | None = None,
        author: str | None = None,
        contains: str | None = None,
        include_expired: bool = True,
        limit: int | None = None,
        offset: int = 0,
        newest_first: bool = False,
    ) -> _Edits:
        """Returns the edits that pass all filters, in the order in which they were added.

        Args:
            namespace: Only of this one.
            state: Only in this state; ``None`` for any but purged.
            subject: Only with this subject.
            source: Only from this source.
            author: Only by this author.
            contains: Only with this text in prompt or target, case of ASCII letters aside.
            include_expired: Whether active edits that have expired are among them.
            limit: At most so many.
            offset: Leaving out so many at the beginning.
            newest_first: Whether the last added come first.
        """
        _check_page(limit, offset)
        filters = Filters(
            namespace=namespace,
            state=state,
            subject=subject,
            source=source,
            author=author,
            contains=contains,
            include_expired=include_expired,
        )
        with self._database.reading() as connection:
            found = ledger.select_edits(
                connection, filters, datetime.now(UTC), limit=limit, offset=offset, newest_first=newest_first
            )
        return [edit for _, edit in found]

    def iterate(
        self,
        *,
        namespace: str | None = None,
        state: EditState | None = "active",
        subject: str | None = None,
        source: str | None = None,
        author: str | None = None,
        contains: str | None = None,
        include_expired: bool = True,
        newest_first: bool = False,
    ) -> Iterator[Edit]:
        """Yields what ``list`` returns, a page at a time; edits added meanwhile may or may not be among them."""
        filters = Filters(
            namespace=namespace,
            state=state,
            subject=subject,
            source=source,
            author=author,
            contains=contains,
            include_expired=include_expired,
        )
        after: int | None = None
        while True:
            with self._database.reading() as connection:
                page = ledger.select_edits(
                    connection, filters, datetime.now(UTC), limit=_PAGE, newest_first=newest_first, after=after
                )
            yield from (edit for _, edit in page)
            if len(page) < _PAGE:
                return
            after = page[-1][0]

    def count(
        self,
        *,
        namespace: str | None = None,
        state: EditState | None = "active",
        subject: str | None = None,
        source: str | None = None,
        author: str | None = None,
        contains: str | None = None,
        include_expired: bool = True,
    ) -> int:
        """Returns how many edits pass the filters of ``list``."""
        filters = Filters(
            namespace=namespace,
            state=state,
            subject=subject,
            source=source,
            author=author,
            contains=contains,
            include_expired=include_expired,
        )
        with self._database.reading() as connection:
            return ledger.count_edits(connection, filters, datetime.now(UTC))

    def history(self, edit_id: str) -> _Changes:
        """Returns all changes of an edit, oldest first; a purged one is named by its whole id or the beginning."""
        with self._database.reading() as connection:
            number, _ = ledger.find(connection, edit_id, purged=True)
            return ledger.history(connection, number)

    def as_of(self, time: datetime, *, namespace: str | None = None) -> _Edits:
        """Returns the edits that were in force at a time (aware), as they were; those purged since are gone."""
        moment = in_utc(time, "time")
        with self._database.reading() as connection:
            return ledger.as_of(connection, moment, namespace)

    def changes_since(self, sequence: int, *, limit: int | None = None) -> _Changes:
        """Returns the changes after a sequence number, by any process, oldest first."""
        _check_page(limit, sequence)
        with self._database.reading() as connection:
            return ledger.changes_since(connection, sequence, limit)

    def is_empty(self, *, namespaces: Sequence[str] | None = None) -> bool:
        """Returns whether no edit is in force, anywhere or in these namespaces. Cheap enough for every query."""
        return self.glance(namespaces=namespaces).empty

    def glance(self, *, namespaces: Sequence[str] | None = None) -> Glance:
        """Returns whether no edit is in force, anywhere or in these namespaces, and how far their settings have come.

        One look that is cheap enough for every query, so that a reader may keep settings until they change.
        """
        with self._database.reading() as connection:
            return ledger.glance(connection, namespaces, datetime.now(UTC))

    def get_setting(self, key: str, default: JSON = None) -> JSON:
        """Returns a JSON value kept with the memory, or ``default``."""
        with self._database.reading() as connection:
            found, value = ledger.get_setting(connection, key)
        return value if found else default

    def set_setting(self, key: str, value: JSON) -> None:
        """Keeps a JSON value with the memory; ``None`` forgets it."""
        with self._database.writing() as connection:
            ledger.set_setting(connection, key, value)

    def get_namespace_setting(self, namespace: str, key: str, default: JSON = None) -> JSON:
        """Returns a JSON value kept for a namespace, or ``default``; see ``set_namespace_setting``."""
        check_namespace(namespace)
        with self._database.reading() as connection:
            value = ledger.get_namespace_setting(connection, namespace, key)
        return default if value is None else value

    def set_namespace_setting(self, namespace: str, key: str, value: JSON) -> None:
        """Keeps a JSON value for a namespace, with its history, as long as there is the memory.

        Every process sees it at its next query, by ``glance``. Unlike edits, settings are not purged: keep no one's
        words in them.

        Args:
            namespace: The namespace; it need not have edits.
            key: Any name.
            value: The value; ``None`` forgets it. One that is in force already makes no new entry.
        """
        check_namespace(namespace)
        with self._database.writing() as connection:
            ledger.put_namespace_setting(connection, namespace, key, value)

    def namespace_settings(self) -> dict[str, dict[str, JSON]]:
        """Returns every value kept for a namespace, by namespace and key."""
        with self._database.reading() as connection:
            return ledger.get_namespace_settings(connection)

    def namespace_setting_history(self, namespace: str, key: str) -> _SettingChanges:
        """Returns what a namespace's setting was set to, by any process, oldest first."""
        check_namespace(namespace)
        with self._database.reading() as connection:
            return ledger.namespace_setting_history(connection, namespace, key)

    # -- searching ----------------------------------------------------------------------------------------------------

    def search(
        self,
        vectors: NDArray[np.float32],
        k: int = 10,
        *,
        namespaces: Sequence[str] | None = None,
        now: datetime | None = None,
        min_score: float | None = None,
    ) -> _Hits:
        """Finds the edits in force nearest to each query, including those that any process has committed by now.

        Args:
            vectors: Unit vectors, ``[queries, dimension]``.
            k: Most hits a query.
            namespaces: Where to search; everywhere by default.
            now: Edits that have expired by this time (aware) are left out; the present by default.
            min_score: Edits whose score is less are left out, which also makes the search quicker.

        Returns:
            For each query its hits, best first; an edit occurs once, with the best of its vectors.

        Raises:
            InvalidVectorError: The vectors have another dimension or are not of unit length.
            EncoderMismatchError: Another process encoded the memory again with another encoder.
        """
        if k < 1:
            raise InvalidArgumentError(f"k must be at least 1, not {k}.")
        for namespace in namespaces or ():
            check_namespace(namespace)
        moment = datetime.now(UTC) if now is None else in_utc(now, "now")
        with self._index_lock, self._database.reading() as connection:
            stored, indexes = self._current_indexes(connection, namespaces)
            if stored is None:
                return [[] for _ in vectors]
            queries = encoding.checked_vectors(vectors, stored.dimension, "the query")
            return retrieval.nearest(connection, indexes, queries, k, now=moment, min_score=min_score)

    def search_text(
        self,
        texts: Sequence[str],
        k: int = 10,
        *,
        namespaces: Sequence[str] | None = None,
        now: datetime | None = None,
        min_score: float | None = None,
    ) -> _Hits:
        """Encodes texts and finds the edits nearest to each; see ``search``."""
        if isinstance(texts, str):
            raise InvalidArgumentError("texts must be a list of texts, not one text.")
        if not texts:
            return []
        encoder = self._required_encoder("search for a text")
        return self.search(encoder.encode(list(texts)), k, namespaces=namespaces, now=now, min_score=min_score)

    def _current_indexes(
        self, connection: Connection, namespaces: Sequence[str] | None
    ) -> tuple[Encoding | None, Sequence[VectorIndex]]:
        """Returns whose vectors are stored, and the indexes as of the transaction's snapshot."""
        head, stored = self._checked_head(connection)
        if stored is None:
            return None, []
        return stored, self._indexes.current(connection, head, stored.dimension, namespaces)

    def _checked_head(self, connection: Connection) -> tuple[Head, Encoding | None]:
        head = ledger.head(connection)
        generation, stored = self._encoding_at
        if stored is None or generation != head.generation:
            stored = encoding.stored_encoding(connection)
            if stored is not None and self._encoder is not None:
                stored.check(self._encoder, self.path)
            self._encoding_at = (head.generation, stored)
        return head, stored

    def _catch_up(self) -> None:
        """Brings loaded indexes up to date with what was just written."""
        with self._index_lock:
            if not self._indexes.loaded:
                return
            with self._database.reading() as connection:
                head, stored = self._checked_head(connection)
                if stored is not None:
                    self._indexes.catch_up(connection, head, stored.dimension)

    def _save_indexes(self) -> None:
        with self._index_lock:
            if self._indexes.loaded:
                with self._database.reading() as connection:
                    self._indexes.save(connection)

    # -- maintenance --------------------------------------------------------------------------------------------------

    def verify(self, *, repair: bool = False) -> VerifyReport:
        """Checks the file, every hash, vector and history entry, and that each index holds the stored vectors.

        Args:
            repair: Whether to build the indexes anew if one of them is wrong. Nothing else can be repaired from what
                is there.
        """
        problems = self._database.integrity_problems()
        if problems:
            problems.append(f"Restore {self.path} from a backup; `sqlite3 FILE .recover` saves what can be read.")
            return VerifyReport(problems=tuple(problems), repaired=(), edits=0, vectors=0, changes=0, indexes=0)
        repaired: Sequence[str] = ()
        with self._index_lock, self._database.reading() as connection:
            head, stored = self._checked_head(connection)
            findings = verification.check(connection, None if stored is None else stored.dimension)
            compared: int = 0
            wrong: Sequence[str] = ()
            if stored is not None and findings.vectors_readable:
                compared, wrong = self._indexes.problems(connection, head, stored.dimension)
                if wrong and repair:
                    self._indexes.rebuild(connection, head, stored.dimension)
                    repaired = wrong
                    compared, wrong = self._indexes.problems(connection, head, stored.dimension)
        return VerifyReport(
            problems=(*findings.problems, *wrong),
            repaired=tuple(repaired),
            edits=findings.edits,
            vectors=findings.vectors,
            changes=findings.changes,
            indexes=compared,
        )

    def rebuild_index(self) -> None:
        """Builds every index from the stored vectors, without the encoder, and saves it."""
        with self._index_lock, self._database.reading() as connection:
            head, stored = self._checked_head(connection)
            if stored is not None:
                self._indexes.rebuild(connection, head, stored.dimension)

    def reencode(self) -> int:
        """Encodes every edit again with the present encoder, as one change: all vectors are replaced or none.

        The vectors wait in a temporary file, so other processes can go on meanwhile; edits changed in that time are
        encoded within the final transaction.

        Returns:
            The number of vectors.
        """
        encoder = self._required_encoder("encode again")
        written = reencoding.reencode(self._database, encoder, self._progress)
        self.rebuild_index()
        return written

    def stats(self) -> MemoryStats:
        """Returns size and state of the memory."""
        with self._database.reading() as connection:
            counts = ledger.counts(connection, datetime.now(UTC))
            stored = encoding.stored_encoding(connection)
            settings = ledger.get_namespace_settings(connection)
        folder = self._index_folder
        return MemoryStats(
            path=self.path,
            schema_version=SCHEMA_VERSION,
            sequence=counts.sequence,
            edits=counts.by_state,
            expired=counts.expired,
            namespaces=counts.active_by_namespace,
            vectors=counts.vectors,
            database_bytes=self._database.size(),
            index_bytes=0 if folder is None else index_file.size(folder),
            encoder_fingerprint=None if stored is None else stored.fingerprint,
            dimension=None if stored is None else stored.dimension,
            index_type=self._index_type.name,
            settings=settings,
        )

    # -- the rest -----------------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Finishes what is going on and closes idle connections; called by the interpreter before a fork."""
        self._index_lock.acquire()
        self._database.lock.acquire()
        self._database.release()

    def after_fork(self) -> None:
        """Goes on, in the parent and in the child; called by the interpreter after a fork."""
        self._database.lock.release()
        self._index_lock.release()

    @property
    def _index_folder(self) -> Path | None:
        path = self._database.path
        return None if path is None else path.with_name(path.name + ".index")

    def _policy_of(self, given: ConflictPolicy | None) -> ConflictPolicy:
        return self._policy if given is None else check_policy(given)

    def _required_encoder(self, purpose: str) -> VectorEncoder:
        if self._encoder is None:
            raise EncoderRequiredError(
                f"To {purpose}, the memory needs an encoder: open it with EditMemory({self.path!r}, encoder=...)."
            )
        return self._encoder


def _checked_chunk(chunk: Sequence[Edit], seen: int) -> _Edits:
    drafts = []
    for position, edit in enumerate(chunk, start=seen):
        try:
            drafts.append(checked(edit))
        except InvalidEditError as error:
            raise InvalidEditError(
                f"Edit {position} of the stream: {error} The first {seen} edits of the stream are stored.",
                position=position,
                committed=seen,
            ) from error
    return drafts


def _texts_to_encode(planner: Planner, vectors: _Vectors) -> Sequence[str]:
    """Returns the new texts, of the edits as they come to stand, that are not encoded yet."""
    last = {step.number: step.edit for step in planner.steps}
    recoded = dict.fromkeys(step.number for step in planner.steps if step.new_texts)
    texts = (text.text for number in recoded for text in last[number].texts())
    return [text for text in dict.fromkeys(texts) if text not in vectors]


def _counted(report: AddManyReport, results: Sequence[AddResult]) -> AddManyReport:
    outcomes = Counter(result.outcome for result in results)
    return AddManyReport(
        seen=report.seen + len(results),
        added=report.added + outcomes["added"],
        updated=report.updated + outcomes["updated"],
        unchanged=report.unchanged + outcomes["unchanged"],
        superseded=report.superseded + sum(len(result.superseded) for result in results),
    )


def _progress_of(report: AddManyReport, results: Sequence[AddResult]) -> AddManyProgress:
    return AddManyProgress(
        ids=tuple(result.edit.id for result in results),
        seen=report.seen,
        added=report.added,
        updated=report.updated,
        unchanged=report.unchanged,
        superseded=report.superseded,
    )


def _check_page(limit: int | None, offset: int) -> None:
    if limit is not None and limit < 0:
        raise InvalidArgumentError(f"limit must not be negative; got {limit}.")
    if offset < 0:
        raise InvalidArgumentError(f"An offset or sequence must not be negative; got {offset}.")
