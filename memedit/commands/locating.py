"""``locate``: where a model keeps a fact, its knowledge neurons, the logit lens, and what an edit moves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from memedit.commands.options import EncoderOption, JsonOption, ModelOption
from memedit.commands.precision import warn_of_imitation
from memedit.commands.render import plain_row
from memedit.commands.runtime import Session

if TYPE_CHECKING:
    from memedit.locate.averages import Averages
    from memedit.locate.records import FactTrace

__all__ = ["app"]

_DEFAULT = "trace"
_WHAT, _HOW = "What is looked at", "How it is traced"


class _PromptFirst(TyperGroup):
    """Commands of which one goes without its name: what is no command is the prompt of ``trace``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts the name of that command before its arguments."""
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(name="locate", cls=_PromptFirst, no_args_is_help=True)

PromptArgument = Annotated[
    str, typer.Argument(metavar="PROMPT", help="The text that the answer continues.", show_default=False)
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="The folder for pictures, page and numbers.",
        show_default="locate; nothing is written with --json",
        rich_help_panel=_WHAT,
    ),
]
AnswerOption = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT", help="The expected answer.", show_default="what the model says", rich_help_panel=_WHAT
    ),
]


@app.callback()
def locate() -> None:
    """See where a model keeps a fact before editing it.

    memedit locate PROMPT --subject SUBJECT traces one fact; memedit locate --data FILE --out FOLDER all facts of a file
    that the model knows. Both are short for memedit locate trace.
    """


@app.command(_DEFAULT)
def trace(
    ctx: typer.Context,
    prompt: Annotated[
        str | None, typer.Argument(metavar="[PROMPT]", help="The text that the answer continues.", show_default=False)
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What the fact is about, as the prompt spells it.", rich_help_panel=_WHAT),
    ] = None,
    answer: AnswerOption = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A file of facts instead, with prompt, subject and attribute.",
            rich_help_panel=_WHAT,
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="How many known facts of the file are traced.", rich_help_panel=_WHAT),
    ] = None,
    out: OutOption = None,
    kinds: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="What is put back, separated by commas: hidden, mlp, attention, hidden-mlp-severed, "
            "hidden-attention-severed.",
            rich_help_panel=_HOW,
        ),
    ] = "hidden,mlp,attention",
    window: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Layers in which MLP and attention are put back together.", rich_help_panel=_HOW
        ),
    ] = 10,
    samples: Annotated[int, typer.Option(min=1, metavar="N", help="Noise samples.", rich_help_panel=_HOW)] = 10,
    noise: Annotated[
        float,
        typer.Option(
            metavar="X", help="The noise, in standard deviations of the subjects' embeddings.", rich_help_panel=_HOW
        ),
    ] = 3.0,
    seed: Annotated[int, typer.Option(metavar="N", help="What draws the noise.", rich_help_panel=_HOW)] = 0,
    score: Annotated[
        Literal["first", "whole"],
        typer.Option(
            metavar="WHICH", help="Measure the answer's first token, or the whole answer.", rich_help_panel=_HOW
        ),
    ] = "first",
    precision: Annotated[
        Literal["float32", "bfloat16"],
        typer.Option(metavar="NAME", help="float32, or bfloat16: faster and less exact.", rich_help_panel=_HOW),
    ] = "float32",
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Trace where an answer comes from: corrupt the subject, and put back one part at a time.

    Writes the picture as PNG and SVG, a page on which every value shows, and the numbers as JSON. Traced files of facts
    are gone on with when the command is started again.

    Example: memedit locate "The Space Needle is located in the city of" --subject "Space Needle"
    """
    session = Session.start(ctx, None, as_json=as_json, model=model)
    if (prompt is None) == (data is None):
        raise typer.BadParameter("give a prompt, or a file of facts with --data")
    if data is not None and out is None:
        raise typer.BadParameter("name the folder of the traces", param_hint="--out")
    if prompt is not None and subject is None:
        raise typer.BadParameter("say what the fact is about", param_hint="--subject")
    from memedit.locate.tracing import TraceConfig

    config = TraceConfig(
        kinds=tuple(_names(kinds)),  # type: ignore[arg-type]  # checked there, which says what is known
        window=window,
        samples=samples,
        noise=noise,
        seed=seed,
        score=score,
        precision=precision,
    )
    warn_of_imitation(session.output, precision, None)
    if data is not None and out is not None:
        _trace_file(session, data, config, out, limit)
    elif prompt is not None and subject is not None:
        _trace_one(session, prompt, subject, answer, config, out)


