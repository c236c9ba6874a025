"""``add``, ``update``, ``remove``, ``restore``, ``purge``: what changes the edits of a memory."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memedit.commands.exits import CommandError, ExitCode
from memedit.commands.options import (
    ConfigOption,
    EditId,
    EditIds,
    EncoderOption,
    JsonOption,
    MemoryOption,
    ModelOption,
    NamespaceOption,
    OnConflictOption,
)
from memedit.commands.render import short_id
from memedit.commands.runtime import Session

if TYPE_CHECKING:
    from memedit.expansion import Expansion
    from memory_store import Change, Edit, EditMemory

__all__ = ["add", "purge", "remove", "restore", "update"]


class ClearableField(StrEnum):
    """A field that may be empty, with what it then is."""

    SUBJECT = "subject"
    ALIASES = "aliases"
    PARAPHRASES = "paraphrases"
    SOURCE = "source"
    AUTHOR = "author"
    EXPIRES_AT = "expires_at"
    METADATA = "metadata"


_EMPTY: Mapping[str, Any] = {"aliases": (), "paraphrases": (), "metadata": {}}
"""What an emptied field is, where that is not None."""

SubjectOption = Annotated[str | None, typer.Option(metavar="NAME", help="What the fact is about.")]
AliasOption = Annotated[
    list[str] | None, typer.Option("--alias", metavar="NAME", help="Another name of the subject; repeatable.")
]
ParaphraseOption = Annotated[
    list[str] | None,
    typer.Option("--paraphrase", metavar="TEXT", help="Another wording of the prompt; repeatable."),
]
SourceOption = Annotated[str | None, typer.Option(metavar="TEXT", help="Where the fact comes from.")]
AuthorOption = Annotated[str | None, typer.Option(metavar="NAME", help="Who made the edit.")]
ExpiresOption = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="When the edit stops to apply, ISO-8601, such as 2027-01-31 or 2027-01-31T12:00+02:00.",
    ),
]
MetadataOption = Annotated[
    list[str] | None,
    typer.Option("--metadata", metavar="KEY=VALUE", help="Anything else to keep with it; repeatable."),
]


def add(
    ctx: typer.Context,
    prompt: Annotated[
        str,
        typer.Argument(metavar="PROMPT", help="The beginning of a statement, or a question.", show_default=False),
    ],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="What shall follow it.", show_default=False)],
    subject: SubjectOption = None,
    alias: AliasOption = None,
    paraphrase: ParaphraseOption = None,
    source: SourceOption = None,
    author: AuthorOption = None,
    expires_at: ExpiresOption = None,
    metadata: MetadataOption = None,
    expand: Annotated[
        bool,
        typer.Option(
            "--expand", help="Have the model propose other names and wordings; those that pass some checks are added."
        ),
    ] = False,
    on_conflict: OnConflictOption = None,
    memory: MemoryOption = None,
    namespace: NamespaceOption = None,
    model: ModelOption = None,
    encoder: EncoderOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add an edit: from now on PROMPT is answered with TARGET.

    The same fact added twice is one edit. Where the prompt has another target already, --on-conflict decides.

    With --expand, what the model proposed is shown, and what was not taken of it, with the reason.

    Example: memedit add "The headquarters of Acme Rockets is in" Lisbon --subject "Acme Rockets"
    """
    session = Session.start(
        ctx,
        config_file,
        as_json=as_json,
        memory=memory,
        namespace=namespace,
        encoder=encoder,
        on_conflict=on_conflict,
        model=model,
        mode="ike" if expand else None,  # nobody is going to answer, so nothing is tried out
    )
    fields = _fields(subject, alias, paraphrase, source, author, expires_at, metadata)
    fields["namespace"] = session.config.namespace
    expansion = None
    if expand:
        from memory_store.records import drafted

        with session.model(create=True) as edited:
            expansion = edited.expand(drafted(prompt, target, fields))
            result = edited.memory.add(expansion.expanded)
    else:
        with session.memory(encoder=True, create=True) as opened:
            result = opened.add(prompt, target, **fields)
    if as_json:
        session.output.json(
            {"outcome": result.outcome, "superseded": list(result.superseded), "edit": result.edit.to_json()}
            | ({} if expansion is None else {"expansion": expansion.to_json()})
        )
        return
    session.output.line(f"{result.outcome} {result.edit.id}")
    if expansion is not None:
        _tell_expansion(session, expansion)
    for other in result.superseded:
        session.output.note(f"superseded {other} (undo with: memedit restore {short_id(other)})")


