"""What edits and their history look like: a table for a person, one plain line each for a program.

Plain lines are tab-separated; line breaks and tabs inside a field are escaped. Nothing is cut off in them.
This file formats; it reads no memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from memedit.commands.output import Output, printable

if TYPE_CHECKING:
    from memory_store import Change, Edit

__all__ = [
    "change_json",
    "counted",
    "differences",
    "edit_row",
    "edit_table",
    "history_row",
    "history_table",
    "plain_table",
    "properties",
    "short_id",
    "show_edit",
    "size",
]

SHORT_ID = 8
"""How much of an id a table shows; every command takes a unique beginning of an id."""


def when(moment: datetime | None) -> str:
    """A moment to the minute, in UTC; empty for None."""
    return "" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def size(count: int) -> str:
    """A number of bytes in a readable unit."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def counted(count: int, noun: str) -> str:
    """A number of things in words, such as "1 edit" or "1,024 edits"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def short_id(edit_id: str) -> str:
    """The beginning of an id, for tables."""
    return edit_id[:SHORT_ID]


def plain_row(cells: Sequence[str]) -> str:
    """One tab-separated line."""
    return "\t".join(printable(cell.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")) for cell in cells)


def edit_table(edits: Sequence[Edit], *, now: datetime) -> Table:
    """Edits as a table; a column that would say the same in every row is left out."""
    columns = [
        ("namespace", [edit.namespace for edit in edits], len({edit.namespace for edit in edits}) > 1),
        ("state", [state_of(edit, now) for edit in edits], any(state_of(edit, now) != "active" for edit in edits)),
        ("source", [edit.source or "" for edit in edits], any(edit.source for edit in edits)),
    ]
    shown = [(name, cells) for name, cells, needed in columns if needed]
    table = plain_table()
    table.add_column("id", style="cyan", no_wrap=True, min_width=SHORT_ID)
    table.add_column("fact", overflow="fold", min_width=16)
    for name, _ in shown:
        table.add_column(name, overflow="fold", max_width=12)
    table.add_column("added", no_wrap=True, min_width=10, style="dim")
    for row, edit in enumerate(edits):
        others = [Text(printable(cells[row])) for _, cells in shown]
        table.add_row(Text(short_id(edit.id)), _fact(edit), *others, when(edit.created_at)[:10])
    return table


def _fact(edit: Edit) -> Text:
    """Prompt and target, the target standing out."""
    return Text.assemble(printable(edit.prompt), " ", (printable(edit.target), "bold"))


def edit_row(edit: Edit, *, now: datetime) -> str:
    """An edit as one plain line: id, state, namespace, prompt, target, subject, source, time added."""
    added = edit.created_at.isoformat() if edit.created_at else ""
    return plain_row(
        [
            edit.id,
            state_of(edit, now),
            edit.namespace,
            edit.prompt,
            edit.target,
            edit.subject or "",
            edit.source or "",
            added,
        ]
    )


def state_of(edit: Edit, now: datetime) -> str:
    """The edit's state, told as ``expired`` where it is active but its time is over."""
    expired = edit.state == "active" and edit.expires_at is not None and edit.expires_at <= now
    return "expired" if expired else edit.state


def show_edit(output: Output, edit: Edit, *, now: datetime) -> None:
    """Everything that is known of one edit."""
    values: dict[str, str] = {
        "id": edit.id,
        "state": state_of(edit, now),
        "namespace": edit.namespace,
        "prompt": edit.prompt,
        "target": edit.target,
        "subject": edit.subject or "",
        "aliases": "\n".join(edit.aliases),
        "paraphrases": "\n".join(edit.paraphrases),
        "source": edit.source or "",
        "author": edit.author or "",
        "metadata": "\n".join(f"{key} = {_compact(value)}" for key, value in edit.metadata.items()),
        "expires": _exact(edit.expires_at),
        "created": _exact(edit.created_at),
        "updated": _exact(edit.updated_at) if edit.updated_at != edit.created_at else "",
        "version": str(edit.version),
        "content hash": edit.content_hash,
    }
    properties(output, {name: value for name, value in values.items() if value})


def properties(output: Output, values: Mapping[str, str]) -> None:
    """Names and values, one a line; several values of one name take several lines."""
    if output.for_person:
        output.show(_grid(values))
        return
    for name, value in values.items():
        for part in value.split("\n"):
            output.line(f"{name}: {plain_row([part])}")


def _grid(values: Mapping[str, str]) -> Table:
    """Names and values as two aligned columns."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in values.items():
        grid.add_row(name, Text(printable(value)))
    return grid


def history_table(changes: Sequence[Change]) -> Table:
    """Changes of one edit, oldest first, each with what it changed."""
    table = plain_table()
    table.add_column("change", justify="right", no_wrap=True, style="cyan")
    table.add_column("when (UTC)", no_wrap=True, style="dim")
    table.add_column("action", no_wrap=True)
    table.add_column("version", justify="right", no_wrap=True)
    table.add_column("what", ratio=1, overflow="fold")
    for change, what in zip(changes, differences(changes), strict=True):
        table.add_row(
            str(change.sequence),
            when(change.at),
            change.action,
            str(change.version),
            Text(printable("\n".join(what))),
        )
    return table


def history_row(change: Change, what: Sequence[str]) -> str:
    """A change as one plain line: sequence, time, action, version, what it changed."""
    changed = "; ".join(what)
    return plain_row([str(change.sequence), change.at.isoformat(), change.action, str(change.version), changed])


def change_json(change: Change) -> dict[str, Any]:
    """A change as one JSON object."""
    return {
        "sequence": change.sequence,
        "edit_id": change.edit_id,
        "namespace": change.namespace,
        "action": change.action,
        "version": change.version,
        "at": change.at.isoformat(),
        "edit": change.edit.to_json() if change.edit else None,
    }


def differences(changes: Sequence[Change]) -> list[list[str]]:
    """What each change of one edit did to its fields, in words."""
    found = []
    before: Edit | None = None
    for change in changes:
        after = change.edit
        if after is None:
            found.append(["the text was erased"])
        elif before is None:
            found.append([after.fact])
        else:
            found.append(_field_differences(before, after))
        before = after or before
    return found


def _field_differences(before: Edit, after: Edit) -> list[str]:
    names = (
        "prompt",
        "target",
        "subject",
        "aliases",
        "paraphrases",
        "source",
        "author",
        "expires_at",
        "metadata",
    )
    pairs = ((name, getattr(before, name), getattr(after, name)) for name in names)
    return [f"{name}: {_compact(old)} -> {_compact(new)}" for name, old, new in pairs if old != new]


def _compact(value: Any) -> str:
    if value is None or value in ((), ""):
        return "none"
    if isinstance(value, str):
        return value
    if isinstance(value, datetime):
        return _exact(value)
    if isinstance(value, tuple):
        return ", ".join(value)
    return json.dumps(dict(value) if isinstance(value, Mapping) else value, ensure_ascii=False)


def _exact(moment: datetime | None) -> str:
    return "" if moment is None else moment.astimezone(UTC).isoformat(sep=" ", timespec="seconds")


def plain_table() -> Table:
    """An empty table in the style of all tables here."""
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim", expand=False)
