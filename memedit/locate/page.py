"""What was found as one HTML file that needs nothing else: no network, no other file, legible without JavaScript.

Every cell of a heat map tells its value when the pointer is on it. Texts are drawn by the browser, so that any script
it has fonts for is legible. The page's content security policy admits its own style and script and no connection.

This file knows records; nothing of models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

from memedit.locate.averages import CATEGORIES, Averages
from memedit.locate.figures import kind_title
from memedit.locate.lens import Footprint, Lens
from memedit.locate.neurons import NeuronReport
from memedit.locate.records import FactTrace
from memedit.self_contained import content_policy, page_templates, template_part

__all__ = ["averages_page", "footprint_page", "lens_page", "neurons_page", "trace_page"]

_PACKAGE = "memedit.locate"

_LOSS_TO_GAIN = (
    *("#7f3b08", "#b35806", "#e08214", "#fdb863", "#fee0b6"),
    "#f7f7f7",
    *("#d8daeb", "#b2abd2", "#8073ac", "#542788", "#2d004b"),
)
"""ColorBrewer's PuOr, from orange to purple; colour-blind readers tell its ends apart."""

_PALE, _DARK = "#b2abd2", "#542788"

_CELL_HEIGHT, _LABEL, _CHARACTER, _BOTTOM = 20.0, 12.0, 6.6, 30.0
_WIDEST_LABEL = 220.0
_LONGEST_LABEL = 32
"""Characters of a token that stand beside its row."""

_BAR_HEIGHT, _SCALE = 130.0, 52.0
_MOST_TOLD = 8
"""Neurons that are told of beside a bar."""


@dataclass(frozen=True, slots=True)
class _Text:
    text: str
    marked: bool = False


@dataclass(frozen=True, slots=True)
class _Map:
    title: str
    svg: str


@dataclass(frozen=True, slots=True)
class _Group:
    title: str
    maps: Sequence[_Map]
    key: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Table:
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    title: str
    facts: Sequence[tuple[str, str]]
    prompt: Sequence[_Text] = ()
    notes: Sequence[str] = ()
    groups: Sequence[_Group] = ()
    tables: Sequence[_Table] = ()


def trace_page(trace: FactTrace) -> str:
    """The page of a traced fact."""
    peak = max(abs(value) for effect in trace.effects for row in effect.indirect for value in row)
    names = _rows(trace.tokens, trace.subject_start, trace.subject_end)
    maps = []
    for effect in trace.effects:

        def told(row: int, layer: int, effect: Any = effect) -> str:
            value, error = effect.indirect[row][layer], effect.errors[row][layer]
            spread = "" if error != error else f" ± {error:.4f}"
            return (
                f"{trace.tokens[row].strip()!r}, layer {layer}\nindirect effect {value:+.4f}{spread}\n"
                f"P {trace.corrupted + value:.4f} with it put back"
            )

        maps.append(_Map(kind_title(effect.kind, effect.window), _heatmap(effect.indirect, names, peak, told)))
    return _render(
        _Page(
            title="Where the answer comes from",
            prompt=_marked(trace),
            facts=[
                ("answer", trace.answer.strip()),
                ("the model says", trace.says.strip()),
                ("P, clean", f"{trace.clean:.4f}"),
                ("P*, corrupted", f"{trace.corrupted:.4f}"),
                ("total effect", f"{trace.total_effect:+.4f}"),
                ("noise samples", str(len(trace.corrupted_runs))),
                ("noise, standard deviation", f"{trace.deviation:.4f}"),
                ("scored", "the answer's first token" if trace.score == "first" else "the whole answer"),
            ],
            notes=trace.notes,
            groups=[
                _Group(
                    "Indirect effect of putting one part back",
                    maps,
                    _key(peak, "loses probability", "gains probability"),
                    "The subject was corrupted with noise; each cell is one part put back as it was in the clean run. "
                    "± is the standard error over the noise samples.",
                )
            ],
        )
    )