@app.command("neurons")
def neurons(
    ctx: typer.Context,
    prompt: PromptArgument,
    answer: AnswerOption = None,
    paraphrase: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Another wording of the prompt; can be repeated.", rich_help_panel=_WHAT),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Steps of the integral.", rich_help_panel=_HOW)] = 20,
    threshold: Annotated[
        float,
        typer.Option(
            min=0, max=1, metavar="X", help="The share of the largest attribution to have.", rich_help_panel=_HOW
        ),
    ] = 0.2,
    share: Annotated[
        float, typer.Option(min=0, max=1, metavar="X", help="In what share of the prompts.", rich_help_panel=_HOW)
    ] = 0.7,
    out: OutOption = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the knowledge neurons of an answer, and see what suppressing and doubling them does.

    Example: memedit locate neurons "The capital of Japan is" --answer Tokyo --paraphrase "Japan's capital is"
    """
    session = Session.start(ctx, None, as_json=as_json, model=model)
    from memedit.locate.neurons import NeuronConfig, find_neurons

    config = NeuronConfig(steps=steps, threshold=threshold, share=share)
    loaded, tokenizer = _loaded(session)
    with session.output.progress() as progress:
        found = find_neurons(
            loaded,
            tokenizer,
            [prompt, *(paraphrase or ())],
            answer=answer,
            config=config,
            report=lambda done, total: progress("prompts", done, total),
        )
    if as_json:
        session.output.json(found.to_json())
    else:
        for one in found.neurons:
            session.output.line(plain_row(["neuron", str(one.layer), str(one.place), f"{one.attribution:.5f}"]))
        for change in found.changes:
            values = [f"{value:.4f}" for value in (change.clean, change.suppressed, change.amplified)]
            session.output.line(plain_row(["prompt", change.prompt, *values]))
        session.output.note(f"attributions add up to the difference in output to {found.incompleteness:.2%}")
    _tell_measured(session, answer, found.answer)
    folder = _folder(out, as_json=as_json)
    if folder is not None:
        from memedit.locate.figures import neuron_bars
        from memedit.locate.page import neurons_page

        _publish(session, folder / f"neurons-{_slug(prompt)}", neuron_bars(found), neurons_page(found), found.to_json())


@app.command("lens")
def lens(
    ctx: typer.Context,
    prompt: PromptArgument,
    answer: AnswerOption = None,
    out: OutOption = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read what the model would say after each layer (the logit lens).

    Piped, a line a layer: layer, what it says behind the prompt, its probability, that of the answer.
    """
    session = Session.start(ctx, None, as_json=as_json, model=model)
    from memedit.locate.lens import logit_lens

    found = logit_lens(*_loaded(session), prompt, answer=answer)
    _tell_measured(session, answer, found.answer)
    if as_json:
        session.output.json(found.to_json())
    else:
        rows = zip(found.says[-1], found.certainty[-1], found.chance[-1], strict=True)
        for layer, (says, certainty, chance) in enumerate(rows):
            session.output.line(plain_row([str(layer), says.strip(), f"{certainty:.3f}", f"{chance:.4f}"]))
    folder = _folder(out, as_json=as_json)
    if folder is not None:
        from memedit.locate.figures import lens_heatmap
        from memedit.locate.page import lens_page

        _publish(session, folder / f"lens-{_slug(prompt)}", lens_heatmap(found), lens_page(found), found.to_json())


@app.command("footprint")
def footprint(
    ctx: typer.Context,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The edit's prompt.", show_default=False)],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="The edit's target.", show_default=False)],
    subject: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The edit's subject.", rich_help_panel=_WHAT)
    ] = None,
    method: Annotated[
        str, typer.Option(metavar="NAME", help="The editing method; memedit methods lists them.", rich_help_panel=_WHAT)
    ] = "ft-m",
    other: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT", help="Another prompt to look at beside the edit's; can be repeated.", rich_help_panel=_WHAT
        ),
    ] = None,
    out: OutOption = None,
    model: ModelOption = None,
    encoder: EncoderOption = None,
    as_json: JsonOption = False,
) -> None:
    """See what an edit moves inside the model, by layer and token: its own prompt, and others.

    Piped, a line a prompt: the prompt, whether anything moved, the layer at which the hidden state of the last token
    moved first, the KL of the next token.
    """
    session = Session.start(ctx, None, as_json=as_json, model=model, encoder=encoder)
    from classifiers import quiet_transformers
    from memedit.editors.registry import create_editor
    from memedit.editors.subject import Subject
    from memedit.locate.lens import footprints
    from memory_store import Edit

    with session.output.progress() as progress, quiet_transformers():
        progress("loading", 0, None)
        edited = Subject.load(session.config.model, encoder=session.config.encoder)
        progress("editing", 0, None)
        edit = Edit(prompt=prompt, target=target, subject=subject)
        found = footprints(edited, create_editor(method, edited), [edit], [prompt, *(other or ())])
    for one in found:
        if as_json:
            session.output.json(one.to_json())
        else:
            first = next((layer for layer, value in enumerate(one.distance[-1]) if value), None)
            told = ["moved" if one.moved else "nothing moved", "" if first is None else str(first)]
            session.output.line(plain_row([one.prompt, *told, f"{one.divergence[-1][-1]:.4f}"]))
    folder = _folder(out, as_json=as_json)
    if folder is not None:
        from memedit.locate.figures import footprint_heatmaps
        from memedit.locate.page import footprint_page

        path = folder / f"footprint-{method}-{_slug(prompt)}"
        numbers = [one.to_json() for one in found]
        _publish(session, path, footprint_heatmaps(found), footprint_page(found), numbers)


