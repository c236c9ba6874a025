"""``eval``, ``eval report``, ``eval compare``: batch evaluation of editing methods."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memedit.commands.exits import CommandError, ExitCode
from memedit.commands.options import JsonOption
from memedit.commands.output import Output
from memedit.commands.precision import warn_of_imitation
from memedit.known_models import DEFAULT_ENCODER, DEFAULT_MODEL

if TYPE_CHECKING:
    from rich.table import Table

    from memedit.evaluation.comparing import Comparison
    from memedit.evaluation.figures import EvalReport
    from memedit.evaluation.judge import Judge

__all__ = ["app"]

app = typer.Typer(name="eval", invoke_without_command=True)

_WHAT, _HOW, _WORK = "What is compared", "How it is asked", "Where the work is done"

RunFolderArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="The folder of a run.", show_default=False, file_okay=False)
]


@app.callback()
def evaluate(
    ctx: typer.Context,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME", envvar="MEMEDIT_MODEL", help="A known model, a folder or a hub id.", rich_help_panel=_WHAT
        ),
    ] = DEFAULT_MODEL,
    methods: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Methods, separated by commas; memedit methods lists them. The unedited model is always beside them.",
            rich_help_panel=_WHAT,
        ),
    ] = "ike",
    data: Annotated[
        str,
        typer.Option(metavar="NAMES", help="Datasets with their split, separated by commas.", rich_help_panel=_WHAT),
    ] = "",
    data_folder: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            envvar="MEMEDIT_DATA",
            help="The folder of the datasets, or one file.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    edits: Annotated[
        str,
        typer.Option(
            metavar="COUNTS",
            help="How many edits are in place when a case is asked, separated by commas.",
            rich_help_panel=_WHAT,
        ),
    ] = "1",
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Cases of each dataset.", rich_help_panel=_WHAT)
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Orders of edits, and choices of distractors.", rich_help_panel=_WHAT),
    ] = 1,
    distractors: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A dataset whose edits fill the memory up, after those of the dataset's own other cases.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    traffic: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A dataset of questions that no edit concerns.", rich_help_panel=_WHAT),
    ] = None,
    traffic_limit: Annotated[
        int, typer.Option(min=0, metavar="N", help="How many of them.", rich_help_panel=_WHAT)
    ] = 100,
    protocols: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="free, teacher-forced, probability, oracle-router, no-router; separated by commas.",
            rich_help_panel=_HOW,
        ),
    ] = "free",
    contexts: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Ask each edit behind a context as well: passage, turns, document; separated by commas.",
            rich_help_panel=_HOW,
        ),
    ] = "",
    document_words: Annotated[
        int, typer.Option(min=1, metavar="N", help="Words of a document.", rich_help_panel=_HOW)
    ] = 300,
    conflicts: Annotated[
        bool, typer.Option("--conflicts", help="Ask which of two contradicting edits wins.", rich_help_panel=_HOW)
    ] = False,
    sequential: Annotated[
        bool, typer.Option("--sequential", help="Make edits one after the other.", rich_help_panel=_HOW)
    ] = False,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, metavar="N", help="The most tokens of an answer.", rich_help_panel=_HOW)
    ] = 32,
    kl: Annotated[
        bool, typer.Option("--kl/--no-kl", help="Compare next-token distributions.", rich_help_panel=_HOW)
    ] = True,
    fluency: Annotated[
        bool, typer.Option("--fluency", help="Measure the entropy of longer texts.", rich_help_panel=_HOW)
    ] = False,
    ability: Annotated[
        bool, typer.Option("--ability", help="Measure perplexities and MMLU after editing.", rich_help_panel=_HOW)
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave malformed records out, and count them.", rich_help_panel=_HOW)
    ] = False,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="An OpenAI-compatible endpoint whose model says of each answer whether it is right.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    judge_model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The judging model.", rich_help_panel=_HOW)
    ] = None,
    sample_seed: Annotated[int, typer.Option(metavar="N", help="What draws the cases.", rich_help_panel=_HOW)] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="The run's folder; a run that is there is gone on with, or added to.",
            show_default=False,
            rich_help_panel=_WORK,
        ),
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(metavar="NAME", envvar="MEMEDIT_ENCODER", help="The text encoder.", rich_help_panel=_WORK),
    ] = DEFAULT_ENCODER,
    workers: Annotated[
        int, typer.Option(min=1, metavar="N", help="Processes, each with a model.", rich_help_panel=_WORK)
    ] = 1,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="A Ray cluster; local starts one on this machine.", rich_help_panel=_WORK),
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, ...", rich_help_panel=_WORK)
    ] = None,
    dtype: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="The weights' type: auto, float32, bfloat16, float16.", rich_help_panel=_WORK
        ),
    ] = "auto",
    batch_tokens: Annotated[
        int, typer.Option(min=1, metavar="N", help="The most tokens of a batch.", rich_help_panel=_WORK)
    ] = 4_096,
    as_json: JsonOption = False,
) -> None:
    """Compare editing methods on the same records, all edits in one memory, answers generated freely.

    A run that was stopped goes on where it was when it is started again. Other methods, sizes and seeds are added to
    what is in the folder.

    Example: memedit eval --methods ike,ft-m --data counterfact:dev --data-folder data --edits 1,100 --limit 50 --out
    runs/cf
    """
    if ctx.invoked_subcommand is not None:
        return
    if not data:
        raise typer.BadParameter("give at least one dataset, such as counterfact:dev", param_hint="--data")
    if out is None:
        raise typer.BadParameter("name the run's folder", param_hint="--out")
    from classifiers import quiet_transformers
    from memedit.evaluation.runner import evaluate as run

    output = Output(as_json=as_json)
    warn_of_imitation(output, dtype, device)
    with output.progress() as progress, quiet_transformers():
        report = run(
            model,
            methods=_names(methods),
            cases=_names(data),
            protocol=_names(protocols),  # type: ignore[arg-type]  # checked by the library, which says what is known
            out=out,
            data=data_folder,
            workers=workers,
            ray=ray,
            device=device,
            dtype=dtype,
            judge=_judge(judge, judge_model, out),
            progress=progress,
            edits=_counts(edits),
            limit=limit,
            seeds=seeds,
            distractors=distractors,
            traffic=traffic,
            traffic_limit=traffic_limit,
            contexts=_names(contexts),
            document_words=document_words,
            conflicts=conflicts,
            sequential=sequential,
            max_new_tokens=max_new_tokens,
            batch_tokens=batch_tokens,
            kl=kl,
            fluency=fluency,
            ability=ability,
            skip_bad=skip_bad,
            encoder=encoder,
            sample_seed=sample_seed,
        )
    _show(output, report)
    output.note(f"report: {out / 'report.html'}")


@app.command("report")
def report(
    run: RunFolderArgument,
    data_folder: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", envvar="MEMEDIT_DATA", help="The datasets' folder, for the records' texts on the page."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show a run's figures, and write its results.json, results.csv and report.html anew."""
    from memedit.evaluation.runner import republish

    output = Output(as_json=as_json)
    _show(output, republish(_existing(run), data=data_folder))
    output.note(f"report: {run / 'report.html'}")


