"""What the memory stores and hands back: edits, hits, changes and reports, and the limits an edit must keep.

Plain values. This file knows nothing of databases, vectors or indexes.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias, get_args

from memory_store.errors import InvalidArgumentError, InvalidEditError

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
"""What JSON can say."""

EditState = Literal["active", "superseded", "removed", "purged"]
"""Life of an edit. An expired edit stays ``active`` with ``expires_at`` in the past; it never fires."""

ConflictPolicy = Literal["supersede", "reject", "keep_both"]
"""What happens when a prompt that has a target in force gets another one."""

TextKind = Literal["prompt", "fact", "paraphrase", "alias"]
"""Where a text of an edit comes from."""

Action = Literal["add", "update", "supersede", "remove", "restore", "purge"]
"""What a change did."""

AddOutcome = Literal["added", "unchanged", "updated"]
"""What an ``add`` came to: a new edit, nothing to do, or a new version of an edit that was there."""

MAX_TEXT_CHARACTERS = 20_000
"""Longest prompt, target, subject, alias, paraphrase, source or author, in characters."""
MAX_OTHER_TEXTS = 1_000
"""Most paraphrases and aliases of one edit, together."""
MAX_METADATA_BYTES = 64 * 1024
"""Largest metadata, as UTF-8 JSON."""
MAX_NAMESPACE_CHARACTERS = 200
"""Longest namespace, in characters."""

_SET_BY_THE_STORE = ("id", "created_at", "updated_at", "version", "state", "content_hash")


@dataclass(frozen=True, slots=True)
class EditText:
    """One text by which an edit is found.

    Attributes:
        kind: Where the text comes from.
        text: The text itself, as it is encoded.
    """

    kind: TextKind
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One fact that a model is to state: a prompt and the target that completes or answers it.

    Texts are kept as given. The last six fields are set by the memory; what a draft holds there is ignored by ``add``.

    Attributes:
        prompt: Beginning of a statement ("The capital of France is") or a question.
        target: What follows, or answers, the prompt.
        subject: What the fact is about, as it stands in the prompt.
        aliases: Other names of the subject.
        paraphrases: Other ways to put the prompt.
        namespace: Which group of edits this one belongs to; groups never see one another's edits.
        source: Where the fact comes from.
        author: Who entered it.
        expires_at: From when on the edit no longer fires (aware; kept in UTC).
        metadata: Anything else, as a JSON object.
        id: Name of the edit, 16 hexadecimal characters.
        created_at: When it was first added (UTC).
        updated_at: When it last changed in any way (UTC).
        version: 1 when added, one more with each update of what it says.
        state: Whether it is in force.
        content_hash: SHA-256 of what it says, whitespace and Unicode composition aside.
    """

    prompt: str
    target: str
    subject: str | None = None
    aliases: tuple[str, ...] = ()
    paraphrases: tuple[str, ...] = ()
    namespace: str = "default"
    source: str | None = None
    author: str | None = None
    expires_at: datetime | None = None
    metadata: Mapping[str, JSON] = field(default_factory=dict, hash=False)
    id: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None
    version: int = 0
    state: EditState = "active"
    content_hash: str = ""

    @property
    def fact(self) -> str:
        """Prompt and target as one statement ("The capital of France is Paris"), or a question with its answer."""
        return f"{self.prompt.rstrip()} {self.target.lstrip()}"

    def texts(self) -> tuple[EditText, ...]:
        """Returns the texts by which the edit is found, each once.

        The prompt, the fact, each paraphrase; and for each alias the prompt with the alias in the subject's place,
        where the prompt names the subject.
        """
        found: dict[str, TextKind] = {self.prompt: "prompt"}
        found.setdefault(self.fact, "fact")
        for paraphrase in self.paraphrases:
            found.setdefault(paraphrase, "paraphrase")
        if self.subject is not None and self.subject in self.prompt:
            for alias in self.aliases:
                found.setdefault(self.prompt.replace(self.subject, alias), "alias")
        return tuple(EditText(kind, text) for text, kind in found.items())

    def is_live(self, now: datetime) -> bool:
        """Returns whether the edit may fire at ``now``: active and not expired."""
        return self.state == "active" and (self.expires_at is None or self.expires_at > now)

    def to_json(self) -> dict[str, Any]:
        """Returns the edit as a JSON object, times in ISO 8601; what is unset or empty is left out."""
        whole: dict[str, Any] = {}
        for name in _FIELD_NAMES:
            value = getattr(self, name)
            if isinstance(value, datetime):
                whole[name] = value.isoformat()
            elif isinstance(value, tuple):
                if value:
                    whole[name] = list(value)
            elif isinstance(value, Mapping):
                if value:
                    whole[name] = dict(value)
            elif value not in {None, "", 0}:
                whole[name] = value
        return whole

    @classmethod
    def from_json(cls, mapping: Mapping[str, Any]) -> Edit:
        """Reads an edit from a JSON object as ``to_json`` writes it.

        Raises:
            InvalidEditError: An unknown key (the message names the nearest known one), a missing prompt or target, or
                a value of the wrong type.
        """
        if not isinstance(mapping, Mapping):
            raise InvalidEditError(f"An edit is a JSON object, not {type(mapping).__name__}.")
        for key in mapping:
            if key not in _FIELD_NAMES:
                raise InvalidEditError(f"An edit has no field {key!r}.{_did_you_mean(key)}")
        for key in ("prompt", "target"):
            if mapping.get(key) is None:
                raise InvalidEditError(f"The edit has no {key}; both 'prompt' and 'target' are required.")
        values: dict[str, Any] = {key: value for key, value in mapping.items() if value is not None}
        for key in ("aliases", "paraphrases"):
            if key in values:
                values[key] = _strings(key, values[key])
        for key in ("expires_at", "created_at", "updated_at"):
            if key in values:
                values[key] = _moment(key, values[key])
        if values.get("state", "active") not in get_args(EditState):
            raise InvalidEditError(f"state is one of {', '.join(get_args(EditState))}, not {values['state']!r}.")
        return cls(**values)

    def changed(self, **changes: Any) -> Edit:
        """Returns a copy with other fields.

        Raises:
            InvalidEditError: An unknown field, or one that only the memory sets.
        """
        for key in changes:
            if key not in _FIELD_NAMES:
                raise InvalidEditError(f"An edit has no field {key!r}.{_did_you_mean(key)}")
            if key in _SET_BY_THE_STORE:
                raise InvalidEditError(f"{key!r} is set by the memory and cannot be given.")
        return replace(self, **changes)


