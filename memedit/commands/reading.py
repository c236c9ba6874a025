"""``list``, ``show``, ``history``, ``stats``: what reads a memory, without its encoder."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from memedit.commands.options import (
    AllNamespacesOption,
    ConfigOption,
    EditId,
    JsonOption,
    MemoryOption,
    NamespaceOption,
)
from memedit.commands.render import (
    change_json,
    differences,
    edit_row,
    edit_table,
    history_row,
    history_table,
    properties,
    show_edit,
    size,
)
from memedit.commands.runtime import Session

if TYPE_CHECKING:
    from memory_store import EditMemory, MemoryStats

__all__ = ["history", "list_edits", "show", "stats"]

ListedState = Literal["active", "superseded", "removed", "all"]


def list_edits(
    ctx: typer.Context,
    contains: Annotated[
        str | None,
        typer.Argument(metavar="[TEXT]", help="Only edits with this text in them.", show_default=False),
    ] = None,
    state: Annotated[ListedState, typer.Option(help="Only edits in this state.")] = "active",
    subject: Annotated[str | None, typer.Option(metavar="NAME", help="Only edits about this subject.")] = None,
    source: Annotated[str | None, typer.Option(metavar="TEXT", help="Only edits from this source.")] = None,
    author: Annotated[str | None, typer.Option(metavar="NAME", help="Only edits of this author.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="The most edits.")] = None,
    offset: Annotated[int, typer.Option(min=0, metavar="N", help="Edits to pass over.")] = 0,
    newest_first: Annotated[bool, typer.Option("--newest-first", "-r", help="The newest edit first.")] = False,
    all_namespaces: AllNamespacesOption = False,
    memory: MemoryOption = None,
    namespace: NamespaceOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List edits: a table at a terminal, else one tab-separated line each.

    The fields of such a line: id, state, namespace, prompt, target, subject, source, time added. With --json,
    one object a line.
    """
    session = Session.start(ctx, config_file, as_json=as_json, memory=memory, namespace=namespace)
    within = None if all_namespaces else session.config.namespace
    with session.memory() as opened:
        edits = opened.list(
            namespace=within,
            state=None if state == "all" else state,
            subject=subject,
            source=source,
            author=author,
            contains=contains,
            limit=limit,
            offset=offset,
            newest_first=newest_first,
        )
        if session.output.for_person and edits:
            session.output.show(edit_table(edits, now=session.now))
        for edit in edits if not session.output.for_person else ():
            if as_json:
                session.output.json(edit.to_json())
            else:
                session.output.line(edit_row(edit, now=session.now))
        if not edits:
            session.output.note(_why_none(opened, within))


def show(
    ctx: typer.Context,
    edit_id: EditId,
    memory: MemoryOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show everything that is known of one edit."""
    session = Session.start(ctx, config_file, as_json=as_json, memory=memory)
    with session.memory() as opened:
        edit = opened.get(edit_id)
    if as_json:
        session.output.json(edit.to_json())
    else:
        show_edit(session.output, edit, now=session.now)


def history(
    ctx: typer.Context,
    edit_id: EditId,
    memory: MemoryOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show every change of one edit, oldest first.

    Piped, one tab-separated line each: change number, time, action, version, what it changed. With --json,
    one object a line.
    """
    session = Session.start(ctx, config_file, as_json=as_json, memory=memory)
    with session.memory() as opened:
        changes = opened.history(edit_id)
    if as_json:
        for change in changes:
            session.output.json(change_json(change))
    elif session.output.for_person:
        session.output.show(history_table(changes))
    else:
        for change, what in zip(changes, differences(changes), strict=True):
            session.output.line(history_row(change, what))


def stats(
    ctx: typer.Context,
    memory: MemoryOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how many edits a memory holds, its size on disk, and the encoder it was made with."""
    session = Session.start(ctx, config_file, as_json=as_json, memory=memory)
    with session.memory() as opened:
        found = opened.stats()
    if as_json:
        session.output.json(asdict(found))
    else:
        properties(session.output, {name: value for name, value in _stats_lines(found).items() if value})


def _stats_lines(found: MemoryStats) -> dict[str, str]:
    from memedit.thresholds import SETTING

    chosen = [namespace for namespace, settings in found.settings.items() if SETTING in settings]
    states = ", ".join(f"{count:,} {state}" for state, count in found.edits.items() if count)
    return {
        "memory": found.path,
        "edits": states or "none",
        "expired": f"{found.expired:,} of the active" if found.expired else "",
        "namespaces": ", ".join(f"{name} ({count:,})" for name, count in found.namespaces.items()),
        "vectors": f"{found.vectors:,}" + (f" of {found.dimension:,} numbers" if found.dimension else ""),
        "changes": f"{found.sequence:,}",
        "database": size(found.database_bytes),
        "index": f"{size(found.index_bytes) if found.index_bytes else 'not on disk yet'} ({found.index_type})",
        "encoder": found.encoder_fingerprint or "",
        "thresholds": "chosen for " + ", ".join(chosen) + " (memedit calibrate --show)" if chosen else "",
        "schema": str(found.schema_version),
    }


def _why_none(opened: EditMemory, namespace: str | None) -> str:
    """What to say where no edit is listed."""
    others = {name: count for name, count in opened.stats().namespaces.items() if count and name != namespace}
    if namespace is None or not others:
        return "no such edits"
    listed = ", ".join(f"{name} ({count:,})" for name, count in others.items())
    return f"no such edits in the namespace {namespace}; others with edits: {listed} (--all-namespaces)"
