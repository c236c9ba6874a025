"""The command line, ``memedit``.

Only assembled here: each command is a thin layer over the library and lives in `memedit.commands`. Starting
it imports neither torch nor transformers, faiss, SQLAlchemy or NumPy.
"""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from memedit import __version__
from memedit.commands import (
    asking,
    calibrating,
    chatting,
    editing,
    evaluating,
    locating,
    methods,
    models,
    reading,
    scoring,
    transfer,
    tuning,
    upkeep,
)
from memedit.commands.exits import EXIT_CODES_HELP
from memedit.commands.group import CommandGroup

__all__ = ["app", "main"]

app = typer.Typer(
    name="memedit",
    cls=CommandGroup,
    epilog=EXIT_CODES_HELP,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"memedit {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def memedit(
    ctx: typer.Context,
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Change what a language model says about chosen facts, while its weights stay as they are.

    Edits live in a memory on disk. A prompt that an edit governs is answered with the edited fact, any other
    by the untouched model.

    Settings come from flags, then environment variables, then memedit.toml in the current folder, then
    defaults.
    """
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


_EDITS, _ANSWERS, _EVALUATION, _UPKEEP = "Edits", "Answers", "Evaluation", "Memory and models"

app.command("add", rich_help_panel=_EDITS)(editing.add)
app.command("list", rich_help_panel=_EDITS)(reading.list_edits)
app.command("show", rich_help_panel=_EDITS)(reading.show)
app.command("update", rich_help_panel=_EDITS)(editing.update)
app.command("remove", rich_help_panel=_EDITS)(editing.remove)
app.command("restore", rich_help_panel=_EDITS)(editing.restore)
app.command("purge", rich_help_panel=_EDITS)(editing.purge)
app.command("history", rich_help_panel=_EDITS)(reading.history)
app.command("import", rich_help_panel=_EDITS)(transfer.import_edits)
app.command("export", rich_help_panel=_EDITS)(transfer.export_edits)
app.command("ask", rich_help_panel=_ANSWERS)(asking.ask)
app.command("chat", rich_help_panel=_ANSWERS)(chatting.chat)
app.command("explain", rich_help_panel=_ANSWERS)(asking.explain)
app.command("calibrate", rich_help_panel=_ANSWERS)(calibrating.calibrate)
app.add_typer(evaluating.app, name="eval", rich_help_panel=_EVALUATION)
app.add_typer(locating.app, name="locate", rich_help_panel=_EVALUATION)
app.command("methods", rich_help_panel=_EVALUATION)(methods.methods)
app.command("tune", rich_help_panel=_EVALUATION)(tuning.tune)
app.command(
    "lm-eval",
    rich_help_panel=_EVALUATION,
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)(scoring.lm_eval)
app.command("verify", rich_help_panel=_UPKEEP)(upkeep.verify)
app.command("reindex", rich_help_panel=_UPKEEP)(upkeep.reindex)
app.command("stats", rich_help_panel=_UPKEEP)(reading.stats)
app.command("pull", rich_help_panel=_UPKEEP)(models.pull)


def main() -> None:
    """The entry point of the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="memedit")