def averages_page(averages: Averages) -> str:
    """The page of average effects."""
    kinds = list(dict.fromkeys((effect.kind, effect.window) for effect in averages.effects))
    there = [name for name in CATEGORIES if any(effect.category == name for effect in averages.effects)]
    peak = max(abs(mean.value) for effect in averages.effects for mean in effect.layers)
    maps = []
    for kind, window in kinds:
        effects = [averages.effect(kind, name) for name in there]

        def told(row: int, layer: int, effects: Any = effects) -> str:
            mean = effects[row].layers[layer]
            return (
                f"{effects[row].category}, layer {layer}\naverage indirect effect {mean.value:+.4f}\n"
                f"95% interval {mean.low:+.4f} to {mean.high:+.4f}, {effects[row].facts} facts"
            )

        grid = [[mean.value for mean in effect.layers] for effect in effects]
        maps.append(_Map(kind_title(kind, window), _heatmap(grid, there, peak, told)))
    total = averages.total_effect
    return _render(
        _Page(
            title=f"Where facts are in {averages.model}, on average",
            facts=[
                ("facts asked", f"{averages.asked:,}"),
                ("known", f"{averages.known:,}"),
                ("traced", f"{averages.facts:,}"),
                ("noise samples each", str(averages.samples)),
                ("average total effect", f"{total.value:.4f} [{total.low:.4f}, {total.high:.4f}]"),
                ("mean P, clean", f"{averages.clean.value:.4f}"),
                ("mean P*, corrupted", f"{averages.corrupted.value:.4f}"),
            ],
            groups=[_Group("Average indirect effect", maps, _key(peak, "loses probability", "gains probability"))],
        )
    )


def neurons_page(report: NeuronReport) -> str:
    """The page of a fact's knowledge neurons."""
    found = [[one for one in report.neurons if one.layer == layer] for layer in range(len(report.by_layer))]
    chosen = [sum(one.attribution for one in here) for here in found]

    def told(layer: int) -> str:
        here = "".join(f"\nneuron {one.place}: {one.attribution:+.5f}" for one in found[layer][:_MOST_TOLD])
        more = f"\nand {len(found[layer]) - _MOST_TOLD} more" if len(found[layer]) > _MOST_TOLD else ""
        return f"layer {layer}\nattribution {report.by_layer[layer]:+.4f}{here}{more}"

    return _render(
        _Page(
            title="Knowledge neurons",
            facts=[
                ("answer", report.answer.strip()),
                ("neurons", str(len(report.neurons))),
                ("threshold", f"{report.config.threshold:g} of the largest"),
                ("share of prompts", f"{report.config.share:g}"),
                ("attributions add up to within", f"{report.incompleteness:.3%}"),
            ],
            groups=[
                _Group(
                    "Attribution by layer",
                    [_Map("all neurons of a layer; dark, its knowledge neurons", _bars(report.by_layer, chosen, told))],
                    "",
                    "The attributions of a layer add up to what its neurons do together for the answer's probability.",
                )
            ],
            tables=[
                _Table(
                    "What changing them does",
                    ("prompt", "P", "suppressed", "doubled"),
                    [
                        (one.prompt, f"{one.clean:.4f}", f"{one.suppressed:.4f}", f"{one.amplified:.4f}")
                        for one in report.changes
                    ],
                ),
                _Table(
                    "The neurons",
                    ("layer", "neuron", "attribution", "prompts"),
                    [
                        (str(one.layer), str(one.place), f"{one.attribution:.5f}", str(one.prompts))
                        for one in report.neurons
                    ],
                ),
            ],
        )
    )


def lens_page(lens: Lens) -> str:
    """The page of what the logit lens reads."""

    def told(row: int, layer: int) -> str:
        return (
            f"behind {lens.tokens[row].strip()!r}, layer {layer}\nsays {lens.says[row][layer].strip()!r}, "
            f"P {lens.certainty[row][layer]:.3f}\nP of {lens.answer.strip()!r}: {lens.chance[row][layer]:.4f}"
        )

    names = [token.strip() or "␣" for token in lens.tokens]
    return _render(
        _Page(
            title="What the model would say after each layer",
            prompt=[_Text(lens.prompt)],
            facts=[("answer", lens.answer.strip()), ("P at the end", f"{lens.chance[-1][-1]:.4f}")],
            groups=[
                _Group(
                    "The logit lens",
                    [
                        _Map("probability of its likeliest token", _heatmap(lens.certainty, names, 1.0, told)),
                        _Map(f"probability of {lens.answer.strip()!r}", _heatmap(lens.chance, names, 1.0, told)),
                    ],
                    "",
                )
            ],
        )
    )


