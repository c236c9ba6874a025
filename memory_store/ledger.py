"""Reads and writes the rows of a memory: edits, their vectors and their history.

Every function takes an open transaction. This file knows nothing of encoders, indexes or conflict policies.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from memory_store import tables
from memory_store.errors import AmbiguousIdError, EditNotFoundError, NotAMemoryError
from memory_store.identity import Keys
from memory_store.planning import Standing, Step
from memory_store.records import JSON, Action, Change, Edit, EditState, Glance, SettingChange, TextKind, as_json
from memory_store.tables import POSITION_BITS, changes, edits, meta, namespace_settings, settings, vectors

MIN_ID_PREFIX = 4
"""Fewest characters by which an edit can be named."""

_T = TypeVar("_T")
_VALUES_A_QUERY = 500
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_EDIT_COLUMNS = (
    edits.c.number,
    edits.c.id,
    edits.c.namespace,
    edits.c.prompt,
    edits.c.target,
    edits.c.subject,
    edits.c.aliases,
    edits.c.paraphrases,
    edits.c.source,
    edits.c.author,
    edits.c.expires_at,
    edits.c.metadata,
    edits.c.created_at,
    edits.c.updated_at,
    edits.c.version,
    edits.c.state,
    edits.c.content_hash,
)


@dataclass(frozen=True, slots=True)
class Head:
    """How far the memory has come.

    Attributes:
        sequence: Of the last change.
        generation: How often all vectors were replaced.
    """

    sequence: int
    generation: int


@dataclass(frozen=True, slots=True)
class StoredText:
    """One encoded text with its edit, as a search needs them; most are never shown, so the edit is read on demand.

    Attributes:
        kind: Which of the edit's texts it is.
        text: That text.
        vector: See ``from_bytes``.
        row: The edit's values, in the order of ``_EDIT_COLUMNS``.
    """

    kind: TextKind
    text: str
    vector: bytes
    row: Sequence[Any]

    def is_live(self, now: int) -> bool:
        """Returns whether the edit may fire at a time in microseconds; see ``Edit.is_live``."""
        expires_at, state = self.row[10], self.row[15]
        return state == "active" and (expires_at is None or expires_at > now)

    def edit(self) -> Edit:
        """Returns the edit."""
        return _edit(self.row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which edits are meant; ``None`` leaves a field open."""

    namespace: str | None = None
    state: EditState | None = "active"
    subject: str | None = None
    source: str | None = None
    author: str | None = None
    contains: str | None = None
    include_expired: bool = True


# -- times ----------------------------------------------------------------------------------------------------------


def to_micros(moment: datetime) -> int:
    """Returns an aware time as microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """Returns microseconds since 1970 as a time in UTC."""
    return _EPOCH + timedelta(microseconds=micros)


# -- what the memory knows of itself ----------------------------------------------------------------------------------

_HEAD = str(
    select(
        select(func.coalesce(func.max(changes.c.sequence), 0)).scalar_subquery(),
        select(meta.c.value).where(meta.c.key == tables.META_GENERATION).scalar_subquery(),
    ).compile(compile_kwargs={"literal_binds": True})
)


def head(connection: Connection) -> Head:
    """Returns how far the memory has come, in the transaction's snapshot.

    Every search asks this, so the driver is asked itself: that takes a fifth of the time.
    """
    cursor = connection.connection.cursor()
    cursor.execute(_HEAD)
    ((sequence, generation),) = cursor.fetchall()
    cursor.close()
    return Head(sequence, int(generation))


def get_meta(connection: Connection, key: str) -> str | None:
    """Returns one of the values of the table ``meta``."""
    return connection.execute(select(meta.c.value).where(meta.c.key == key)).scalar()


def set_meta(connection: Connection, key: str, value: str) -> None:
    """Sets one of the values of the table ``meta``."""
    if connection.execute(update(meta).where(meta.c.key == key).values(value=value)).rowcount == 0:
        connection.execute(insert(meta), {"key": key, "value": value})


def get_setting(connection: Connection, key: str) -> tuple[bool, JSON]:
    """Returns whether a setting is there, and its value."""
    text = connection.execute(select(settings.c.value).where(settings.c.key == key)).scalar()
    return (False, None) if text is None else (True, json.loads(text))


def set_setting(connection: Connection, key: str, value: JSON) -> None:
    """Stores a setting, or forgets it if the value is ``None``."""
    connection.execute(delete(settings).where(settings.c.key == key))
    if value is not None:
        connection.execute(insert(settings), {"key": key, "value": as_json(value)})


_SETTING = (
    select(namespace_settings.c.value)
    .where(namespace_settings.c.namespace == bindparam("namespace"), namespace_settings.c.key == bindparam("key"))
    .order_by(namespace_settings.c.sequence.desc())
    .limit(1)
)


def get_namespace_setting(connection: Connection, namespace: str, key: str) -> JSON:
    """Returns a namespace's setting; ``None`` if it was never set, or forgotten."""
    text = _setting_text(connection, namespace, key)
    return None if text is None else json.loads(text)