_FIELD_NAMES = tuple(one.name for one in fields(Edit))


def checked(draft: Edit) -> Edit:
    """Returns a draft in the form in which it is stored, or says what is wrong with it.

    Lists become tuples, ``expires_at`` is brought to UTC, fields that the memory sets are emptied. Texts stay as given.

    Raises:
        InvalidEditError: A field that is empty, too large, of the wrong type, or holds a character that cannot be
            stored.
    """
    if not isinstance(draft, Edit):
        raise InvalidEditError(f"Expected an Edit, got {type(draft).__name__}; Edit.from_json reads a mapping.")
    for name in ("prompt", "target"):
        _check_text(name, getattr(draft, name))
    for name in ("subject", "source", "author"):
        if getattr(draft, name) is not None:
            _check_text(name, getattr(draft, name))
    aliases = _strings("aliases", draft.aliases)
    paraphrases = _strings("paraphrases", draft.paraphrases)
    if len(aliases) + len(paraphrases) > MAX_OTHER_TEXTS:
        raise InvalidEditError(
            f"An edit has at most {MAX_OTHER_TEXTS:,} paraphrases and aliases together; "
            f"this one has {len(aliases) + len(paraphrases):,}."
        )
    for text in aliases:
        _check_text("aliases", text)
    for text in paraphrases:
        _check_text("paraphrases", text)
    check_namespace(draft.namespace)
    metadata = _plain_metadata(draft.metadata)
    return Edit(
        prompt=draft.prompt,
        target=draft.target,
        subject=draft.subject,
        aliases=aliases,
        paraphrases=paraphrases,
        namespace=draft.namespace,
        source=draft.source,
        author=draft.author,
        expires_at=None if draft.expires_at is None else in_utc(draft.expires_at, "expires_at"),
        metadata=metadata,
    )


def check_namespace(namespace: str) -> None:
    """Checks the name of a namespace.

    Raises:
        InvalidEditError: It is empty, too long, or holds a character that cannot be printed.
    """
    if not isinstance(namespace, str):
        raise InvalidEditError(f"namespace must be a string, not {type(namespace).__name__}.")
    if not 1 <= len(namespace) <= MAX_NAMESPACE_CHARACTERS or not namespace.isprintable():
        raise InvalidEditError(
            f"A namespace has 1 to {MAX_NAMESPACE_CHARACTERS} printable characters; got {namespace[:60]!r}"
            f" ({len(namespace)} characters)."
        )


