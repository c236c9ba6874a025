"""Which figures stand beside each other: the tables of a report, before they have a look.

A table holds figures of one dataset and one comparability group; it cannot be built otherwise. Rows are a method with a
number of edits, columns a measure read in one way. Knows nothing of terminals or pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from memedit.evaluation.cases import ProbeKind
from memedit.evaluation.figures import EvalReport, Figure, Measure
from memedit.evaluation.measures import LEGACY_PROTOCOL, TOLD
from memedit.evaluation.report.numbers import sign_of, whole_number
from memedit.evaluation.results import GENERATING

__all__ = [
    "Column",
    "FigureTable",
    "Row",
    "datasets_of",
    "edits_phrase",
    "edits_text",
    "figure_rank",
    "groups_of",
    "headline_columns",
    "headline_reading",
    "headline_tables",
    "is_legacy",
    "measure_tables",
    "measures_of",
    "method_rank",
    "protocol_note",
    "protocol_of",
]

_PROTOCOLS: tuple[str, ...] = (*GENERATING, "probability", LEGACY_PROTOCOL)

_NOTES = {
    "free": "All edits in place at once; the model sees what a user would type, and answers freely.",
    "no-router": "Ablation: the nearest edit always governs, so that only answering is tested.",
    "oracle-router": "Ablation: the right edit always governs, so that only answering is tested.",
    "probability": "Two given answers are compared by their likelihood; the model says nothing by itself.",
    LEGACY_PROTOCOL: (
        "Legacy: each token of the wanted answer is guessed with the ones before it given, which hands over the "
        "answer's beginning and its length. Only for comparison with published tables."
    ),
}

_IN_SCOPE_READINGS = {"probability": "P(new) > P(old)", LEGACY_PROTOCOL: "token accuracy"}
_OUT_OF_SCOPE_READINGS = {"probability": "P(old) > P(new)", LEGACY_PROTOCOL: "token agreement"}

_HEADLINE_MEASURES: tuple[Measure, ...] = (
    "reliability",
    "generalization",
    "portability",
    "robustness",
    "locality",
)
_HEADLINE_COSTS = (("seconds an edit", "time an edit"), ("answer seconds, ratio to base", "time to answer"))

_ROUTING_KINDS = ("right edit", "another edit", "recall@1", "recall@5", "recall@10", "false fires")
_KINDS: tuple[str, ...] = (*get_args(ProbeKind), *_ROUTING_KINDS)

_READINGS = (
    "anywhere",
    "identical",
    "start",
    "exact",
    "verdict",
    "old said",
    "cut",
    "P(new) > P(old)",
    "P(old) > P(new)",
    "P(new) - P(old)",
    "P(old) - P(new)",
    "token accuracy",
    "token agreement",
    "kl",
)
_READING_WORDS = {
    "anywhere": "answer anywhere",
    "identical": "identical answer",
    "start": "at the start",
    "exact": "exactly",
    "verdict": "judge's verdict",
    "old said": "old answer said",
    "cut": "cut at the limit",
    "kl": "KL divergence",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        title: What is measured, such as ``"Reliability"``.
        note: How answers were read, and the unit of a cell; may be empty.
    """

    title: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table.

    Attributes:
        method: Name of the method.
        edits: How many edits were in place.
        sequential: Whether they were made one after the other.
        figures: One a column; None where there is none.
        any_edits: Whether it stands for every number of edits, because it is the same for all of them.
    """

    method: str
    edits: int
    sequential: bool
    figures: tuple[Figure | None, ...]
    any_edits: bool = False

    @property
    def edits_text(self) -> str:
        """The number of edits, and whether they were made one by one."""
        return "any" if self.any_edits else edits_text(self.edits, sequential=self.sequential)


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureTable:
    """Figures that may be compared, column by column.

    Attributes:
        dataset: Name and split.
        comparability: The group that every figure in it belongs to.
        subject: What the table shows.
        columns: Its columns.
        rows: Its rows.

    Raises:
        ValueError: A figure of another dataset or comparability group is in it.
    """

    dataset: str
    comparability: str
    subject: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            for figure in row.figures:
                if figure is None:
                    continue
                given = (figure.dataset, figure.comparability)
                if given != (self.dataset, self.comparability):
                    raise ValueError(
                        f"A table of {self.dataset} ({self.comparability}) cannot hold a figure of "
                        f"{given[0]} ({given[1]}): the two must not be compared."
                    )

    @property
    def title(self) -> str:
        """What the table shows, of which dataset and group."""
        return f"{self.dataset} · {self.comparability} · {self.subject}"

    @property
    def legacy(self) -> bool:
        """Whether its figures are kept for comparison with published tables only."""
        return is_legacy(self.comparability)


def edits_text(edits: int, *, sequential: bool) -> str:
    """A number of edits, and whether they were made one by one."""
    return f"{whole_number(edits)}, one\N{NO-BREAK SPACE}by\N{NO-BREAK SPACE}one" if sequential else whole_number(edits)


def edits_phrase(edits: int, *, sequential: bool = False) -> str:
    """The same with the noun: ``1 edit``, ``1,000 edits``."""
    noun = "edit" if edits == 1 else "edits"
    return f"{whole_number(edits)} {noun}" + (", one by one" if sequential else "")


def datasets_of(report: EvalReport) -> list[str]:
    """The datasets in the order in which they were run."""
    run = (summary.cell.dataset for summary in report.cells)
    return list(dict.fromkeys([*run, *(figure.dataset for figure in report.figures)]))


def groups_of(report: EvalReport, dataset: str) -> list[str]:
    """The comparability groups of a dataset: free generation first, then methods told the edit, legacy last."""
    found = {figure.comparability for figure in report.figures if figure.dataset == dataset}
    return sorted(found, key=_group_rank)


def measures_of(report: EvalReport, dataset: str) -> list[Measure]:
    """The measures of which a dataset has figures."""
    found = {figure.measure for figure in report.figures if figure.dataset == dataset}
    return [measure for measure in get_args(Measure) if measure in found]


def is_legacy(comparability: str) -> bool:
    """Whether a group's figures are kept for comparison with published tables only."""
    return protocol_of(comparability) == LEGACY_PROTOCOL


