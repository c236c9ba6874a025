"""What a run covers, and what it leaves out: cases that test nothing, failures, uncounted probes, skipped cells.

Counts are over all seeds. Knows nothing of how they are shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from memedit.evaluation.figures import CellSummary, EvalReport
from memedit.evaluation.report.arrangement import edits_text, method_rank

__all__ = ["CoverageRow", "Skipped", "coverage_of", "reasons_of", "skipped_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageRow:
    """What was asked of one method under one protocol, over all seeds.

    Attributes:
        dataset: Name and split.
        method: Name of the method.
        protocol: How it was asked.
        edits: How many edits were in place.
        sequential: Whether they were made one after the other.
        seeds: How many seeds.
        cases: Cases that were asked.
        not_testable: Of them, those that the unedited model already answers with the new target.
        failed: Of them, those that ended in an error.
        left_out: Probes that do not count, by reason.
    """

    dataset: str
    method: str
    protocol: str
    edits: int
    sequential: bool
    seeds: int
    cases: int
    not_testable: int
    failed: int
    left_out: Mapping[str, int]

    @property
    def edits_text(self) -> str:
        """The number of edits, and whether they were made one by one."""
        return edits_text(self.edits, sequential=self.sequential)

    @property
    def counted(self) -> int:
        """Cases that stand in the figures."""
        return self.cases - self.not_testable - self.failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Cells that were not run, with one reason.

    Attributes:
        dataset: Name and split.
        method: Name of the method.
        protocol: How it would have been asked.
        edits: The numbers of edits at which it was not run, with how they were to be made.
        reason: Why.
    """

    dataset: str
    method: str
    protocol: str
    edits: tuple[str, ...]
    reason: str


def coverage_of(report: EvalReport, dataset: str | None = None) -> list[CoverageRow]:
    """What was asked, cell by cell with the seeds added up; of one dataset, or of all."""
    groups: dict[tuple[str, str, str, int, bool], list[CellSummary]] = {}
    for summary in _of(report, dataset):
        if summary.skipped is None:
            cell = summary.cell
            key = (cell.dataset, cell.protocol, cell.method, cell.edits, cell.sequential)
            groups.setdefault(key, []).append(summary)
    rank = method_rank(report)
    keys = sorted(groups, key=lambda key: (*key[:2], rank(key[2]), *key[3:]))
    return [_row(key, groups[key]) for key in keys]


def skipped_of(report: EvalReport, dataset: str | None = None) -> list[Skipped]:
    """What was not run at all, and why; of one dataset, or of all."""
    found: dict[tuple[str, str, str, str], dict[str, None]] = {}
    for summary in _of(report, dataset):
        if summary.skipped is not None:
            cell = summary.cell
            key = (cell.dataset, cell.method, cell.protocol, summary.skipped)
            found.setdefault(key, {})[edits_text(cell.edits, sequential=cell.sequential)] = None
    return [
        Skipped(dataset=name, method=method, protocol=protocol, edits=tuple(edits), reason=reason)
        for (name, method, protocol, reason), edits in found.items()
    ]


def reasons_of(rows: Iterable[CoverageRow]) -> list[str]:
    """Every reason for which probes were left out, sorted."""
    return sorted({reason for row in rows for reason in row.left_out})


def _of(report: EvalReport, dataset: str | None) -> Iterable[CellSummary]:
    return (summary for summary in report.cells if dataset in {None, summary.cell.dataset})


def _row(key: tuple[str, str, str, int, bool], summaries: list[CellSummary]) -> CoverageRow:
    dataset, protocol, method, edits, sequential = key
    left_out: Counter[str] = Counter()
    for summary in summaries:
        left_out.update(summary.left_out)
    return CoverageRow(
        dataset=dataset,
        method=method,
        protocol=protocol,
        edits=edits,
        sequential=sequential,
        seeds=len({summary.cell.seed for summary in summaries}),
        cases=sum(summary.cases for summary in summaries),
        not_testable=sum(summary.not_testable for summary in summaries),
        failed=sum(summary.failed for summary in summaries),
        left_out=left_out,
    )