def in_utc(moment: datetime, name: str) -> datetime:
    """Returns an aware time in UTC.

    Raises:
        InvalidEditError: ``moment`` is no datetime, or names no time zone.
    """
    if not isinstance(moment, datetime):
        raise InvalidEditError(f"{name} must be a datetime, not {type(moment).__name__}.")
    if moment.tzinfo is None:
        raise InvalidEditError(f"{name} must say its time zone, such as datetime.now(UTC); got {moment!r}.")
    return moment.astimezone(UTC)


def _check_text(name: str, text: object) -> None:
    if not isinstance(text, str):
        raise InvalidEditError(f"{name} must be text, not {type(text).__name__}.")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise InvalidEditError(
            f"{name} has {len(text):,} characters; at most {MAX_TEXT_CHARACTERS:,} can be stored. Shorten it."
        )
    if not text or text.isspace():
        raise InvalidEditError(f"{name} is empty.")
    if "\0" in text:
        raise InvalidEditError(f"{name} holds a NUL character at position {text.index(chr(0))}; remove it.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidEditError(
            f"{name} holds half of a surrogate pair at position {error.start}, which is no character; remove it."
        ) from error


def _plain_metadata(metadata: object) -> dict[str, JSON]:
    if not isinstance(metadata, Mapping) or not all(isinstance(key, str) for key in metadata):
        raise InvalidEditError("metadata must be a mapping from strings to JSON values.")
    if not metadata:
        return {}
    try:
        text = as_json(metadata)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEditError(f"metadata cannot be written as JSON: {error}.") from error
    if size > MAX_METADATA_BYTES:
        raise InvalidEditError(f"metadata takes {size:,} bytes as JSON; at most {MAX_METADATA_BYTES:,} can be stored.")
    plain: dict[str, JSON] = json.loads(text)
    return plain


