"""``memedit train``: one command for each part of memedit that is trained.

The parts are named here and imported when their command runs, so that ``memedit train --help`` is quick. Each gives a
dataclass of settings, with the fields ``init`` and ``loop``, and a function that trains it (`Run`).
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import typer
from rich.text import Text

from memedit.commands.exits import CommandError, ExitCode
from memedit.commands.options import JsonOption
from memedit.commands.output import Output, printable
from memedit.commands.render import plain_table, properties
from training.bars import training_progress
from training.config import read_settings, settings_toml
from training.loop import TrainingResult
from training.progress import Progress

__all__ = ["TRAINABLE", "Run", "Trainable", "app", "app_for"]


class Run(Protocol):
    """Trains one part and writes its weights and card."""

    def __call__(
        self,
        settings: Any,
        *,
        out: Path,
        data: Sequence[Path],
        data_folder: Path | None,
        fresh: bool,
        progress: Progress,
    ) -> TrainingResult:
        """Trains the part.

        Args:
            settings: Of the part's own dataclass.
            out: The folder for checkpoint, log, weights and card.
            data: Files of a user's own records.
            data_folder: The folder of the public datasets; None where none was named.
            fresh: Whether a checkpoint that is there is to be removed first.
            progress: Is told of everything that takes long.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainable:
    """A part that can be trained.

    Attributes:
        name: Of its command.
        summary: What the command does.
        settings: "module:class" of its settings.
        run: "module:function" that trains it, a `Run`.
        method: Of the editing method that it serves, where one command trains those of several; parts of one name share
            the command, whose ``--method`` chooses among them.
    """

    name: str
    summary: str
    settings: str
    run: str
    method: str | None = None


TRAINABLE = (
    Trainable(
        name="scope",
        summary="Train the scope classifier, which decides whether an edit governs a question.",
        settings="training.scope:ScopeSettings",
        run="training.scope:run",
    ),
    Trainable(
        name="counterfactual",
        summary="Train the counterfactual model, which answers as if an edit were true.",
        settings="training.counterfactual:CounterfactualSettings",
        run="training.counterfactual:run",
    ),
    Trainable(
        name="hypernetwork",
        summary="Train a hypernetwork, which turns an edit into a change of a model's weights.",
        settings="training.hypernetwork_settings:MendSettings",
        run="training.hypernetworks:run",
        method="mend",
    ),
    Trainable(
        name="hypernetwork",
        summary="Train a hypernetwork, which turns an edit into a change of a model's weights.",
        settings="training.hypernetwork_settings:KeSettings",
        run="training.hypernetworks:run",
        method="ke",
    ),
)
"""What can be trained."""

_HELP = (
    "{summary}\n\n"
    "Training that was stopped goes on from its last checkpoint when the same command is given again. The weights, "
    "their model card and a log are written to the folder.\n\n"
    "Example: memedit train {name} --out runs/{name}"
)

OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="FOLDER", help="Where checkpoint, log, weights and model card go.", file_okay=False),
]
SettingsOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings as TOML; --show-config prints one with every default."),
]
DataOption = Annotated[
    list[Path] | None,
    typer.Option("--data", metavar="FILE", help="Records of your own, as JSON Lines.", exists=True, dir_okay=False),
]
DataFolderOption = Annotated[
    Path | None,
    typer.Option(metavar="PATH", envvar="MEMEDIT_DATA", help="The folder of the public datasets.", file_okay=False),
]
MethodOption = Annotated[
    str | None, typer.Option(metavar="METHOD", help="The editing method that it is trained for; by default the first.")
]
BaseOption = Annotated[
    str | None, typer.Option(metavar="MODEL", help="The model that it is trained for; the settings' base.")
]
InitOption = Annotated[
    Literal["shipped", "scratch"] | None,
    typer.Option(metavar="WHERE", help="Start from the shipped weights, or from scratch; the settings' init."),
]
SeedOption = Annotated[int | None, typer.Option(min=0, metavar="N", help="What is drawn by; the settings' loop.seed.")]
FreshOption = Annotated[bool, typer.Option("--fresh", help="Remove the checkpoint that is there, and begin anew.")]
ShowConfigOption = Annotated[
    bool, typer.Option("--show-config", help="Print the settings as TOML, with what they mean, and train nothing.")
]