def footprint_page(found: Sequence[Footprint]) -> str:
    """The page of what some edits moved, a group of maps for each prompt."""
    groups = []
    far = max((value for one in found for row in one.distance for value in row), default=0.0) or 1.0
    wide = max((value for one in found for row in one.divergence for value in row), default=0.0) or 1.0
    for one in found:

        def told(row: int, layer: int, one: Footprint = one) -> str:
            return (
                f"{one.tokens[row].strip()!r}, layer {layer}\nmoved by {one.distance[row][layer]:.2%} of its length\n"
                f"KL of the next token {one.divergence[row][layer]:.4f} nats"
            )

        names = [token.strip() or "␣" for token in one.tokens]
        groups.append(
            _Group(
                one.prompt,
                [
                    _Map("how far the hidden state moved", _heatmap(one.distance, names, far, told)),
                    _Map("KL of the next token, as the lens reads it", _heatmap(one.divergence, names, wide, told)),
                ],
                "",
                (f"{one.context} tokens of context were put in." if one.context else "")
                if one.moved
                else "Nothing moved, to the last bit.",
            )
        )
    return _render(_Page(title=f"What {found[0].method} moved", facts=[("prompts", str(len(found)))], groups=groups))


def _render(page: _Page) -> str:
    environment = page_templates(_PACKAGE)
    style, script = template_part(_PACKAGE, "page.css"), template_part(_PACKAGE, "page.js")
    return environment.get_template("page.html.jinja").render(
        page=page, style=style, script=script, policy=content_policy(style, script)
    )


def _marked(trace: FactTrace) -> list[_Text]:
    """The prompt, its subject marked."""
    begin = trace.prompt.rfind(trace.subject)
    end = begin + len(trace.subject)
    return [
        _Text(trace.prompt[:begin]),
        _Text(trace.prompt[begin:end], marked=True),
        _Text(trace.prompt[end:]),
    ]


def _rows(tokens: Sequence[str], start: int, end: int) -> list[str]:
    return [f"{token.strip() or '␣'}{'*' if start <= place < end else ''}" for place, token in enumerate(tokens)]


def _heatmap(
    grid: Sequence[Sequence[float]], names: Sequence[str], peak: float, told: Callable[[int, int], str]
) -> str:
    """A heat map as SVG, built as a tree so that no text can act as markup."""
    layers = len(grid[0])
    cell = 14.0 if layers <= 40 else 9.0
    shown = [name if len(name) <= _LONGEST_LABEL else f"{name[: _LONGEST_LABEL - 1]}…" for name in names]
    left = min(_WIDEST_LABEL, 10 + _CHARACTER * max(_drawn_width(name) for name in shown))
    width, height = left + cell * layers + 4, _CELL_HEIGHT * len(grid) + _BOTTOM
    svg = ET.Element("svg", width=f"{width:g}", height=f"{height:g}", viewBox=f"0 0 {width:g} {height:g}", role="img")
    for row, (values, name) in enumerate(zip(grid, shown, strict=True)):
        top = row * _CELL_HEIGHT
        label = ET.SubElement(svg, "text", x=f"{left - 5:g}", y=f"{top + 14:g}")
        label.set("text-anchor", "end")
        label.text = name
        for layer, value in enumerate(values):
            across, colour = f"{left + layer * cell:g}", _colour(value / (peak or 1.0))
            rect = ET.SubElement(
                svg, "rect", x=across, y=f"{top:g}", width=f"{cell:g}", height=f"{_CELL_HEIGHT:g}", fill=colour
            )
            ET.SubElement(rect, "title").text = told(row, layer)
    _layer_axis(svg, layers, cell=cell, left=left, height=height)
    return ET.tostring(svg, encoding="unicode")


