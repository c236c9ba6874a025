"""``tune``: a small search for a method's own hyperparameters."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from memedit.commands.options import JsonOption
from memedit.commands.output import Output
from memedit.commands.precision import warn_of_imitation
from memedit.commands.render import plain_row, plain_table
from memedit.known_models import DEFAULT_MODEL

if TYPE_CHECKING:
    from rich.table import Table

    from memedit.evaluation.tuning import Trial, Tuning

__all__ = ["tune"]


def tune(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="The method, such as ft-m.", show_default=False)],
    model: Annotated[
        str, typer.Option(metavar="NAME", envvar="MEMEDIT_MODEL", help="A known model, a folder or a hub id.")
    ] = DEFAULT_MODEL,
    data: Annotated[
        str,
        typer.Option(metavar="NAME", help="A dataset with its split; report nothing on its first records."),
    ] = "counterfact:train",
    data_folder: Annotated[
        Path | None,
        typer.Option(metavar="PATH", envvar="MEMEDIT_DATA", help="The folder of the datasets, or one file."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, metavar="N", help="Records of the first round; the second has twice as many, others.")
    ] = 8,
    traced: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="A folder that memedit locate --data wrote: the layer that it names is tried as well.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="The folder of what was tried.", show_default="runs/tune-METHOD"),
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="Where the model is put.")] = None,
    dtype: Annotated[
        str, typer.Option(metavar="NAME", help="The weights' type: auto, float32, bfloat16, float16.")
    ] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Search for a method's hyperparameters on a model, and write them as a table with the figures that chose them.

    A search that was stopped goes on when it is started again with the same folder.
    """
    from memedit.editors.subject import Subject
    from memedit.evaluation.datasets.registry import load_cases
    from memedit.evaluation.tuning import tune as search
    from memedit.locate.facts import traced_layer

    output = Output(as_json=as_json)
    warn_of_imitation(output, dtype, device)
    folder = out if out is not None else Path("runs") / f"tune-{method}"
    cases = load_cases(data, data=data_folder, limit=3 * limit).cases
    subject = Subject.load(model, device=device, dtype=dtype)
    also = () if traced is None else (traced_layer(traced, fingerprint=subject.fingerprint),)
    if also:
        output.note(f"tracing names layer {also[0]}")
    with output.progress() as progress:
        found = search(method, subject, cases, out=folder, data=data, limit=limit, also_layers=also, progress=progress)
    _show(output, found)
    output.note(f"table: {folder / method.replace('-', '_')}.toml")


def _show(output: Output, found: Tuning) -> None:
    """The trials of the second round, the best first."""
    if output.for_person:
        output.show(_table(found.second))
        return
    for trial in found.second:
        if output.as_json:
            output.json({**asdict(trial), "score": trial.score})
        else:
            output.line(plain_row([*_cells(trial)]))


def _cells(trial: Trial) -> list[str]:
    values = ", ".join(f"{name} = {value}" for name, value in trial.values.items())
    counts = (trial.edit, trial.paraphrase, trial.neighbour_same, trial.neighbour_target)
    return [values, *(f"{right}/{of}" for right, of in counts), f"{trial.seconds:.1f}", f"{trial.score:.3f}"]


def _table(trials: tuple[Trial, ...]) -> Table:
    table = plain_table()
    for heading in ("values", "edit", "paraphrase", "neighbour same", "neighbour target", "seconds", "score"):
        table.add_column(heading)
    for trial in trials:
        table.add_row(*(Text(cell) for cell in _cells(trial)))
    return table