def app_for(parts: Sequence[Trainable]) -> typer.Typer:
    """A command group with one command for each part.

    Args:
        parts: What can be trained.
    """
    made = typer.Typer(name="train", no_args_is_help=True, help="Train the parts that decide, answer and edit.")
    of_name: dict[str, list[Trainable]] = {}
    for part in parts:
        of_name.setdefault(part.name, []).append(part)
    for name, some in of_name.items():
        made.command(name, help=_HELP.format(summary=some[0].summary, name=name))(_command_for(some))
    return made


def _command_for(parts: Sequence[Trainable]) -> Callable[..., None]:
    """The command of parts that share a name."""

    def command(
        out: OutOption = None,
        config_file: SettingsOption = None,
        data: DataOption = None,
        data_folder: DataFolderOption = None,
        method: MethodOption = None,
        base: BaseOption = None,
        init: InitOption = None,
        seed: SeedOption = None,
        fresh: FreshOption = False,
        show_config: ShowConfigOption = False,
        as_json: JsonOption = False,
    ) -> None:
        part = _chosen(parts, method)
        overrides = {"base": base, "init": init, "loop.seed": seed}
        settings = read_settings(_named(part.settings), config_file, overrides=overrides)
        output = Output(as_json=as_json)
        if show_config:
            output.line(settings_toml(settings).rstrip())
            return
        if out is None:
            raise typer.BadParameter("name the folder to train into", param_hint="--out")
        from classifiers import quiet_transformers

        run: Run = _named(part.run)
        with _told_of_interruption(output), training_progress(output) as progress, quiet_transformers():
            result = run(
                settings, out=out, data=tuple(data or ()), data_folder=data_folder, fresh=fresh, progress=progress
            )
        _show(output, result, out)

    if parts[0].method is None:
        _without(command, {"method", "base"})
    return command


def _chosen(parts: Sequence[Trainable], method: str | None) -> Trainable:
    """The part that serves a method; the first where none is named."""
    for part in parts:
        if method in (None, part.method):
            return part
    known = ", ".join(str(part.method) for part in parts)
    raise typer.BadParameter(f"{method!r} has nothing to be trained here; known: {known}", param_hint="--method")


def _without(command: Callable[..., None], names: set[str]) -> None:
    """Leaves options out of a command that has no use for them."""
    signature = inspect.signature(command, eval_str=True)
    kept = [parameter for name, parameter in signature.parameters.items() if name not in names]
    vars(command)["__signature__"] = signature.replace(parameters=kept)


@contextlib.contextmanager
def _told_of_interruption(output: Output) -> Iterator[None]:
    """Says what becomes of training that is interrupted, or that lacks a package."""
    try:
        yield
    except KeyboardInterrupt:
        output.note("interrupted; the same command goes on from the last checkpoint")
        raise
    except ModuleNotFoundError as error:
        raise CommandError(
            f"training needs the package {error.name}, which is not installed",
            code=ExitCode.ENVIRONMENT,
            hint='pip install "memedit[training]"',
        ) from error


def _named(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _show(output: Output, result: TrainingResult, out: Path) -> None:
    """What came of training: the dev figures before and after, or one JSON object."""
    if output.as_json:
        output.json({**result.to_json(), "out": str(out)})
        return
    figures = {
        name: (f"{result.figures_at_start.get(name, math.nan):.4g}", f"{value:.4g}")
        for name, value in result.figures.items()
    }
    if output.for_person:
        table = plain_table()
        table.add_column("dev figure", style="cyan", overflow="fold")
        for name in ("before", "after"):
            table.add_column(name, justify="right")
        for name, (before, after) in figures.items():
            table.add_row(Text(printable(name)), before, after)
        output.show(table)
    else:
        properties(output, {name: f"{before} -> {after}" for name, (before, after) in figures.items()})
    output.note(
        f"{result.task}: the state of step {result.best_step:,} of {result.steps:,} was kept; trained "
        f"{result.seconds / 60:.1f} minutes, ended by: {result.stopped_by}. Model card: {out / 'README.md'}"
    )


app = app_for(TRAINABLE)
"""``memedit train``."""
