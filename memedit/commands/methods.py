"""``methods``: the editing methods that an evaluation can compare."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from memedit.commands.options import JsonOption
from memedit.commands.output import Output, printable
from memedit.commands.render import plain_row, plain_table

if TYPE_CHECKING:
    from memedit.editors.editor import MethodInfo

__all__ = ["methods"]


def methods(as_json: JsonOption = False) -> None:
    """List the editing methods: what each changes, needs and supports, and who published it.

    Piped, one tab-separated line each: name, title, group, what it changes, whether it is told the edit that
    belongs to a prompt (an oracle), whether it needs trained parts, whether it makes several edits as one,
    models, paper. With --json, one object a line. Every method can undo its edits.
    """
    from memedit.editors.registry import method_infos

    output = Output(as_json=as_json)
    infos = method_infos()
    if output.for_person:
        output.show(_table(infos))
        return
    for info in infos:
        if as_json:
            output.json(asdict(info))
        else:
            output.line(_row(info))


def _row(info: MethodInfo) -> str:
    """A method as one plain line."""
    flags = [_yes_or_no(flag) for flag in (info.oracle, info.needs_training, info.batch)]
    return plain_row([info.name, info.title, info.group, info.changes, *flags, info.models, info.paper])


def _table(infos: tuple[MethodInfo, ...]) -> Table:
    """The methods as a table; everything that is long stands in one column."""
    table = plain_table()
    table.add_column("method", style="cyan", no_wrap=True)
    table.add_column("changes", no_wrap=True)
    table.add_column("what it does", ratio=1, overflow="fold")
    for info in infos:
        table.add_row(Text(printable(info.name)), info.changes, _description(info), end_section=True)
    return table


def _description(info: MethodInfo) -> Text:
    """A method in a few lines, what sets it apart from the others standing out."""
    notes = (
        (info.oracle, "is told the edit of each prompt: its results stand apart"),
        (info.needs_training, "needs parts that are trained beforehand"),
        (not info.batch, "makes several edits one after the other"),
    )
    told = "; ".join(note for holds, note in notes if holds)
    details = (info.summary, f"group: {info.group}", f"models: {info.models}", f"paper: {info.paper}")
    return Text.assemble(
        (printable(info.title), "bold"),
        *((f"\n{printable(line)}", "dim") for line in details),
        *([(f"\n{told}", "yellow")] if told else []),
    )


def _yes_or_no(flag: bool) -> str:
    return "yes" if flag else "no"