def protocol_of(comparability: str) -> str:
    """The protocol that a comparability group begins with."""
    return max((one for one in _PROTOCOLS if comparability.startswith(one)), key=len, default=comparability)


def protocol_note(comparability: str) -> str:
    """What a reader must know of a comparability group."""
    note = _NOTES.get(protocol_of(comparability), "")
    if TOLD in comparability and protocol_of(comparability) != "oracle-router":
        note += " These methods are handed the edit that each probe belongs to, and stand apart from the others."
    return note.strip()


def headline_reading(comparability: str, measure: Measure) -> str:
    """The reading that stands for a measure."""
    protocol = protocol_of(comparability)
    if measure == "locality":
        return _OUT_OF_SCOPE_READINGS.get(protocol, "identical")
    return _IN_SCOPE_READINGS.get(protocol, "anywhere")


def headline_columns(comparability: str) -> tuple[Column, ...]:
    """The columns of a headline table."""
    measures = tuple(
        Column(measure.capitalize(), f"{_words(headline_reading(comparability, measure))}, %")
        for measure in _HEADLINE_MEASURES
    )
    costs = tuple(
        Column(title.capitalize(), "× unedited" if "ratio" in kind else "") for kind, title in _HEADLINE_COSTS
    )
    return measures + costs


def headline_tables(report: EvalReport) -> list[FigureTable]:
    """One table for each dataset and comparability group: the field's measures, and what an edit and an answer cost.

    Columns of which a group has no figure are left out.
    """
    return [
        _headline_table(report, dataset, group)
        for dataset in datasets_of(report)
        for group in groups_of(report, dataset)
    ]


def measure_tables(
    report: EvalReport, dataset: str, measures: Iterable[Measure], *, headline_only: bool = False
) -> list[FigureTable]:
    """Every figure of some measures: a table for each comparability group and measure, a column a kind and reading.

    Args:
        report: The run.
        dataset: Name and split.
        measures: The measures.
        headline_only: Whether to leave out all readings but the one that stands for a measure.
    """
    tables = []
    wanted = list(measures)
    for group in groups_of(report, dataset):
        for measure in wanted:
            figures = report.find(dataset=dataset, comparability=group, measure=measure)
            if headline_only:
                figures = [one for one in figures if one.reading in {None, headline_reading(group, measure)}]
            if figures:
                tables.append(_measure_table(report, dataset, group, measure, figures))
    return tables


def method_rank(report: EvalReport) -> Callable[[str], tuple[int, str]]:
    """A sorting key for methods: the order of the run, unknown ones behind."""
    places = {name: place for place, name in enumerate(report.methods)}
    return lambda method: (places.get(method, len(places)), method)


def figure_rank(figure: Figure) -> tuple[int, str, int, str]:
    """A sorting key for the figures of one measure: over all kinds first, then each; headline readings first."""
    kind, reading = figure.kind, figure.reading
    kind_place = -1 if kind is None else _KINDS.index(kind) if kind in _KINDS else len(_KINDS)
    unknown_kind = kind is not None and kind_place == len(_KINDS)
    reading_place = _READINGS.index(reading) if reading in _READINGS else len(_READINGS)
    return (kind_place, _natural(kind) if unknown_kind and kind else "", reading_place, reading or "")


