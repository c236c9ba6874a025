"""How a number is written for a person: percent, times, sizes, intervals.

Knows figures and nothing of tables or pages. The same text stands in the terminal and on the page.
"""

from __future__ import annotations

from memedit.evaluation.figures import Figure, Unit

__all__ = [
    "NO_FIGURE",
    "amount",
    "before_text",
    "described",
    "figure_text",
    "interval_text",
    "sign_of",
    "value_text",
    "whole_number",
]

NO_FIGURE = "–"
"""What stands where there is no figure."""

_SIGNS: dict[Unit, str] = {
    "share": "%",
    "nats": "nats",
    "bits": "bits",
    "perplexity": "perplexity",
    "seconds": "",
    "bytes": "",
    "ratio": "×",
    "count": "",
}
_UNITS: dict[Unit, str] = {"share": "%", "nats": " nats", "bits": " bits", "ratio": " times"}
"""What follows a number in a sentence, where `amount` does not say it."""


_DECIMALS = frozenset({"AUROC", "Brier score", "calibration error", "P(new) - P(old)", "P(old) - P(new)"})
"""Kinds and readings from 0 to 1, or -1 to 1, that are no shares of anything: written as decimals, not as percent."""


def sign_of(figure: Figure) -> str:
    """What a column of such figures is headed with, the unit left out of its cells; empty for plain numbers."""
    return "" if _is_decimal(figure) else _SIGNS[figure.unit]


def value_text(figure: Figure) -> str:
    """The value alone."""
    return _written(figure, figure.value)


def amount(value: float, unit: Unit) -> str:
    """A number in a readable form; percent for shares, without the sign."""
    if unit == "share":
        return f"{100 * value:.1f}"
    if unit == "seconds":
        return _duration(value)
    if unit == "bytes":
        return _size(value)
    if unit == "count":
        return whole_number(value)
    return _significant(value)


def whole_number(value: float) -> str:
    """A count, with separators of thousands."""
    return f"{value:,.0f}"


def interval_text(figure: Figure) -> str:
    """The 95% interval in brackets; empty where there is none."""
    if figure.low is None or figure.high is None:
        return ""
    return f"[{_written(figure, figure.low)}–{_written(figure, figure.high)}]"


def figure_text(figure: Figure) -> str:
    """The value, with its interval where there is one: ``82.5 [76.1–88.0]``."""
    return f"{value_text(figure)} {interval_text(figure)}".rstrip()


def before_text(figure: Figure) -> str:
    """The unedited model's: ``was 3.1``; empty where it has none, or where the figure only compares with it."""
    if figure.before is None or figure.reading in {"identical", "token agreement"}:
        return ""
    return f"was {_written(figure, figure.before)}"


def described(figure: Figure) -> str:
    """Everything that is known of a figure, in a line."""
    unit = _UNITS.get(figure.unit, "") if sign_of(figure) else ""
    parts = [f"{value_text(figure)}{unit}"]
    if interval_text(figure):
        parts[0] += f" {interval_text(figure)}"
    if before_text(figure):
        parts.append(before_text(figure))
    if figure.count:
        parts.append(f"{whole_number(figure.count)} probes of {whole_number(figure.cases)} cases")
    return ", ".join(parts)


def _is_decimal(figure: Figure) -> bool:
    return figure.kind in _DECIMALS or figure.reading in _DECIMALS


def _written(figure: Figure, value: float) -> str:
    return f"{value:.3f}" if _is_decimal(figure) else amount(value, figure.unit)


def _significant(value: float) -> str:
    """Three significant digits, without an exponent for what people write without one."""
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        decimals = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
        return f"{value:,.{decimals}f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"
    return f"{value:.1e}"


def _duration(seconds: float) -> str:
    size = abs(seconds)
    if size >= 120:
        return f"{seconds / 60:.1f} min"
    for factor, unit in ((1.0, "s"), (1e3, "ms")):
        if size * factor >= 1:
            return f"{_digits(seconds * factor)} {unit}"
    return "0 s" if size == 0 else f"{_digits(seconds * 1e6)} µs"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{_digits(count)} {unit}"
        count /= 1000
    return f"{_digits(count)} GB"


def _digits(value: float) -> str:
    """Three significant digits of a number from 1 to 1,000."""
    value = float(f"{value:.3g}")
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