def _bars(values: Sequence[float], chosen: Sequence[float], told: Callable[[int], str]) -> str:
    """Bars by layer as SVG, each with a narrower dark one in it, for a part of it."""
    layers = len(values)
    cell = 22.0 if layers <= 40 else 12.0
    width, height = _SCALE + cell * layers + 4, _BAR_HEIGHT + 12 + _BOTTOM
    top, bottom = max(0.0, *values, *chosen), min(0.0, *values, *chosen)
    unit = _BAR_HEIGHT / ((top - bottom) or 1.0)

    def down(value: float) -> float:
        return 6 + (top - value) * unit

    svg = ET.Element("svg", width=f"{width:g}", height=f"{height:g}", viewBox=f"0 0 {width:g} {height:g}", role="img")
    for layer, pair in enumerate(zip(values, chosen, strict=True)):
        for value, share, colour in zip(pair, (0.9, 0.5), (_PALE, _DARK), strict=True):
            across, wide = _SCALE + (layer + (1 - share) / 2) * cell, share * cell
            begin, end = down(max(0.0, value)), down(min(0.0, value))
            ET.SubElement(
                svg, "rect", x=f"{across:g}", y=f"{begin:g}", width=f"{wide:g}", height=f"{end - begin:g}", fill=colour
            )
        # the pointer need not find a bar that may be a hair's breadth high
        column = ET.SubElement(
            svg, "rect", x=f"{_SCALE + layer * cell:g}", y="6", width=f"{cell:g}", height=f"{_BAR_HEIGHT:g}"
        )
        column.set("class", "column")
        ET.SubElement(column, "title").text = told(layer)
    line = f"{down(0.0):g}"
    ET.SubElement(svg, "line", {"class": "zero", "x1": f"{_SCALE:g}", "x2": f"{width - 4:g}", "y1": line, "y2": line})
    for value in dict.fromkeys((top, 0.0, bottom)):
        mark = ET.SubElement(svg, "text", {"x": f"{_SCALE - 5:g}", "y": f"{down(value) + 4:g}", "text-anchor": "end"})
        mark.text = f"{value:.3f}" if value else "0"
    _layer_axis(svg, layers, cell=cell, left=_SCALE, height=height)
    return ET.tostring(svg, encoding="unicode")


def _layer_axis(svg: ET.Element, layers: int, *, cell: float, left: float, height: float) -> None:
    """The numbers of the layers, along the lower edge of a picture."""
    for layer in range(0, layers, 5):
        tick = ET.SubElement(svg, "text", x=f"{left + (layer + 0.5) * cell:g}", y=f"{height - 17:g}")
        tick.set("text-anchor", "middle")
        tick.text = str(layer)
    axis = ET.SubElement(svg, "text", x=f"{left + layers * cell / 2:g}", y=f"{height - 3:g}")
    axis.set("class", "soft")
    axis.set("text-anchor", "middle")
    axis.text = "layer"


def _key(peak: float, low: str, high: str) -> str:
    """The scale of colours as SVG."""
    svg = ET.Element("svg", width="420", height="44", viewBox="0 0 420 44", role="img")
    steps = 40
    for step in range(steps):
        ET.SubElement(
            svg, "rect", x=f"{10 + step * 10:g}", y="4", width="10", height="12",
            fill=_colour(2 * step / (steps - 1) - 1),
        )  # fmt: skip
    ends = ((10, "start", f"−{peak:.3f} {low}"), (210, "middle", "0"), (410, "end", f"{high} +{peak:.3f}"))
    for at, anchor, text in ends:
        label = ET.SubElement(svg, "text", x=str(at), y="30")
        label.set("text-anchor", anchor)
        label.text = text
    return ET.tostring(svg, encoding="unicode")


def _colour(share: float) -> str:
    """The colour of a value, from -1 to 1."""
    along = (min(1.0, max(-1.0, share)) + 1) / 2 * (len(_LOSS_TO_GAIN) - 1)
    below = min(int(along), len(_LOSS_TO_GAIN) - 2)
    first, second = (_channels(_LOSS_TO_GAIN[place]) for place in (below, below + 1))
    mixed = [round(one + (along - below) * (other - one)) for one, other in zip(first, second, strict=True)]
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _drawn_width(text: str) -> float:
    """How many ordinary characters a text is wide: those of Chinese, Japanese and Korean take nearly two."""
    from unicodedata import east_asian_width

    return sum(1.75 if east_asian_width(one) in "WF" else 1.0 for one in text)