def _headline_table(report: EvalReport, dataset: str, group: str) -> FigureTable:
    found = report.find(dataset=dataset, comparability=group)
    places: dict[tuple[str, str | None, str | None], int] = {}
    for place, measure in enumerate(_HEADLINE_MEASURES):
        places[measure, None, headline_reading(group, measure)] = place
    for place, (kind, _) in enumerate(_HEADLINE_COSTS, start=len(_HEADLINE_MEASURES)):
        places["efficiency", kind, None] = place
    columns = headline_columns(group)
    rows = _rows(report, found, len(columns), lambda one: places.get((one.measure, one.kind, one.reading)))
    rows = _unedited_once(report, rows)
    filled = [place for place in range(len(columns)) if any(row.figures[place] is not None for row in rows)]
    columns = tuple(columns[place] for place in filled)
    rows = [replace(row, figures=tuple(row.figures[place] for place in filled)) for row in rows]
    return FigureTable(dataset=dataset, comparability=group, subject="headline", columns=columns, rows=tuple(rows))


def _measure_table(
    report: EvalReport, dataset: str, group: str, measure: Measure, figures: Sequence[Figure]
) -> FigureTable:
    kept = _without_repetition(figures)
    heads = {(one.kind, one.reading, one.unit): one for one in sorted(kept, key=figure_rank)}
    places = {head: place for place, head in enumerate(heads)}
    columns = [
        Column(_kind_words(one.kind), ", ".join(part for part in (_words(one.reading), sign_of(one)) if part))
        for one in heads.values()
    ]
    rows = _rows(report, kept, len(heads), lambda one: places[one.kind, one.reading, one.unit])
    return FigureTable(
        dataset=dataset,
        comparability=group,
        subject=measure,
        columns=tuple(columns),
        rows=tuple(rows),
    )


def _without_repetition(figures: Sequence[Figure]) -> list[Figure]:
    """Leaves out the figures of a measure's only kind where they repeat those over all kinds."""
    kinds = {figure.kind for figure in figures}
    if len(kinds) != 2 or None not in kinds:
        return list(figures)
    overall = {_place(figure): figure.value for figure in figures if figure.kind is None}
    only = [figure for figure in figures if figure.kind is not None]
    if all(overall.get(_place(figure)) == figure.value for figure in only):
        return [figure for figure in figures if figure.kind is None]
    return list(figures)


def _place(figure: Figure) -> tuple[str, int, bool, str | None]:
    return (figure.method, figure.edits, figure.sequential, figure.reading)


def _rows(
    report: EvalReport, figures: Iterable[Figure], width: int, place_of: Callable[[Figure], int | None]
) -> list[Row]:
    cells: dict[tuple[str, int, bool], list[Figure | None]] = {}
    for figure in figures:
        place = place_of(figure)
        if place is not None:
            key = (figure.method, figure.edits, figure.sequential)
            cells.setdefault(key, [None] * width)[place] = figure
    rank = method_rank(report)
    ordered = sorted(cells, key=lambda key: (rank(key[0]), key[1], key[2]))
    return [Row(*key, figures=tuple(cells[key])) for key in ordered]


def _unedited_once(report: EvalReport, rows: Sequence[Row]) -> list[Row]:
    """Gives a method that changes nothing one row, where it answers alike whatever the number of edits.

    What its answers cost differs by chance then; that stands in the table of efficiency.
    """
    kept: list[Row] = []
    for row in rows:
        same = [other for other in rows if other.method == row.method]
        unchanging = report.methods.get(row.method, {}).get("changes") == "nothing"
        if len(same) == 1 or not unchanging or len({_shown(other) for other in same}) > 1:
            kept.append(row)
        elif row is same[0]:
            answers = tuple(None if one is None or one.measure == "efficiency" else one for one in row.figures)
            kept.append(replace(row, figures=answers, any_edits=True))
    return kept


def _shown(row: Row) -> tuple[tuple[float, float | None, float | None] | None, ...]:
    answers = (None if one is None or one.measure == "efficiency" else one for one in row.figures)
    return tuple(None if one is None else (one.value, one.low, one.high) for one in answers)


def _group_rank(comparability: str) -> tuple[bool, int, bool, str]:
    protocol = protocol_of(comparability)
    place = _PROTOCOLS.index(protocol) if protocol in _PROTOCOLS else len(_PROTOCOLS)
    return (protocol == LEGACY_PROTOCOL, place, TOLD in comparability, comparability)


def _words(reading: str | None) -> str:
    return "" if reading is None else _READING_WORDS.get(reading, reading)


def _kind_words(kind: str | None) -> str:
    words = "all" if kind is None else kind.replace("_", " ")
    return words[:1].upper() + words[1:]


def _natural(text: str) -> str:
    """A key by which numbers in texts sort by size."""
    word, parts = "", []
    for sign in text:
        if sign.isdigit() != word[-1:].isdigit() and word:
            parts.append(word)
            word = ""
        word += sign
    parts.append(word)
    return "".join(part.zfill(12) if part.isdigit() else part for part in parts)
