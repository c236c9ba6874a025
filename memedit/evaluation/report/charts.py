"""Charts as SVG: lines over a number of edits, bars with intervals, reliability diagrams, the strip in a table's cell.

Elements are built as a tree, never from strings, so that no text can act as markup. Colours and dark mode are the
page's: an element carries a class (``c3`` is the third colour), no colour of its own. Values show on hovering, through
``<title>``. Knows nothing of figures, reports or the page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

__all__ = [
    "MOST_LABELLED",
    "NARROW",
    "Axis",
    "Bar",
    "Dot",
    "Look",
    "Point",
    "Series",
    "bar_chart",
    "calibration_chart",
    "line_chart",
    "shared_shapes",
    "strip",
]

COLOURS = 7
"""How many colours a page has; beyond them, marks tell lines apart."""

_MARKS = {
    "circle": "M-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0-6.8 0z",
    "square": "M-3.2-3.2h6.4v6.4h-6.4z",
    "triangle": "M0-4l4 7.2h-8z",
    "diamond": "M0-4.4l4.4 4.4l-4.4 4.4l-4.4-4.4z",
}
_FRAME = "calibration-frame"
MOST_LABELLED = 8
"""More lines than this are told apart by the key above the charts; fewer are labelled where they end."""

NARROW = 300.0
"""Width of charts of which four stand side by side."""
_WIDTH, _HEIGHT = 380.0, 236.0
_LEFT, _TOP, _BOTTOM = 40.0, 10.0, 38.0
_SQUARE, _SQUARE_LEFT, _SQUARE_TOP, _COUNTS = 150.0, 34.0, 8.0, 26.0
_LINE_HEIGHT = 12.5
_CHARACTER = 6.1
"""Width of a character at the size of labels, for placing them."""

_LONGEST_NAME = 14
"""Characters of a label."""


@dataclass(frozen=True, slots=True)
class Look:
    """How a method is drawn throughout a page.

    Attributes:
        place: Its place among the methods, from 0; chooses colour and mark. -1 is the unedited model, in grey.
    """

    place: int

    @property
    def colour(self) -> str:
        """The class that colours it."""
        return "cb" if self.place < 0 else f"c{self.place % COLOURS}"

    @property
    def mark(self) -> str:
        """The shape of its points."""
        return tuple(_MARKS)[max(self.place, 0) // COLOURS % len(_MARKS)]

    @property
    def css(self) -> str:
        """The classes of its mark in a table or a key."""
        return f"{self.colour} {self.mark}"


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a line.

    Attributes:
        x: Where it stands, in the axis's own values.
        y: Its value.
        low: Lower end of its interval; None where there is none.
        high: The upper end.
        hover: What is said of it.
    """

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    hover: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """One line.

    Attributes:
        name: What it is.
        look: How it is drawn.
        points: Its points, from left to right.
    """

    name: str
    look: Look
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a line chart.

    Attributes:
        title: What it counts.
        ticks: Values that are marked, with what is written there.
        logarithmic: Whether it is.
    """

    title: str
    ticks: tuple[tuple[float, str], ...]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Where a value lies between the first tick (0) and the last (1); 0.5 where there is one tick only."""
        first, last = self._scaled(self.ticks[0][0]), self._scaled(self.ticks[-1][0])
        return 0.5 if first == last else (self._scaled(value) - first) / (last - first)

    def _scaled(self, value: float) -> float:
        return math.log10(max(value, 0.5)) if self.logarithmic else value


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a bar chart.

    Attributes:
        name: What it is of.
        look: How it is drawn.
        value: Its length, as a share of the whole.
        low: Lower end of its interval; None where there is none.
        high: The upper end.
        before: Where a tick marks the unedited model; None for none.
        text: The value, written.
        hover: What is said of it.
    """

    name: str
    look: Look
    value: float
    low: float | None
    high: float | None
    before: float | None
    text: str
    hover: str


@dataclass(frozen=True, slots=True)
class Dot:
    """One bin of a reliability diagram.

    Attributes:
        foretold: Mean probability in the bin.
        found: Share that was right.
        count: How many.
        low: Where the bin begins.
        high: Where it ends.
    """

    foretold: float
    found: float
    count: int
    low: float
    high: float


def line_chart(series: Sequence[Series], *, title: str, x: Axis, y: Axis, width: float = _WIDTH) -> str:
    """Lines with interval bands, as an ``<svg>`` element; values beyond the axis of y are drawn at its edge."""
    labelled = len(series) <= MOST_LABELLED
    longest = max((len(_cut(one.name)) for one in series), default=0)
    right = 14 + (longest * _CHARACTER + 8 if labelled else 0)
    svg = _svg(width, _HEIGHT, title, css="lines" if labelled else "lines many")
    frame = _Frame(x, y, _LEFT, width - right, _TOP, _HEIGHT - _BOTTOM)
    _draw_axes(svg, frame)
    step = min(4.0, 18.0 / max(len(series), 1))
    ends = []
    for place, one in enumerate(series):
        shift = (place - (len(series) - 1) / 2) * step
        ends.append(_draw_series(svg, frame, one, shift))
    if labelled:
        _label_ends(svg, frame, series, ends)
    return _written(svg)


def bar_chart(bars: Sequence[Bar], *, title: str) -> str:
    """Horizontal bars from 0 to 1 with interval whiskers, as an ``<svg>`` element.

    A tick across a bar marks the unedited model.
    """
    row, names = 19.0, 92.0
    end, width = 258.0, NARROW
    height = len(bars) * row + 18
    svg = _svg(width, height, title, css="bars")
    quarters = [names + quarter / 4 * (end - names) for quarter in range(5)]
    _add(svg, "path", d="".join(f"M{_n(at)} 0V{_n(height - 16)}" for at in quarters), css="grid")
    for at, text in zip(quarters[::2], ("0%", "50%", "100%"), strict=True):
        _add(svg, "text", text, x=at, y=height - 4, css="mid")
    for place, bar in enumerate(bars):
        _draw_bar(svg, bar, top=place * row + 1, left=names, right=end)
    return _written(svg)


def calibration_chart(dots: Sequence[Dot], *, title: str, look: Look) -> str:
    """A reliability diagram: what was foretold against what was found, and below it how many there are of each."""
    svg = _svg(_SQUARE_LEFT + _SQUARE + 10, _SQUARE_TOP + _SQUARE + _COUNTS + 36, title, css="calibration")
    _add(svg, "use", href=f"#{_FRAME}")
    held = [dot for dot in dots if dot.count]
    most = max((dot.count for dot in held), default=1)
    group = _add(svg, "g", css=f"series {look.colour}")
    places = " ".join(f"{_n(_square_x(dot.foretold))},{_n(_square_y(dot.found))}" for dot in held)
    _add(group, "polyline", points=places, css="line")
    _add(group, "path", d="".join(_count_bar(dot, dot.count / most) for dot in held), css="count")
    for dot in held:
        words = f"foretold {dot.foretold:.2f}, found {dot.found:.2f}, {dot.count:,} probes"
        radius = 2.5 + 4.5 * math.sqrt(dot.count / most)
        at = _add(group, "circle", cx=_square_x(dot.foretold), cy=_square_y(dot.found), r=radius, css="dot")
        _add(at, "title", words)
    return _written(svg)


def shared_shapes() -> str:
    """What the charts of a page refer to instead of repeating it; to stand in the page once, before them."""
    svg = ET.Element("svg", {"class": "shapes", "aria-hidden": "true"})
    for mark, path in _MARKS.items():
        _add(svg, "path", id=mark, d=path)
    _draw_frame(_add(svg, "g", id=_FRAME))
    return _written(svg)


def strip(value: float, low: float | None, high: float | None, before: float | None) -> str:
    """A share and its interval on a line from 0 to 1, for a table's cell; a tick marks the unedited model."""
    svg = ET.Element("svg", {"viewBox": "0 0 100 9"})
    _add(svg, "path", d="M0 4.5H100")
    if low is not None and high is not None:
        _add(svg, "path", d=f"M{_n(100 * _inside(low))} 4.5H{_n(100 * _inside(high))}", css="i")
    if before is not None:
        _add(svg, "path", d=f"M{_n(100 * _inside(before))} 1v7", css="w")
    _add(svg, "circle", cx=100 * _inside(value), cy=4.5, r=3)
    return _written(svg)


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where the plot lies, and how values become places."""

    x: Axis
    y: Axis
    left: float
    right: float
    top: float
    bottom: float

    def across(self, value: float) -> float:
        inset = 14.0
        return self.left + inset + self.x.share(value) * (self.right - self.left - 2 * inset)

    def down(self, value: float) -> float:
        return self.bottom - min(max(self.y.share(value), 0.0), 1.0) * (self.bottom - self.top)


def _draw_axes(svg: ET.Element, frame: _Frame) -> None:
    for value, text in frame.y.ticks:
        at = frame.down(value)
        _add(svg, "path", d=f"M{_n(frame.left)} {_n(at)}H{_n(frame.right)}", css="grid")
        _add(svg, "text", text, x=frame.left - 5, y=at + 4, css="end")
    for value, text in frame.x.ticks:
        at = frame.across(value)
        _add(svg, "path", d=f"M{_n(at)} {_n(frame.bottom)}v4", css="grid")
        _add(svg, "text", text, x=at, y=frame.bottom + 15, css="mid")
    middle = (frame.left + frame.right) / 2
    _add(svg, "text", frame.x.title, x=middle, y=frame.bottom + 31, css="mid")


def _draw_series(svg: ET.Element, frame: _Frame, one: Series, shift: float) -> tuple[float, float]:
    """Draws a line and returns where it ends."""
    group = _add(svg, "g", css=f"series {one.look.colour}")
    _add(group, "title", one.name)
    at = [(frame.across(point.x) + shift, frame.down(point.y)) for point in one.points]
    ranges = [
        (across, frame.down(point.high), frame.down(point.low))
        for (across, _), point in zip(at, one.points, strict=True)
        if point.low is not None and point.high is not None
    ]
    if len(ranges) > 1:
        upper = [f"{_n(across)},{_n(high)}" for across, high, _ in ranges]
        lower = [f"{_n(across)},{_n(low)}" for across, _, low in reversed(ranges)]
        _add(group, "polygon", points=" ".join(upper + lower), css="band")
    else:
        for across, high, low in ranges:
            _add(group, "path", d=f"M{_n(across)} {_n(high)}V{_n(low)}", css="whisker")
    if len(at) > 1:
        points = " ".join(f"{_n(across)},{_n(down)}" for across, down in at)
        _add(group, "polyline", points=points, css="line")
    for (across, down), point in zip(at, one.points, strict=True):
        mark = _add(group, "use", href=f"#{one.look.mark}", x=across, y=down)
        _add(mark, "title", point.hover)
    return at[-1] if at else (frame.left, frame.bottom)


def _label_ends(svg: ET.Element, frame: _Frame, series: Sequence[Series], ends: Sequence[tuple[float, float]]) -> None:
    """Writes each line's name beside its end, moved apart where they would overlap."""
    order = sorted(range(len(series)), key=lambda place: ends[place][1])
    heights = _apart([ends[place][1] for place in order], frame.top + 2, frame.bottom)
    for place, height in zip(order, heights, strict=True):
        across, down = ends[place]
        group = _add(svg, "g", css=f"label {series[place].look.colour}")
        start = frame.right + 6
        _add(group, "path", d=f"M{_n(across + 5)} {_n(down)}L{_n(start - 2)} {_n(height)}", css="leader")
        _add(group, "text", _cut(series[place].name), x=start, y=height + 4, css="name")


