"""The figures of a run: what was measured, how sure it is, and what it may be compared with.

Plain values. How they are worked out is in `measures` and `routing_measures`; how they look in `report`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from memedit.evaluation.results import Cell

__all__ = ["CalibrationBin", "CellSummary", "EvalReport", "Figure", "Measure", "RiskPoint", "Unit"]

Measure = Literal[
    "reliability",  # the edit prompt itself
    "generalization",  # paraphrases
    "portability",  # alias, one_hop, multi_hop, reversed, logical, yes_no, detail, opinion
    "robustness",  # in-scope probes after a passage, earlier turns, a document
    "conflict",  # the later of two contradicting edits wins
    "locality",  # out-of-scope probes, those behind a context included
    "retention",  # reliability by how many edits came afterwards
    "routing",
    "fluency",
    "ability",
    "efficiency",
]
"""The field's measures; each has kinds, and a figure over all of them."""

Unit = Literal["share", "nats", "bits", "perplexity", "seconds", "bytes", "ratio", "count"]
"""What a figure's value is counted in; a ``share`` lies between 0 and 1, a difference of two between -1 and 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number of one method under one protocol, over all seeds.

    Attributes:
        dataset: Name and split.
        method: Name of the method.
        protocol: How it was asked and scored.
        comparability: Figures with different ones never stand in one column: protocol, and whether the method was told
            the gold edit.
        edits: How many edits were in place.
        sequential: Whether they were made one after the other.
        measure: What was measured.
        kind: The probe kind, or part of the measure, such as ``"false fires"``; None over all kinds.
        reading: How answers were read: ``anywhere``, ``start``, ``exact``, ``identical``, ``verdict``, ...; None where
            nothing is read.
        value: The number.
        unit: What it is counted in.
        low: Lower end of its 95% bootstrap interval over cases; None where there is none.
        high: The upper end.
        before: The same of the unedited model; None where that has none.
        by_seed: The value for each seed.
        cases: Over how many cases.
        count: Over how many probes.
    """

    dataset: str
    method: str
    protocol: str
    comparability: str
    edits: int
    sequential: bool
    measure: Measure
    value: float
    unit: Unit
    kind: str | None = None
    reading: str | None = None
    low: float | None = None
    high: float | None = None
    before: float | None = None
    by_seed: Mapping[int, float] = field(default_factory=dict)
    cases: int = 0
    count: int = 0

    @property
    def delta(self) -> float | None:
        """What editing changed; None where nothing is known of the unedited model."""
        return None if self.before is None else self.value - self.before


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationBin:
    """One bar of a reliability diagram: fires foretold, and fires that were right.

    Attributes:
        dataset: Name and split.
        method: Name of the method.
        edits: How many edits were in place.
        low: From this probability on.
        high: To this one.
        foretold: Mean probability of the best candidates in the bin.
        found: Share of them that were in scope, with the right edit.
        count: How many.
    """

    dataset: str
    method: str
    edits: int
    low: float
    high: float
    foretold: float
    found: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskPoint:
    """Routing at one size of the memory.

    Attributes:
        dataset: Name and split.
        method: Name of the method.
        edits: Size of the memory.
        right: Share of in-scope probes that fired with the right edit; None, here and below, where there were no such
            probes.
        wrong: Share of in-scope probes that fired with another.
        near_misses: Share of near misses that fired falsely.
        unrelated: Share of unrelated traffic that fired.
        count: Over how many probes.
    """

    dataset: str
    method: str
    edits: int
    right: float | None
    wrong: float | None
    near_misses: float | None
    unrelated: float | None
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CellSummary:
    """How much of a cell is there.

    Attributes:
        cell: The cell.
        cases: Cases that were asked.
        not_testable: Of them, those that the unedited model already answers with the new target.
        failed: Of them, those that ended in an error.
        left_out: Probes that do not count, by reason.
        skipped: Why the cell was not run at all, where it was not.
    """

    cell: Cell
    cases: int
    not_testable: int
    failed: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    skipped: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalReport:
    """A whole run.

    Attributes:
        config: The run's settings, as JSON values.
        provenance: What it takes to run it again: versions, data files with their SHA-256, the model's and encoder's
            fingerprints, the project's revision, the machine, when it ran and how long.
        methods: For each method, what it is: the fields of its `memedit.editors.editor.MethodInfo`.
        figures: What was measured.
        cells: What was run.
        calibration: The reliability diagrams.
        risk: Routing as the memory grows.
    """

    config: Mapping[str, Any]
    provenance: Mapping[str, Any]
    methods: Mapping[str, Mapping[str, Any]]
    figures: tuple[Figure, ...]
    cells: tuple[CellSummary, ...]
    calibration: tuple[CalibrationBin, ...] = ()
    risk: tuple[RiskPoint, ...] = ()

    def find(self, **wanted: Any) -> list[Figure]:
        """The figures whose fields have the values given: ``find(method="ike", measure="locality", kind=None)``."""
        return [
            figure for figure in self.figures if all(getattr(figure, name) == value for name, value in wanted.items())
        ]