def as_json(value: JSON) -> str:
    """Returns a value as compact JSON with sorted keys; NaN and infinity are refused with ``ValueError``."""
    plain = dict(value) if isinstance(value, Mapping) else value
    return json.dumps(plain, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _strings(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InvalidEditError(f"{name} must be a list of texts, not {type(value).__name__}.")
    for text in value:
        if not isinstance(text, str):
            raise InvalidEditError(f"{name} must hold texts only, not {type(text).__name__}.")
    return tuple(value)


def _moment(name: str, value: object) -> datetime:
    if isinstance(value, datetime):
        return in_utc(value, name)
    try:
        return in_utc(datetime.fromisoformat(str(value)), name)
    except ValueError as error:
        raise InvalidEditError(
            f"{name} must be a time in ISO 8601 with its time zone, such as 2027-01-31T00:00:00+00:00; got {value!r}."
        ) from error


def _did_you_mean(name: object) -> str:
    near = difflib.get_close_matches(str(name), _FIELD_NAMES, n=1)
    if near:
        return f" Did you mean {near[0]!r}?"
    return f" The fields are {', '.join(_FIELD_NAMES)}."


@dataclass(frozen=True, slots=True)
class Hit:
    """An edit that a search found, by the best of its vectors.

    Attributes:
        edit: The edit.
        score: Cosine of the query with that vector.
        kind: Which of the edit's texts it is.
        text: That text.
    """

    edit: Edit
    score: float
    kind: TextKind
    text: str


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the memory's history.

    Attributes:
        sequence: Its place among all changes of the memory, counted from 1 without gaps.
        edit_id: The edit that changed.
        namespace: Its namespace.
        action: What was done.
        version: The edit's version after the change.
        at: When (UTC); never earlier than the change before.
        edit: The edit as it was after the change; ``None`` once the edit is purged.
    """

    sequence: int
    edit_id: str
    namespace: str
    action: Action
    version: int
    at: datetime
    edit: Edit | None


@dataclass(frozen=True, slots=True)
class SettingChange:
    """One entry in the history of a namespace's settings.

    Attributes:
        sequence: Its place among all such entries of the memory, counted from 1.
        namespace: The namespace.
        key: The setting.
        value: What it was set to; ``None`` if it was forgotten.
        at: When (UTC); never earlier than the entry before.
    """

    sequence: int
    namespace: str
    key: str
    value: JSON
    at: datetime


@dataclass(frozen=True, slots=True)
class Glance:
    """What a reader asks before every query, in one look.

    Attributes:
        empty: Whether no edit is in force in the namespaces that were asked about.
        settings_sequence: Of the last change of any namespace's settings, by any process; 0 if there was none. As long
            as it stays the same, so do the settings.
    """

    empty: bool
    settings_sequence: int


@dataclass(frozen=True, slots=True)
class AddResult:
    """What an ``add`` came to.

    Attributes:
        edit: The edit as it now stands.
        outcome: Whether it is new, was there already, or became a new version or active again.
        superseded: Ids of the edits that it put out of force.
    """

    edit: Edit
    outcome: AddOutcome
    superseded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AddManyProgress:
    """What ``add_many`` reports after the commit of a chunk.

    Attributes:
        ids: Ids of the edits of this chunk, in the order given; all are durable.
        seen: Edits taken from the stream so far.
        added: New ones among them.
        updated: Those that became a new version, or active again.
        unchanged: Those that were there already.
        superseded: Edits put out of force.
    """

    ids: tuple[str, ...]
    seen: int
    added: int
    updated: int
    unchanged: int
    superseded: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AddManyReport:
    """What ``add_many`` came to.

    Attributes:
        seen: Edits taken from the stream.
        added: New ones among them.
        updated: Those that became a new version, or active again.
        unchanged: Those that were there already.
        superseded: Edits put out of force.
    """

    seen: int = 0
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    superseded: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What ``verify`` found.

    Attributes:
        problems: What is wrong, one sentence each, with what to do; empty if all is well. Problems that were repaired
            are not among them.
        repaired: What was wrong and is right again.
        edits: Edits read, in any state.
        vectors: Vectors read.
        changes: Entries of the history read.
        indexes: Index files and namespaces compared with the database.
    """

    problems: tuple[str, ...]
    repaired: tuple[str, ...]
    edits: int
    vectors: int
    changes: int
    indexes: int

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong (any more)."""
        return not self.problems


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryStats:
    """Size and state of a memory.

    Attributes:
        path: The database file, or ``":memory:"``.
        schema_version: Number of the newest migration.
        sequence: Of the last change.
        edits: Number of edits by state.
        expired: Active edits that have expired; they are counted as active too.
        namespaces: Active edits by namespace.
        vectors: Stored vectors, those of removed and superseded edits included.
        database_bytes: Size of the database with its write-ahead log.
        index_bytes: Size of the index files.
        encoder_fingerprint: Of the encoder whose vectors these are; ``None`` before the first vector.
        dimension: Length of a vector; ``None`` before the first vector.
        index_type: Kind of index in use.
        settings: What is kept for each namespace, by key.
    """

    path: str
    schema_version: int
    sequence: int
    edits: Mapping[EditState, int]
    expired: int
    namespaces: Mapping[str, int]
    vectors: int
    database_bytes: int
    index_bytes: int
    encoder_fingerprint: str | None
    dimension: int | None
    index_type: str
    settings: Mapping[str, Mapping[str, JSON]]


def drafted(edit: Edit | str, target: str | None, fields: Mapping[str, Any]) -> Edit:
    """Returns the draft that ``add`` is given: an edit, or a prompt and its target, with further fields laid over.

    Args:
        edit: A draft, or a prompt.
        target: What follows the prompt, if ``edit`` is one.
        fields: Further fields of ``Edit``.

    Raises:
        InvalidArgumentError: Both an edit and a target are given.
        InvalidEditError: A prompt has no target, or there is no such field.
    """
    if isinstance(edit, Edit):
        if target is not None:
            raise InvalidArgumentError("Give either an Edit or a prompt and a target, not both.")
        return edit.changed(**fields)
    if target is None:
        raise InvalidEditError("The edit has no target; give add(prompt, target) or add(Edit(...)).")
    return Edit(prompt=edit, target=target).changed(**fields)


def check_policy(policy: str) -> ConflictPolicy:
    """Returns a conflict policy by its name.

    Raises:
        InvalidArgumentError: There is none of this name.
    """
    for known in get_args(ConflictPolicy):
        if policy == known:
            return known  # type: ignore[no-any-return]  # get_args is typed as a tuple of Any
    raise InvalidArgumentError(f"A conflict policy is one of {', '.join(get_args(ConflictPolicy))}, not {policy!r}.")
