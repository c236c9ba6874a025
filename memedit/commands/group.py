"""How the ``memedit`` command finds its commands and tells of their errors.

Another package adds a command with an entry point::

    [project.entry-points."memedit.commands"]
    train = "training.cli:app"

The entry point is a `typer.Typer`. Its name is listed in ``memedit --help``; it is imported only when it is
run.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from memedit.commands.exits import CommandError, ExitCode, describe
from memedit.commands.output import Output

__all__ = ["COMMANDS_ENTRY_POINT", "CommandGroup"]

COMMANDS_ENTRY_POINT = "memedit.commands"
"""The entry point group of commands that other packages add."""

_AS_JSON = "memedit.as_json"
"""The context's note of whether a program reads the output; errors before the command's own options need it."""


class CommandGroup(TyperGroup):
    """A command group with added commands, whose errors become messages and exit codes."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of all commands, added ones last; none of those is imported."""
        own = super().list_commands(ctx)
        return [*own, *sorted(name for name in _added_commands() if name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name; for an added one, what ``--help`` lists of it."""
        command = super().get_command(ctx, cmd_name)
        if command is None and (added := _added_commands().get(cmd_name)) is not None:
            return _AddedCommand(added)
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command to run; an added one is imported here."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, _AddedCommand) else command, rest

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads the options before the command."""
        ctx.meta[_AS_JSON] = "--json" in args
        with _told(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command that was asked for."""
        with _told(ctx):
            return super().invoke(ctx)


class _AddedCommand(TyperCommand):
    """A command of another package, as listed: its name, and where it comes from."""

    def __init__(self, entry_point: EntryPoint) -> None:
        package = entry_point.module.partition(".")[0]
        super().__init__(entry_point.name, help=f"From the package {package}.", rich_help_panel="Added commands")
        self._entry_point = entry_point

    def load(self) -> Any:
        """The command itself.

        Raises:
            CommandError: If it cannot be imported.
        """
        try:
            added = self._entry_point.load()
        except (ImportError, AttributeError) as error:
            raise CommandError(
                f"the command '{self.name}' ({self._entry_point.value}) cannot be loaded: {error}",
                code=ExitCode.ENVIRONMENT,
                hint="reinstall the package that adds it",
            ) from error
        command = typer.main.get_command(added) if isinstance(added, typer.Typer) else added
        command.name = self.name
        return command


def _added_commands() -> dict[str, EntryPoint]:
    return {entry_point.name: entry_point for entry_point in entry_points(group=COMMANDS_ENTRY_POINT)}


@contextlib.contextmanager
def _told(ctx: Any) -> Iterator[None]:
    """Tells of every error of the block on stderr and ends the command with its exit code."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except (typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except BrokenPipeError:
        _silence_stdout()
        raise typer.Exit(ExitCode.BROKEN_PIPE) from None
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            raise
        if os.environ.get("MEMEDIT_DEBUG") == "1":
            traceback.print_exception(error)
        failure = describe(error)
        Output(as_json=ctx.meta.get(_AS_JSON, False)).fail(failure)
        raise typer.Exit(failure.code) from error


def _silence_stdout() -> None:
    """Lets what is still to be flushed go nowhere, so that the interpreter's exit does not complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