def _trace_one(session: Session, prompt: str, subject: str, answer: str | None, config: Any, out: Path | None) -> None:
    from memedit.locate.records import Fact
    from memedit.locate.tracing import Tracer

    tracer = Tracer(*_loaded(session), config)
    with session.output.progress() as progress:
        found = tracer.trace(
            Fact(prompt=prompt, subject=subject, answer=answer),
            report=lambda done, total: progress("restorations", done, total),
        )
    for note in found.notes:
        session.output.note(note)
    if session.output.as_json:
        session.output.json(found.to_json())
    else:
        _tell_trace(session, found)
    folder = _folder(out, as_json=session.output.as_json)
    if folder is not None:
        from memedit.locate.figures import trace_heatmaps
        from memedit.locate.page import trace_page

        _publish(session, folder / _slug(prompt), trace_heatmaps(found), trace_page(found), found.to_json())


def _trace_file(session: Session, data: Path, config: Any, out: Path, limit: int | None) -> None:
    from memedit.locate.facts import TraceFolder, read_facts, trace_facts
    from memedit.locate.figures import average_curves, average_heatmap, save_figure
    from memedit.locate.page import averages_page
    from memedit.locate.tracing import Tracer

    facts = read_facts(data)
    loaded, tokenizer = _loaded(session)
    tracer = Tracer(loaded, tokenizer, config, subjects=[fact.subject for fact in facts])
    with session.output.progress() as progress:
        name = session.config.model
        averages = trace_facts(tracer, facts, TraceFolder(out), name=name, limit=limit, progress=progress)
    if session.output.as_json:
        session.output.json(averages.to_json())
    else:
        _tell_averages(session, averages)
    save_figure(average_heatmap(averages), out / "averages-heatmap")
    _publish(session, out / "averages", average_curves(averages), averages_page(averages), averages.to_json())


def _tell_trace(session: Session, found: FactTrace) -> None:
    """Of each kind the place with the largest effect, a line each: kind, window, token, layer, effect."""
    session.output.note(
        f"P({found.answer.strip()!r}) {found.clean:.4f} clean, {found.corrupted:.4f} corrupted, "
        f"total effect {found.total_effect:.4f}"
    )
    for effect in found.effects:
        token, layer = effect.best()
        values = [effect.kind, str(effect.window), found.tokens[token].strip(), str(layer)]
        session.output.line(plain_row([*values, f"{effect.indirect[token][layer]:.4f}"]))


def _tell_measured(session: Session, answer: str | None, measured: str) -> None:
    """Says so where only the beginning of the expected answer was measured."""
    if answer is not None and answer.strip() != measured.strip():
        session.output.note(f"the answer has several tokens; measured is its first, {measured.strip()!r}")


def _tell_averages(session: Session, averages: Averages) -> None:
    """Of each kind and category the layer with the largest mean, a line each."""
    session.output.note(
        f"{averages.known} of the {averages.asked} facts asked are known; {averages.facts} traced; "
        f"average total effect {averages.total_effect.value:.4f}"
    )
    for effect in averages.effects:
        layer = effect.best()
        mean = effect.layers[layer]
        values = [effect.kind, str(effect.window), effect.category, str(effect.facts), str(layer)]
        session.output.line(plain_row([*values, *(f"{one:.4f}" for one in (mean.value, mean.low, mean.high))]))


def _loaded(session: Session) -> tuple[Any, Any]:
    """The model, in 32-bit precision, and its tokenizer."""
    import torch

    from classifiers import quiet_transformers
    from memedit.pretrained import load_model
    from memedit.pulling import resolve

    with session.output.progress() as progress, quiet_transformers():
        folder = resolve(session.config.model, progress=progress)
        progress("loading", 0, None)
        return load_model(folder, dtype=torch.float32)


def _publish(session: Session, path: Path, figure: Any, page: str, numbers: Any) -> None:
    """Writes picture, page and numbers."""
    import json

    from memedit.evaluation.files import write_atomically
    from memedit.locate.figures import save_figure

    save_figure(figure, path)
    write_atomically(path.with_name(f"{path.name}.html"), page)
    write_atomically(path.with_name(f"{path.name}.json"), json.dumps(numbers, ensure_ascii=False))
    session.output.note(f"page: {path.with_name(f'{path.name}.html')}")


def _folder(out: Path | None, *, as_json: bool) -> Path | None:
    """Where files go; None for nowhere."""
    return out if out is not None or as_json else Path("locate")


def _slug(text: str) -> str:
    """A file name of a prompt."""
    return re.sub(r"[^\w]+", "-", text.lower()).strip("-_")[:60] or "prompt"


def _names(given: str) -> Sequence[str]:
    return [name.strip() for name in given.split(",") if name.strip()]