def _apart(wanted: Sequence[float], top: float, bottom: float) -> list[float]:
    """Moves sorted heights apart by a line's height at least, within bounds where they fit."""
    heights: list[float] = []
    for height in wanted:
        heights.append(max(height, heights[-1] + _LINE_HEIGHT if heights else top))
    limit = bottom
    for place in range(len(heights) - 1, -1, -1):
        heights[place] = min(heights[place], limit)
        limit = heights[place] - _LINE_HEIGHT
    return heights


def _square_x(share: float) -> float:
    return _SQUARE_LEFT + _SQUARE * share


def _square_y(share: float) -> float:
    return _SQUARE_TOP + _SQUARE * (1 - share)


def _draw_frame(frame: ET.Element) -> None:
    """The axes of a reliability diagram."""
    bottom = _SQUARE_TOP + _SQUARE
    for value in (0.0, 0.5, 1.0):
        across, down = _square_x(value), _square_y(value)
        _add(frame, "path", d=f"M{_n(_SQUARE_LEFT)} {_n(down)}h{_n(_SQUARE)}", css="grid")
        _add(frame, "path", d=f"M{_n(across)} {_n(_SQUARE_TOP)}v{_n(_SQUARE)}", css="grid")
        _add(frame, "text", f"{value:.1f}", x=_SQUARE_LEFT - 5, y=down + 4, css="t end")
        _add(frame, "text", f"{value:.1f}", x=across, y=bottom + _COUNTS + 14, css="t mid")
    _add(frame, "path", d=f"M{_n(_SQUARE_LEFT)} {_n(bottom)}l{_n(_SQUARE)} {_n(-_SQUARE)}", css="diagonal")
    _add(frame, "text", "probability foretold", x=_square_x(0.5), y=bottom + _COUNTS + 32, css="t mid")