def _setting_text(connection: Connection, namespace: str, key: str) -> str | None:
    return connection.execute(_SETTING, {"namespace": namespace, "key": key}).scalar()


def get_namespace_settings(connection: Connection) -> dict[str, dict[str, JSON]]:
    """Returns the settings in force, by namespace and key."""
    last = select(func.max(namespace_settings.c.sequence)).group_by(
        namespace_settings.c.namespace, namespace_settings.c.key
    )
    rows = connection.execute(
        select(namespace_settings.c.namespace, namespace_settings.c.key, namespace_settings.c.value)
        .where(namespace_settings.c.sequence.in_(last), namespace_settings.c.value.is_not(None))
        .order_by(namespace_settings.c.namespace, namespace_settings.c.key)
    )
    found: dict[str, dict[str, JSON]] = {}
    for namespace, key, text in rows:
        found.setdefault(namespace, {})[key] = json.loads(cast("str", text))
    return found


def put_namespace_setting(connection: Connection, namespace: str, key: str, value: JSON) -> None:
    """Sets a namespace's setting, or forgets it if the value is ``None``; the history keeps what it was."""
    text = None if value is None else as_json(value)
    if text == _setting_text(connection, namespace, key):
        return
    last = connection.execute(select(func.max(namespace_settings.c.at))).scalar()
    now = to_micros(datetime.now(UTC))
    row = {"namespace": namespace, "key": key, "value": text, "at": now if last is None else max(now, last)}
    connection.execute(insert(namespace_settings), row)


def namespace_setting_history(connection: Connection, namespace: str, key: str) -> list[SettingChange]:
    """Returns what a namespace's setting was set to, oldest first."""
    columns = namespace_settings.c
    rows = connection.execute(
        select(columns.sequence, columns.value, columns.at)
        .where(columns.namespace == namespace, columns.key == key)
        .order_by(columns.sequence)
    )
    return [
        SettingChange(sequence, namespace, key, None if text is None else json.loads(text), from_micros(at))
        for sequence, text, at in rows
    ]


def clock(connection: Connection) -> datetime:
    """Returns the time for a change: now, but never earlier than the change before."""
    last = connection.execute(select(changes.c.at).order_by(changes.c.sequence.desc()).limit(1)).scalar()
    now = datetime.now(UTC)
    return now if last is None else max(now, from_micros(last))


# -- reading edits ----------------------------------------------------------------------------------------------------


