"""A figure and what it should not exceed, and the table of such figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

__all__ = ["Row", "table"]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of a table.

    Attributes:
        what: What was measured.
        measured: The figure, in the unit named.
        unit: Its unit.
        target: What it should not exceed; ``None`` where nothing was promised.
    """

    what: str
    measured: float
    unit: str
    target: float | None = None

    @property
    def met(self) -> bool:
        """Whether the target is kept."""
        return self.target is None or self.measured <= self.target


def table(rows: Sequence[Row], *, title: str) -> Table:
    """The rows as a table for a person."""
    shown = Table("measure", "figure", "unit", "at most", "", title=title)
    for row in rows:
        limit = "" if row.target is None else f"{row.target:g}"
        mark = "" if row.target is None else ("kept" if row.met else "[red]missed[/red]")
        shown.add_row(row.what, f"{row.measured:.3f}", row.unit, limit, mark)
    return shown