@app.command("compare")
def compare(
    first: RunFolderArgument,
    second: Annotated[
        Path, typer.Argument(metavar="OTHER", help="Another run's folder.", show_default=False, file_okay=False)
    ],
    methods: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="A method of RUN and one of OTHER; else each is compared with itself."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the figures that two runs share, with intervals of the difference over the cases that both asked.

    Example: memedit eval compare runs/cf runs/cf --methods ike,scr
    """
    pair = None if methods is None else _names(methods)
    if pair is not None and len(pair) != len(("A", "B")):
        raise typer.BadParameter(f"{methods!r} is not two methods, such as ike,scr", param_hint="--methods")
    from memedit.evaluation.comparing import compare as differences
    from memedit.evaluation.reporting import report_of
    from memedit.evaluation.runfolder import RunFolder

    output = Output(as_json=as_json)
    (report_a, results_a), (report_b, results_b) = (report_of(RunFolder(_existing(one))) for one in (first, second))
    chosen = None if pair is None else (pair[0], pair[1])
    _show_comparison(output, differences(report_a, report_b, results_a, results_b, methods=chosen))


def _show(output: Output, report: EvalReport) -> None:
    """The figures: tables, or one figure a line as JSON."""
    from dataclasses import asdict

    from memedit.evaluation.report import tables

    if output.as_json:
        for figure in report.figures:
            output.json(asdict(figure))
        return
    for table in (
        *tables.headline(report),
        *tables.per_kind(report),
        *tables.routing(report),
        *tables.coverage(report),
    ):
        _show_table(output, table)


def _show_comparison(output: Output, comparison: Comparison) -> None:
    """Differences, second less first: tables, or one a line as JSON; what is to be said of them on stderr."""
    from dataclasses import asdict

    from memedit.evaluation.report import tables

    for note in (*comparison.notes, *comparison.refused):
        output.note(note)
    if output.as_json:
        for one in comparison.differences:
            output.json(asdict(one))
        return
    if not comparison.differences:
        output.note("the two runs share no figure")
    for table in tables.comparison(comparison):
        _show_table(output, table)


def _show_table(output: Output, table: Table) -> None:
    """A table as wide as the terminal, or with room for everything where it goes into a file."""
    from rich.console import Console

    from memedit.evaluation.report.tables import FILE_WIDTH

    console = output.out if output.for_person else Console(width=FILE_WIDTH, height=1, highlight=False)
    console.print(table)


def _existing(run: Path) -> Path:
    if not (run / "run.json").is_file():
        raise CommandError(
            f"{run} holds no run", code=ExitCode.NOT_FOUND, hint="memedit eval --out makes one; name its folder"
        )
    return run


def _judge(url: str | None, model: str | None, out: Path) -> Judge | None:
    if url is None:
        return None
    if model is None:
        raise typer.BadParameter("name the judging model", param_hint="--judge-model")
    from memedit.evaluation.judge import Judge

    return Judge(url, model, cache=out / "verdicts.db")


def _names(given: str) -> list[str]:
    return [name.strip() for name in given.split(",") if name.strip()]


def _counts(given: str) -> list[int]:
    try:
        return [int(one.replace("_", "")) for one in _names(given)]
    except ValueError:
        raise typer.BadParameter(
            f"{given!r} is no list of whole numbers, such as 1,10,100", param_hint="--edits"
        ) from None