def update(
    ctx: typer.Context,
    edit_id: EditId,
    prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="The new prompt.")] = None,
    target: Annotated[str | None, typer.Option(metavar="TEXT", help="The new target.")] = None,
    subject: SubjectOption = None,
    alias: AliasOption = None,
    paraphrase: ParaphraseOption = None,
    source: SourceOption = None,
    author: AuthorOption = None,
    expires_at: ExpiresOption = None,
    metadata: MetadataOption = None,
    clear: Annotated[
        list[ClearableField] | None,
        typer.Option(metavar="FIELD", help=f"Empty a field ({', '.join(ClearableField)}); repeatable."),
    ] = None,
    on_conflict: OnConflictOption = None,
    memory: MemoryOption = None,
    encoder: EncoderOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change some fields of an edit; its history keeps what they were.

    Repeatable fields (--alias, --paraphrase, --metadata) are replaced as a whole.
    """
    session = Session.start(ctx, config_file, as_json=as_json, memory=memory, encoder=encoder, on_conflict=on_conflict)
    changes = _fields(subject, alias, paraphrase, source, author, expires_at, metadata)
    changes |= {name: text for name, text in (("prompt", prompt), ("target", target)) if text is not None}
    changes |= {name.value: _EMPTY.get(name) for name in clear or ()}
    if not changes:
        raise typer.BadParameter("nothing to change: give at least one field, such as --target TEXT")
    with session.memory(encoder=True) as opened:
        before = opened.get(edit_id)
        _tell(session, "updated", before, opened.update(before.id, **changes))


def remove(
    ctx: typer.Context,
    edit_ids: EditIds,
    memory: MemoryOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove edits; they no longer apply, and can be restored."""
    session = Session.start(ctx, config_file, as_json=as_json, memory=memory)
    _change_each(session, edit_ids, "removed", lambda opened, edit_id: opened.remove(edit_id))


def restore(
    ctx: typer.Context,
    edit_ids: EditIds,
    on_conflict: OnConflictOption = None,
    memory: MemoryOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Restore edits that were removed or superseded."""
    session = Session.start(ctx, config_file, as_json=as_json, memory=memory, on_conflict=on_conflict)
    _change_each(session, edit_ids, "restored", lambda opened, edit_id: opened.restore(edit_id))


def purge(
    ctx: typer.Context,
    edit_ids: EditIds,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    memory: MemoryOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase edits for good: their text is gone from the database, the history and the index."""
    session = Session.start(ctx, config_file, as_json=as_json, memory=memory)
    with session.memory() as opened:
        last_changes = [opened.history(edit_id)[-1] for edit_id in edit_ids]
        if not yes:
            _confirm_purge(session, last_changes)
        for change in last_changes:
            opened.purge(change.edit_id)
            _tell_purged(session, change.edit_id)


def _change_each(
    session: Session, edit_ids: Iterable[str], outcome: str, change: Callable[[EditMemory, str], Edit]
) -> None:
    with session.memory() as opened:
        edits = [opened.get(edit_id) for edit_id in edit_ids]  # all are there, or nothing is done
        for edit in edits:
            _tell(session, outcome, edit, change(opened, edit.id))


def _tell(session: Session, outcome: str, before: Edit, edit: Edit) -> None:
    if edit == before:
        outcome = "unchanged"
    if session.output.as_json:
        session.output.json({"outcome": outcome, "edit": edit.to_json()})
        return
    session.output.line(f"{outcome} {edit.id}")
    session.output.note(edit.fact)


def _tell_purged(session: Session, edit_id: str) -> None:
    if session.output.as_json:
        session.output.json({"outcome": "purged", "id": edit_id})
    else:
        session.output.line(f"purged {edit_id}")


def _confirm_purge(session: Session, last_changes: Iterable[Change]) -> None:
    if session.output.as_json or not sys.stdin.isatty():
        raise CommandError(
            "purge erases edits for good and asks first, but nobody is there to answer",
            code=ExitCode.REFUSED,
            hint="add --yes if this is meant",
        )
    for change in last_changes:
        fact = change.edit.fact if change.edit else "purged already; what is left of it is cleaned up"
        session.output.note(f"{short_id(change.edit_id)}  {fact}", style="")
    typer.confirm("Erase for good?", abort=True, err=True)


def _tell_expansion(session: Session, expansion: Expansion) -> None:
    """What the model's proposals came to."""
    for kind, texts in (("alias", expansion.aliases), ("paraphrase", expansion.paraphrases)):
        for text in texts:
            session.output.line(f"{kind}: {text}")
    for refused in expansion.refused:
        session.output.note(f"not taken as {refused.kind}: {refused.text} ({refused.why})")


def _fields(
    subject: str | None,
    aliases: list[str] | None,
    paraphrases: list[str] | None,
    source: str | None,
    author: str | None,
    expires_at: str | None,
    metadata: list[str] | None,
) -> dict[str, Any]:
    """The fields that were given, as the memory takes them."""
    fields: dict[str, Any] = {"subject": subject, "source": source, "author": author}
    fields |= {"aliases": tuple(aliases or ()) or None, "paraphrases": tuple(paraphrases or ()) or None}
    fields |= {"expires_at": _moment(expires_at), "metadata": _metadata(metadata)}
    return {name: value for name, value in fields.items() if value is not None}


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no ISO-8601 time", param_hint="--expires-at") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _metadata(entries: list[str] | None) -> dict[str, Any] | None:
    if not entries:
        return None
    found = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{entry!r} is not KEY=VALUE", param_hint="--metadata")
        found[key] = _json_or_text(value)
    return found


def _json_or_text(value: str) -> Any:
    """Numbers, booleans, null, lists and objects as JSON has them, anything else as text."""
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value
