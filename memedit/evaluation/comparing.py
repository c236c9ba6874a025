"""Two runs side by side: what the second has over the first, where the two may be compared at all.

A difference is taken on the cases that both runs asked, drawn together, where their results are at hand; the noise
that the cases bring is then in both and falls away. Knows nothing of files or looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from memedit.errors import ConfigError
from memedit.evaluation.figures import EvalReport, Figure
from memedit.evaluation.measures import Quantity, Results, tallies
from memedit.evaluation.routing_measures import routing_tallies
from memedit.evaluation.statistics import Tally, paired_difference

__all__ = ["Comparison", "Difference", "compare"]

_OF_THE_OCCASION = frozenset({"command", "goes"})
"""What provenance says of the occasion; two runs that differ in it alone are runs of the same."""

_LONGEST_SHOWN = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One figure in two runs.

    Attributes:
        first: The figure in the first run.
        second: The figure in the second.
        value: Second less first, on the shared cases where these are known; else of the two figures as they stand.
        low: Lower end of its 95% paired bootstrap interval; None where there is none.
        high: The upper end.
        cases: How many cases both asked; None where that is not known.
    """

    first: Figure
    second: Figure
    value: float
    low: float | None = None
    high: float | None = None
    cases: int | None = None

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low is not None and self.high is not None and not self.low <= 0.0 <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two runs side by side.

    Attributes:
        differences: The figures that are in both, in the order of the first run.
        refused: Pairs of figures that must not be compared, and why, a sentence each.
        notes: In what the two runs differ besides: models, data, versions.
    """

    differences: tuple[Difference, ...]
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def compare(
    first: EvalReport,
    second: EvalReport,
    first_results: Results | None = None,
    second_results: Results | None = None,
    *,
    methods: tuple[str, str] | None = None,
) -> Comparison:
    """Puts the figures of two runs side by side.

    Figures belong together that agree in dataset, protocol, comparability, edits, measure, kind, reading and method.

    Args:
        first: The first run's report.
        second: The second's; may be the same, to compare two of its methods.
        first_results: The first run's results, for differences on shared cases.
        second_results: The second's.
        methods: A method of the first run and one of the second that are compared; None compares each with itself.

    Returns:
        The comparison. Figures that belong together but for their comparability are refused, and said so.

    Raises:
        ConfigError: The run that a method asked for is to be taken from has no figures of it, or the results hold a
            method that their report does not describe.
    """
    _check_methods(first, second, methods)
    ours, theirs = _tallies(first, first_results), _tallies(second, second_results)
    candidates: dict[Quantity, Figure] = {Quantity.of_figure(figure): figure for figure in second.figures}
    differences: list[Difference] = []
    refused: dict[str, None] = {}
    for figure in first.figures:
        if methods is not None and figure.method != methods[0]:
            continue
        quantity = Quantity.of_figure(figure)
        wanted = quantity if methods is None else quantity._replace(method=methods[1])
        other = candidates.get(wanted)
        if other is None:
            continue
        if figure.comparability != other.comparability:
            refused[_refusal(figure, other)] = None
        else:
            differences.append(_difference(figure, other, ours.get(quantity), theirs.get(wanted)))
    return Comparison(
        differences=tuple(differences),
        refused=tuple(refused),
        notes=tuple(_notes(first.provenance, second.provenance)),
    )


def _check_methods(first: EvalReport, second: EvalReport, methods: tuple[str, str] | None) -> None:
    for report, place, method in zip((first, second), ("first", "second"), methods or (), strict=False):
        present = sorted({figure.method for figure in report.figures})
        if method not in present:
            raise ConfigError(
                f"the {place} run has no figures of {method!r}; it has those of {', '.join(present) or 'no method'}."
            )


def _tallies(report: EvalReport, results: Results | None) -> Mapping[Quantity, Tally]:
    return {} if results is None else {**tallies(results), **routing_tallies(results, report.methods)}


def _refusal(first: Figure, second: Figure) -> str:
    return (
        f"{first.dataset}, {first.edits:,} edits: {first.method} ({first.comparability}) and "
        f"{second.method} ({second.comparability}) are not comparable."
    )


def _difference(first: Figure, second: Figure, ours: Tally | None, theirs: Tally | None) -> Difference:
    if ours is None or theirs is None:
        return Difference(first=first, second=second, value=second.value - first.value)
    paired = paired_difference(ours, theirs)
    if paired is None:
        return Difference(first=first, second=second, value=second.value - first.value, cases=0)
    # a figure without an interval has none for its difference either
    interval = paired.interval if first.low is not None and second.low is not None else None
    return Difference(
        first=first,
        second=second,
        value=paired.value,
        low=None if interval is None else interval.low,
        high=None if interval is None else interval.high,
        cases=paired.cases,
    )


def _notes(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    """In what two provenances differ, a sentence for each entry."""
    ours, theirs = dict(_entries(first)), dict(_entries(second))
    for name in sorted(ours.keys() | theirs.keys()):
        if name.partition(".")[0] in _OF_THE_OCCASION:
            continue
        if name not in ours or name not in theirs:
            place, value = ("first", ours[name]) if name in ours else ("second", theirs[name])
            yield f"{name} is known of the {place} run alone: {_shown(value)}"
        elif ours[name] != theirs[name]:
            yield f"{name} differs: {_shown(ours[name])} in the first run, {_shown(theirs[name])} in the second"


def _entries(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The single values of nested JSON, by dotted name; members of a list by their own name where they have one."""
    if isinstance(value, Mapping):
        members = [(str(key), member) for key, member in value.items()]
    elif isinstance(value, (list, tuple)):
        members = [(_member_name(member, place), member) for place, member in enumerate(value)]
    else:
        yield name, value
        return
    for key, member in members:
        yield from _entries(member, f"{name}.{key}" if name else key)


def _member_name(member: Any, place: int) -> str:
    return str(member["name"]) if isinstance(member, Mapping) and "name" in member else str(place)


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…"