def standing_by_prompt(
    connection: Connection, wanted: Iterable[tuple[str, bytes]], *, numbers: Sequence[int] = ()
) -> list[Standing]:
    """Returns the edits, purged ones excepted, with one of the (namespace, prompt key) pairs or one of the numbers."""
    found: dict[int, Standing] = {}
    statement = select(*_EDIT_COLUMNS, edits.c.prompt_key, edits.c.fact_key).where(edits.c.state != "purged")
    for pairs in _chunks(list(dict.fromkeys(wanted)), _VALUES_A_QUERY // 2):
        rows = connection.execute(
            statement.where(
                edits.c.prompt_key.in_([key for _, key in pairs]),
                edits.c.namespace.in_(sorted({namespace for namespace, _ in pairs})),
            )
        )
        found.update((row[0], _standing(row)) for row in rows)
    if numbers:
        rows = connection.execute(statement.where(edits.c.number.in_(numbers)))
        found.update((row[0], _standing(row)) for row in rows)
    return list(found.values())


def next_number(connection: Connection) -> int:
    """Returns the first edit number never used."""
    return (connection.execute(select(func.max(edits.c.number))).scalar() or 0) + 1


def find(connection: Connection, edit_id: str, *, purged: bool = False) -> tuple[int, Edit]:
    """Returns the number and the edit with this id, or the only one whose id begins so.

    Args:
        connection: An open transaction.
        edit_id: An id, or its first four or more characters.
        purged: Whether a purged edit, of which only an empty row is left, is found too.

    Raises:
        EditNotFoundError: There is none, or it was purged.
        AmbiguousIdError: There are several, or too few characters to look them up.
    """
    if not isinstance(edit_id, str) or len(edit_id) < MIN_ID_PREFIX:
        raise AmbiguousIdError(
            f"{edit_id!r} is too short for an id; give at least its first {MIN_ID_PREFIX} characters."
        )
    statement = select(*_EDIT_COLUMNS).where(edits.c.id.startswith(edit_id, autoescape=True))
    rows = connection.execute(statement.order_by(edits.c.id != edit_id, edits.c.id).limit(3)).all()
    if not rows:
        raise EditNotFoundError(f"No edit has the id {edit_id!r}.")
    if len(rows) > 1 and rows[0].id != edit_id:
        raise AmbiguousIdError(
            f"Several edits have ids that begin with {edit_id!r} ({', '.join(row.id for row in rows)} ...); "
            "give more of it."
        )
    if rows[0].state == "purged" and not purged:
        raise EditNotFoundError(f"Edit {rows[0].id} was purged; nothing of it is left but its place in the history.")
    return rows[0].number, _edit(rows[0])


def select_edits(
    connection: Connection,
    filters: Filters,
    now: datetime,
    *,
    limit: int | None = None,
    offset: int = 0,
    newest_first: bool = False,
    after: int | None = None,
) -> list[tuple[int, Edit]]:
    """Returns the edits that pass the filters, with their numbers, in the order in which they were added."""
    statement = select(*_EDIT_COLUMNS).where(*_conditions(filters, now))
    if after is not None:
        statement = statement.where(edits.c.number < after if newest_first else edits.c.number > after)
    statement = statement.order_by(edits.c.number.desc() if newest_first else edits.c.number)
    rows = connection.execute(statement.limit(-1 if limit is None else limit).offset(offset))
    return [(row.number, _edit(row)) for row in rows]


def count_edits(connection: Connection, filters: Filters, now: datetime) -> int:
    """Returns how many edits pass the filters."""
    statement = select(func.count()).select_from(edits).where(*_conditions(filters, now))
    return connection.execute(statement).scalar_one()


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How much the memory holds; see ``MemoryStats``."""

    sequence: int
    by_state: dict[EditState, int]
    expired: int
    active_by_namespace: dict[str, int]
    vectors: int


def counts(connection: Connection, now: datetime) -> Counts:
    """Counts edits, vectors and changes."""
    states = connection.execute(select(edits.c.state, func.count()).group_by(edits.c.state))
    by_state = {cast("EditState", state): count for state, count in states}
    active = select(edits.c.namespace, func.count()).where(edits.c.state == "active")
    by_namespace = connection.execute(active.group_by(edits.c.namespace).order_by(edits.c.namespace))
    live = count_edits(connection, Filters(include_expired=False), now)
    return Counts(
        sequence=head(connection).sequence,
        by_state=by_state,
        expired=by_state.get("active", 0) - live,
        active_by_namespace={row[0]: row[1] for row in by_namespace},
        vectors=connection.execute(select(func.count()).select_from(vectors)).scalar_one(),
    )


_ANY_LIVE = (
    select(edits.c.number)
    .where(
        edits.c.state == "active",
        or_(edits.c.expires_at.is_(None), edits.c.expires_at > bindparam("now")),
    )
    .limit(1)
)
_ANY_LIVE_IN = _ANY_LIVE.where(edits.c.namespace.in_(bindparam("namespaces", expanding=True)))
_LAST_SETTING = select(func.coalesce(func.max(namespace_settings.c.sequence), 0)).scalar_subquery()
_GLANCE = select(_ANY_LIVE.scalar_subquery(), _LAST_SETTING)
_GLANCE_IN = select(_ANY_LIVE_IN.scalar_subquery(), _LAST_SETTING)


def glance(connection: Connection, namespaces: Sequence[str] | None, now: datetime) -> Glance:
    """Returns whether an edit is in force, in any namespace or in these, and how far settings have come."""
    values: dict[str, object] = {"now": to_micros(now)}
    if namespaces is None:
        number, sequence = connection.execute(_GLANCE, values).one()
    else:
        number, sequence = connection.execute(_GLANCE_IN, {**values, "namespaces": list(namespaces)}).one()
    return Glance(empty=number is None, settings_sequence=sequence)


_TEXTS = (
    select(vectors.c.id, vectors.c.kind, vectors.c.text, vectors.c.vector, *_EDIT_COLUMNS)
    .join(edits, edits.c.number == vectors.c.edit)
    .where(vectors.c.id.in_(bindparam("ids", expanding=True)))
)


def texts_of(connection: Connection, vector_ids: Sequence[int]) -> dict[int, StoredText]:
    """Returns the text and edit of each vector id that exists."""
    found: dict[int, StoredText] = {}
    for ids in _chunks(vector_ids, _VALUES_A_QUERY):
        for vector_id, kind, text, vector, *row in connection.execute(_TEXTS, {"ids": ids}).all():
            found[vector_id] = StoredText(kind, text, vector, row)
    return found


# -- history ----------------------------------------------------------------------------------------------------------

_CHANGES = select(
    changes.c.sequence,
    edits.c.id,
    changes.c.namespace,
    changes.c.action,
    changes.c.version,
    changes.c.at,
    changes.c.snapshot,
).join(edits, edits.c.number == changes.c.edit)


def history(connection: Connection, number: int) -> list[Change]:
    """Returns the changes of one edit, oldest first."""
    rows = connection.execute(_CHANGES.where(changes.c.edit == number).order_by(changes.c.sequence))
    return [_change(row) for row in rows]


def changes_since(connection: Connection, sequence: int, limit: int | None) -> list[Change]:
    """Returns the changes after a sequence number, oldest first."""
    statement = _CHANGES.where(changes.c.sequence > sequence).order_by(changes.c.sequence)
    return [_change(row) for row in connection.execute(statement.limit(-1 if limit is None else limit))]


def as_of(connection: Connection, moment: datetime, namespace: str | None) -> list[Edit]:
    """Returns the edits that were in force at a time, in the order in which they were added."""
    last = select(func.max(changes.c.sequence)).where(changes.c.at <= to_micros(moment)).group_by(changes.c.edit)
    statement = select(changes.c.snapshot).where(changes.c.sequence.in_(last), changes.c.snapshot.is_not(None))
    if namespace is not None:
        statement = statement.where(changes.c.namespace == namespace)
    rows = connection.execute(statement.order_by(changes.c.edit)).scalars()
    then = [Edit.from_json(json.loads(snapshot)) for snapshot in rows if snapshot is not None]
    return [edit for edit in then if edit.is_live(moment)]


# -- writing ----------------------------------------------------------------------------------------------------------


def write(
    connection: Connection, steps: Sequence[Step], encoded: Mapping[str, NDArray[np.float32]], at: datetime
) -> None:
    """Writes planned steps: history, edits as they come to stand, and vectors of new texts.

    Args:
        connection: A writing transaction.
        steps: In the order in which they happen; an edit may occur several times.
        encoded: The vector of each new text.
        at: Time of the changes.
    """
    last = {step.number: step for step in steps}
    new = {step.number for step in steps if step.is_new}
    recoded = {step.number for step in steps if step.new_texts}
    rewritten = [last[number] for number in last if number not in new]
    rewritten.sort(key=lambda step: step.edit.state == "active")
    if rewritten:
        connection.execute(_UPDATE_EDIT, [{"which": step.number, **_edit_row(step)} for step in rewritten])
    if new:
        connection.execute(insert(edits), [{"number": n, **_edit_row(last[n])} for n in sorted(new)])
    for number in recoded - new:
        connection.execute(_DELETE_VECTORS, {"first": number << POSITION_BITS, "end": (number + 1) << POSITION_BITS})
    rows = [row for number in sorted(recoded) for row in _vector_rows(number, last[number].edit, encoded)]
    if rows:
        connection.execute(insert(vectors), rows)
    micros = to_micros(at)
    if steps:
        connection.execute(insert(changes), [_change_row(step, micros) for step in steps])


def erase(connection: Connection, number: int, edit: Edit, at: datetime) -> None:
    """Empties an edit's row, its history and its vectors; what is left says only that it was there."""
    micros = to_micros(at)
    connection.execute(
        update(edits)
        .where(edits.c.number == number)
        .values(
            prompt="",
            target="",
            subject=None,
            aliases="[]",
            paraphrases="[]",
            source=None,
            author=None,
            expires_at=None,
            metadata="{}",
            updated_at=micros,
            state="purged",
            content_hash="",
            prompt_key=None,
            fact_key=None,
        )
    )
    connection.execute(_DELETE_VECTORS, {"first": number << POSITION_BITS, "end": (number + 1) << POSITION_BITS})
    connection.execute(update(changes).where(changes.c.edit == number).values(snapshot=None))
    connection.execute(
        insert(changes),
        {
            "edit": number,
            "namespace": edit.namespace,
            "action": "purge",
            "version": edit.version,
            "at": micros,
            "snapshot": None,
        },
    )


def replace_vectors(
    connection: Connection, pieces: Iterable[Sequence[tuple[int, Edit, Mapping[str, NDArray[np.float32]]]]]
) -> int:
    """Replaces every vector of the memory; returns how many there are now."""
    connection.execute(delete(vectors))
    written = 0
    for piece in pieces:
        rows = [row for number, edit, encoded in piece for row in _vector_rows(number, edit, encoded)]
        if rows:
            connection.execute(insert(vectors), rows)
        written += len(rows)
    return written


# -- vectors ----------------------------------------------------------------------------------------------------------


def vector_batches(
    connection: Connection, namespace: str, dimension: int, *, edit_numbers: Sequence[int] | None = None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Reads the vectors of a namespace's active edits, all or those of some edits, some thousand at a time.

    Yields:
        Ids ``[vectors]`` and vectors ``[vectors, dimension]``.
    """
    statement: Select[int, bytes] = (
        select(vectors.c.id, vectors.c.vector)
        .join(edits, edits.c.number == vectors.c.edit)
        .where(edits.c.namespace == namespace, edits.c.state == "active")
    )
    if edit_numbers is None:
        yield from _batches(connection, statement.order_by(vectors.c.id), dimension)
        return
    for numbers in _chunks(edit_numbers, _VALUES_A_QUERY):
        yield from _batches(connection, statement.where(vectors.c.edit.in_(numbers)), dimension)


def from_bytes(data: Sequence[bytes], dimension: int) -> NDArray[np.float32]:
    """Returns stored vectors as an array, ``[vectors, dimension]``.

    Raises:
        NotAMemoryError: One of them has another length.
    """
    if any(len(one) != 4 * dimension for one in data):
        raise NotAMemoryError(
            "A stored vector has a wrong length: the database was altered from outside. `memedit verify` says "
            "which, `memedit reindex`, or EditMemory.reencode(), encodes all edits again."
        )
    joined = np.frombuffer(b"".join(data), dtype="<f4")
    return joined.reshape(len(data), dimension).astype(np.float32, copy=False)


def count_vectors(connection: Connection, namespace: str) -> int:
    """Returns the number of vectors of a namespace's active edits."""
    statement = (
        select(func.count())
        .select_from(vectors.join(edits, edits.c.number == vectors.c.edit))
        .where(edits.c.namespace == namespace, edits.c.state == "active")
    )
    return connection.execute(statement).scalar_one()


def namespaces_since(connection: Connection, sequence: int) -> list[str]:
    """Returns the namespaces that changed after a sequence number; all of them for 0."""
    statement = select(changes.c.namespace).where(changes.c.sequence > sequence).distinct()
    return list(connection.execute(statement).scalars())


def edits_changed_since(connection: Connection, sequence: int, namespace: str) -> list[int]:
    """Returns the numbers of a namespace's edits that changed after a sequence number."""
    statement = (
        select(changes.c.edit)
        .where(changes.c.sequence > sequence, changes.c.namespace == namespace)
        .distinct()
        .order_by(changes.c.edit)
    )
    return list(connection.execute(statement).scalars())


def mark_of(connection: Connection, sequence: int) -> str:
    """Returns what tells the change with this number from that of another copy of the memory."""
    row = connection.execute(
        select(changes.c.edit, changes.c.action, changes.c.at).where(changes.c.sequence == sequence)
    ).first()
    return "" if row is None else f"{row.edit} {row.action} {row.at}"


# -- rows -------------------------------------------------------------------------------------------------------------

_UPDATE_EDIT = (
    update(edits)
    .where(edits.c.number == bindparam("which"))
    .values({column.name: bindparam(column.name) for column in edits.c if column.name != "number"})
)
_DELETE_VECTORS = delete(vectors).where(vectors.c.id >= bindparam("first"), vectors.c.id < bindparam("end"))


def _edit_row(step: Step) -> dict[str, object]:
    edit = step.edit
    return {
        "id": edit.id,
        "namespace": edit.namespace,
        "prompt": edit.prompt,
        "target": edit.target,
        "subject": edit.subject,
        "aliases": as_json(edit.aliases) if edit.aliases else "[]",
        "paraphrases": as_json(edit.paraphrases) if edit.paraphrases else "[]",
        "source": edit.source,
        "author": edit.author,
        "expires_at": None if edit.expires_at is None else to_micros(edit.expires_at),
        "metadata": as_json(edit.metadata) if edit.metadata else "{}",
        "created_at": to_micros(cast("datetime", edit.created_at)),
        "updated_at": to_micros(cast("datetime", edit.updated_at)),
        "version": edit.version,
        "state": edit.state,
        "content_hash": edit.content_hash,
        "prompt_key": step.keys.prompt,
        "fact_key": step.keys.fact,
    }


def _vector_rows(number: int, edit: Edit, encoded: Mapping[str, NDArray[np.float32]]) -> Iterator[dict[str, object]]:
    for position, text in enumerate(edit.texts()):
        yield {
            "id": number << POSITION_BITS | position,
            "edit": number,
            "kind": text.kind,
            "text": text.text,
            "vector": encoded[text.text].astype("<f4", copy=False).tobytes(),
        }


def _change_row(step: Step, at: int) -> dict[str, object]:
    return {
        "edit": step.number,
        "namespace": step.edit.namespace,
        "action": step.action,
        "version": step.edit.version,
        "at": at,
        "snapshot": as_json(step.edit.to_json()),
    }


def _edit(row: Sequence[Any]) -> Edit:
    """Reads an edit from values in the order of ``_EDIT_COLUMNS``; further values are ignored."""
    aliases, paraphrases, expires_at, metadata = row[6], row[7], row[10], row[11]
    return Edit(
        id=row[1],
        namespace=row[2],
        prompt=row[3],
        target=row[4],
        subject=row[5],
        aliases=() if aliases == "[]" else tuple(json.loads(aliases)),
        paraphrases=() if paraphrases == "[]" else tuple(json.loads(paraphrases)),
        source=row[8],
        author=row[9],
        expires_at=None if expires_at is None else from_micros(expires_at),
        metadata={} if metadata == "{}" else json.loads(metadata),
        created_at=from_micros(row[12]),
        updated_at=from_micros(row[13]),
        version=row[14],
        state=row[15],
        content_hash=row[16],
    )


def _standing(row: Sequence[Any]) -> Standing:
    *_, prompt_key, fact_key = row
    return Standing(row[0], _edit(row), Keys(prompt_key, fact_key))


def _change(row: Sequence[Any]) -> Change:
    sequence, edit_id, namespace, action, version, at, snapshot = row
    edit = None if snapshot is None else Edit.from_json(json.loads(snapshot))
    return Change(sequence, edit_id, namespace, cast("Action", action), version, from_micros(at), edit)


def _conditions(filters: Filters, now: datetime) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if filters.state is None:
        found.append(edits.c.state != "purged")
    else:
        found.append(edits.c.state == filters.state)
    for column, value in (
        (edits.c.namespace, filters.namespace),
        (edits.c.subject, filters.subject),
        (edits.c.source, filters.source),
        (edits.c.author, filters.author),
    ):
        if value is not None:
            found.append(column == value)
    if filters.contains is not None:
        found.append(
            or_(
                edits.c.prompt.icontains(filters.contains, autoescape=True),
                edits.c.target.icontains(filters.contains, autoescape=True),
            )
        )
    if not filters.include_expired:
        found.append(or_(edits.c.expires_at.is_(None), edits.c.expires_at > to_micros(now)))
    return found


def _batches(
    connection: Connection, statement: Select[int, bytes], dimension: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    for rows in connection.execute(statement).partitions(4096):
        ids = np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))
        yield ids, from_bytes([row[1] for row in rows], dimension)


def _chunks(values: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