def _count_bar(dot: Dot, size: float) -> str:
    """The bar below a bin; ``size`` is its count as a share of the largest."""
    tall = max(1.0, (_COUNTS - 4) * size)
    wide = max(1.0, _SQUARE * (dot.high - dot.low) - 2)
    return f"M{_n(_square_x(dot.low) + 1)} {_n(_SQUARE_TOP + _SQUARE + _COUNTS)}v{_n(-tall)}h{_n(wide)}v{_n(tall)}z"


def _draw_bar(svg: ET.Element, bar: Bar, *, top: float, left: float, right: float) -> None:
    """One bar with its name and value; as thick as the page makes the line that it is."""
    reach = right - left
    group = _add(svg, "g", css=f"series {bar.look.colour}", transform=f"translate(0 {_n(top)})")
    _add(group, "title", bar.hover)
    _add(group, "text", _cut(bar.name), x=left - 6, y=11, css="n")
    _add(group, "path", d=f"M{_n(left)} 7h{_n(reach * _inside(bar.value))}", css="b")
    if bar.low is not None and bar.high is not None:
        low, high = left + reach * _inside(bar.low), left + reach * _inside(bar.high)
        _add(group, "path", d=f"M{_n(low)} 7H{_n(high)}", css="h")
    if bar.before is not None:
        _add(group, "path", d=f"M{_n(left + reach * _inside(bar.before))} -1v16", css="w")
    _add(group, "text", bar.text, x=right + 8, y=11, css="v")


def _svg(width: float, height: float, title: str, *, css: str) -> ET.Element:
    attributes = {
        "viewBox": f"0 0 {_n(width)} {_n(height)}",
        "class": f"chart {css}",
        "role": "img",
        "aria-label": title,
    }
    return ET.Element("svg", attributes)


def _add(
    parent: ET.Element, tag: str, text: str | None = None, *, css: str | None = None, **attributes: str | float
) -> ET.Element:
    named = {name: value if isinstance(value, str) else _n(value) for name, value in attributes.items()}
    if css is not None:
        named["class"] = css
    element = ET.SubElement(parent, tag, named)
    element.text = text
    return element


def _written(svg: ET.Element) -> str:
    # ">" is escaped wherever it is not the end of a tag
    return ET.tostring(svg, encoding="unicode").replace(" />", "/>")


def _n(value: float) -> str:
    """A coordinate, to a tenth."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def _inside(share: float) -> float:
    return min(max(share, 0.0), 1.0)


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
