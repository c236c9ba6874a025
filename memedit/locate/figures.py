"""Pictures of where a fact is: heat maps of one fact, average effects over many, neurons, an edit's footprint.

After the figures of Meng et al. 2022: tokens downwards, layers to the right, the subject's tokens marked with ``*``.
Effects can be negative, so they are drawn on a scale that is white at 0: purple for what gains probability, orange for
what loses some. Colours are ColorBrewer's PuOr and those of Okabe and Ito (2008), which colour-blind readers tell
apart; lines also differ in their dashes. Text in SVG files is drawn as shapes, so it looks the same everywhere.

A figure is returned, nothing is shown; `save_figure` writes PNG and SVG. This file knows records; nothing of models.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memedit.errors import ConfigError, DataFileError
from memedit.locate.averages import CATEGORIES, Averages
from memedit.locate.fonts import Lettering, lettering_for
from memedit.locate.lens import Footprint, Lens
from memedit.locate.neurons import NeuronReport
from memedit.locate.records import FactTrace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "average_curves",
    "average_heatmap",
    "footprint_heatmaps",
    "heatmap",
    "kind_title",
    "lens_heatmap",
    "neuron_bars",
    "save_figure",
    "trace_heatmaps",
]

_LONGEST_LABEL = 18
"""Characters of a token that are drawn."""

_MANY_TOKENS = 60
"""With more tokens, those before the subject are not drawn: nothing has an effect there."""

_LOOKS = (
    ("#0072b2", "-", "o"),
    ("#56b4e9", "--", "s"),
    ("#d55e00", "-", "D"),
    ("#e69f00", "--", "^"),
    ("#999999", ":", "v"),
    ("#009e73", "-", "P"),
)
"""A colour, a dash and a mark for each category of tokens."""

_TITLES = {
    "hidden": "hidden state",
    "mlp": "MLP output",
    "attention": "attention output",
    "hidden-mlp-severed": "hidden state, MLPs cut behind",
    "hidden-attention-severed": "hidden state, attention cut behind",
}


def kind_title(kind: str, window: int) -> str:
    """What is put back, in words, such as ``MLP output, 10 layers``."""
    return f"{_TITLES.get(kind, kind)}, {window} layers" if window > 1 else _TITLES.get(kind, kind)


def trace_heatmaps(trace: FactTrace) -> Figure:
    """The indirect effects of one fact, a heat map for each kind side by side, on one scale."""
    lettering = lettering_for([*trace.tokens, trace.answer, trace.says])
    first = trace.subject_start if len(trace.tokens) > _MANY_TOKENS else 0
    labels = token_names(trace.tokens, trace.subject_start, trace.subject_end, lettering)[first:]
    grids = [[list(row) for row in effect.indirect[first:]] for effect in trace.effects]
    answer, says = lettering.drawable(trace.answer), lettering.drawable(trace.says)
    told = f'P("{answer}"): {trace.clean:.3f} clean, {trace.corrupted:.3f} corrupted'
    remarks = [
        *trace.notes,
        *([f"{first} tokens before the subject, where nothing has an effect, are not drawn"] if first else []),
        lettering.note(),
    ]
    if not trace.known and not any("the model itself" in note for note in trace.notes):
        remarks.append(f'the model itself says "{says}"')
    return heatmap(
        grids,
        labels=labels,
        titles=[kind_title(effect.kind, effect.window) for effect in trace.effects],
        title=told,
        scale="indirect effect",
        across=[_across(effect.window) for effect in trace.effects],
        remarks=remarks,
        lettering=lettering,
    )


def average_heatmap(averages: Averages) -> Figure:
    """Average indirect effects by category of tokens and layer, a heat map for each kind."""
    kinds = _kinds(averages)
    there = [name for name in CATEGORIES if any(effect.category == name for effect in averages.effects)]
    grids = [[[mean.value for mean in averages.effect(kind, name).layers] for name in there] for kind, _ in kinds]
    return heatmap(
        grids,
        labels=[f"{name}{'*' if 'subject' in name else ''}" for name in there],
        titles=[kind_title(*kind) for kind in kinds],
        title=_average_title(averages),
        scale="average indirect effect",
        across=[_across(window) for _, window in kinds],
        remarks=[],
        lettering=lettering_for(there),
    )


def average_curves(averages: Averages) -> Figure:
    """Average indirect effects over the layers, a line with its 95% interval for each category of tokens."""
    with _drawing(lettering_for([])):
        kinds = _kinds(averages)
        figure = _figure(max(4.6, 3.7 * len(kinds)), 3.9)
        panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
        for axes, (kind, window) in zip(panels, kinds, strict=True):
            for name, (colour, dash, mark) in zip(CATEGORIES, _LOOKS, strict=True):
                if not any((effect.kind, effect.category) == (kind, name) for effect in averages.effects):
                    continue
                effect = averages.effect(kind, name)
                layers = range(len(effect.layers))
                axes.plot(
                    layers,
                    [mean.value for mean in effect.layers],
                    color=colour,
                    linestyle=dash,
                    marker=mark,
                    markersize=3,
                    linewidth=1.4,
                    label=f"{name} ({effect.facts})",
                )
                axes.fill_between(
                    layers,
                    [mean.low for mean in effect.layers],
                    [mean.high for mean in effect.layers],
                    color=colour,
                    alpha=0.16,
                    linewidth=0,
                )
            axes.axhline(0, color="#444444", linewidth=0.7)
            axes.set_title(kind_title(kind, window))
            axes.set_xlabel(_across(window))
            axes.grid(visible=True, color="#e6e6e6", linewidth=0.6)
            axes.set_axisbelow(True)
        panels[0].set_ylabel("average indirect effect")
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, title="tokens (facts)")
        figure.suptitle(_average_title(averages), fontsize=10)
        figure.draw_without_rendering()
    return figure


def neuron_bars(report: NeuronReport) -> Figure:
    """Knowledge neurons: how many and how strong by layer, and what changing them does to the answer."""
    lettering = lettering_for([report.answer, *(change.prompt for change in report.changes)])
    with _drawing(lettering):
        layers = len(report.by_layer)
        figure = _figure(8.6, 3.2 + 0.32 * max(0, len(report.changes) - 3))
        left, right = figure.subplots(1, 2, width_ratios=[1.35, 1])
        left.bar(range(layers), report.by_layer, color="#d8daeb", width=0.9, label="all neurons of the layer")
        chosen = [sum(one.attribution for one in report.neurons if one.layer == layer) for layer in range(layers)]
        left.bar(range(layers), chosen, color="#542788", width=0.5, label="its knowledge neurons")
        for layer in range(layers):
            count = sum(one.layer == layer for one in report.neurons)
            if count:
                left.annotate(
                    str(count), (layer, chosen[layer]), ha="center", va="bottom", fontsize=7.5, color="#542788"
                )
        left.axhline(0, color="#444444", linewidth=0.7)
        left.margins(y=0.12)
        left.set_xlabel("layer (numbers: how many knowledge neurons)")
        left.set_ylabel("attribution")
        many = "1 knowledge neuron" if len(report.neurons) == 1 else f"{len(report.neurons)} knowledge neurons"
        left.set_title(f'{many} of "{lettering.drawable(report.answer)}"')
        left.legend(frameon=False, fontsize=7.5)
        rows = range(len(report.changes))
        looks = ((-0.26, "#999999", "as it is"), (0.0, "#e08214", "suppressed"), (0.26, "#542788", "doubled"))
        for (shift, colour, name), field in zip(looks, ("clean", "suppressed", "amplified"), strict=True):
            values = [getattr(change, field) for change in report.changes]
            bars = right.barh([row + shift for row in rows], values, height=0.24, color=colour, label=name)
            right.bar_label(bars, fmt="%.3f", padding=2, fontsize=7)
        names = ["\n".join(textwrap.wrap(lettering.drawable(change.prompt), 28)[:3]) for change in report.changes]
        right.set_yticks(rows, labels=names)
        right.invert_yaxis()
        right.margins(x=0.18)
        right.set_xlabel(f'probability of "{lettering.drawable(report.answer)}"')
        right.legend(frameon=False, fontsize=7.5, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
        _remark(figure, [lettering.note()], 8.6)
        figure.draw_without_rendering()
    return figure


def lens_heatmap(lens: Lens) -> Figure:
    """What the logit lens reads: the probability of the answer behind each token, after each layer."""
    lettering = lettering_for([*lens.tokens, lens.answer])
    answer = lettering.drawable(lens.answer)
    return heatmap(
        [lens.certainty, lens.chance],
        labels=token_names(lens.tokens, 0, 0, lettering),
        titles=["its likeliest next token", f'"{answer}"'],
        title="Probability after each layer, as the logit lens reads it",
        scale="probability",
        across=["layer"] * 2,
        remarks=[lettering.note()],
        lettering=lettering,
        rising=True,
    )


def footprint_heatmaps(found: Sequence[Footprint]) -> Figure:
    """What some edits moved: how far each hidden state did, a heat map for each prompt."""
    texts = [token for one in found for token in one.tokens]
    lettering = lettering_for([*texts, *(one.prompt for one in found)])
    with _drawing(lettering):
        heights = [1.35 + 0.19 * max(4, len(one.tokens)) for one in found]
        figure = _figure(8.4, sum(heights))
        parts: Any = figure.subfigures(len(found), 1, height_ratios=heights, squeeze=False)
        for part, one in zip(parts[:, 0], found, strict=True):
            told = "nothing moved" if not one.moved else f"{one.context} tokens put in" if one.context else "moved"
            title = f"{one.method}: {lettering.drawable(one.prompt)} ({told})"
            part.suptitle("\n".join(textwrap.wrap(title, 95)), fontsize=9)
            labels = token_names(one.tokens, 0, 0, lettering)
            maps = (
                (one.distance, "hidden state: distance / length"),
                (one.divergence, "next token: KL, nats (logit lens)"),
            )
            for axes, (grid, name) in zip(part.subplots(1, 2, sharey=True), maps, strict=True):
                peak = max(value for other in found for row in _grid_of(other, grid is one.distance) for value in row)
                image = axes.imshow(
                    [list(row) for row in grid],
                    aspect="auto",
                    interpolation="nearest",
                    cmap="Purples",
                    vmin=0,
                    vmax=peak or 1,
                )
                _ticks(axes, labels, len(grid[0]))
                axes.set_xlabel("layer")
                axes.set_title(name, fontsize=8)
                part.colorbar(image, ax=axes, pad=0.02)
        figure.draw_without_rendering()
    return figure


def heatmap(
    grids: Sequence[Sequence[Sequence[float]]],
    *,
    labels: Sequence[str],
    titles: Sequence[str],
    title: str,
    scale: str,
    across: Sequence[str],
    remarks: Sequence[str],
    lettering: Lettering,
    rising: bool = False,
) -> Figure:
    """Heat maps side by side, with the same rows and one scale.

    Args:
        grids: The numbers, ``[maps][rows][layers]``.
        labels: What the rows are called.
        titles: What the maps are called.
        title: What stands over all of them.
        scale: What the numbers are.
        across: What the columns of each map are.
        remarks: What a reader has to know; empty ones are passed over.
        lettering: The fonts.
        rising: Whether the numbers cannot be negative.
    """
    with _drawing(lettering):
        rows, layers = len(labels), len(grids[0][0])
        width = 1.3 + 0.075 * max(map(len, labels)) + len(grids) * max(2.2, 0.085 * layers)
        told = _lines(remarks, width)
        height = 1.35 + 0.2 * max(rows, 4) + 0.16 * len(told)
        figure = _figure(width, height)
        panels = figure.subplots(1, len(grids), sharey=True, squeeze=False)[0]
        peak = max((abs(value) for grid in grids for row in grid for value in row), default=0.0) or 1e-12
        image: Any = None
        for axes, grid, name, below in zip(panels, grids, titles, across, strict=True):
            image = axes.imshow(
                [list(row) for row in grid],
                aspect="auto",
                interpolation="nearest",
                cmap="Purples" if rising else "PuOr",
                vmin=0 if rising else -peak,
                vmax=peak,
            )
            _ticks(axes, labels, layers)
            axes.set_title("\n".join(textwrap.wrap(name, 30)))
            axes.set_xlabel(below)
        figure.colorbar(image, ax=list(panels), label=scale, pad=0.02, aspect=max(12, 2 * rows))
        figure.suptitle("\n".join(textwrap.wrap(title, int(12 * width))), fontsize=10)
        _remark(figure, remarks, width)
        figure.draw_without_rendering()  # some labels are made here, and take their fonts from the settings of now
    return figure


def save_figure(figure: Figure, path: Path) -> tuple[Path, Path]:
    """Write a figure as PNG and as SVG.

    Args:
        figure: The figure.
        path: The files' path without an ending.

    Returns:
        The two files.

    Raises:
        DataFileError: They cannot be written.
    """
    import matplotlib as mpl

    png, svg = path.with_name(f"{path.name}.png"), path.with_name(f"{path.name}.svg")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # the same figure gives the same file
        with mpl.rc_context({"svg.hashsalt": "memedit", "svg.fonttype": "path"}):
            figure.savefig(png, dpi=150, metadata={"Software": None})
            figure.savefig(svg, metadata={"Date": None, "Creator": None})
    except OSError as error:
        raise DataFileError(f"{path}: the figure cannot be written: {error.strerror or error}.") from error
    return png, svg


def token_names(tokens: Sequence[str], start: int, end: int, lettering: Lettering) -> list[str]:
    """What the rows of a heat map are called: tokens, the subject's marked.

    Args:
        tokens: The tokens.
        start: The subject's first.
        end: The place behind its last.
        lettering: The fonts.
    """
    names = []
    for place, token in enumerate(tokens):
        text = lettering.drawable(token)
        if len(text) > _LONGEST_LABEL:
            text = f"{text[: _LONGEST_LABEL - 1]}…"
        names.append(f"{text}*" if start <= place < end else text)
    return names


def _across(window: int) -> str:
    return "layer (centre of the window)" if window > 1 else "layer"


def _grid_of(found: Footprint, distance: bool) -> Sequence[Sequence[float]]:
    return found.distance if distance else found.divergence


def _lines(remarks: Sequence[str], width: float) -> list[str]:
    """Remarks, cut to lines of a figure of some width, in inches."""
    return [line for remark in remarks if remark for line in textwrap.wrap(remark, int(15 * width))]


def _remark(figure: Figure, remarks: Sequence[str], width: float) -> None:
    """Writes remarks below a figure."""
    lines = _lines(remarks, width)
    if lines:
        figure.supxlabel("\n".join(lines), fontsize=7.5, color="#555555", x=0.01, ha="left")


def _kinds(averages: Averages) -> list[tuple[str, int]]:
    """The kinds that were averaged, each with its window."""
    return list(dict.fromkeys((effect.kind, effect.window) for effect in averages.effects))


def _average_title(averages: Averages) -> str:
    total = averages.total_effect
    samples = "1 noise sample" if averages.samples == 1 else f"{averages.samples} noise samples"
    return (
        f"{averages.model}: {averages.facts} facts that it knows, {samples} each; "
        f"average total effect {total.value:.3f} [{total.low:.3f}, {total.high:.3f}]"
    )


def _ticks(axes: Axes, labels: Sequence[str], layers: int) -> None:
    axes.set_yticks(range(len(labels)), labels=list(labels))
    step = 1 if layers <= 12 else 5 if layers <= 50 else 10
    axes.set_xticks(range(0, layers, step))
    axes.tick_params(length=2)
    for side in axes.spines.values():
        side.set_linewidth(0.6)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    if width > 400 or height > 400:
        raise ConfigError("the prompt is too long for a figure; the HTML page shows it")
    return Figure(figsize=(width, height), layout="constrained")


@contextmanager
def _drawing(lettering: Lettering) -> Iterator[None]:
    """The look of every figure; the caller's own settings of matplotlib stay as they are."""
    import matplotlib as mpl

    look: Any = {
        "font.family": list(lettering.families),
        "font.size": 8.5,
        "axes.titlesize": 9,
        "text.parse_math": False,
        "axes.unicode_minus": True,
    }
    with mpl.rc_context(look):
        yield
