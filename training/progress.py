"""What training tells of itself while it runs, and to whom. Knows nothing of terminals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

__all__ = ["SILENT", "EvaluationReport", "Progress", "StepReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """One step of the optimiser.

    Attributes:
        step: How many steps have been made, this one included.
        steps: How many there will be at the most.
        loss: The loss of the step, the mean over its batches.
        losses: The losses it is made of, by name.
        learning_rate: At this step.
        seconds: Training so far, all runs together.
        seconds_left: What is left at the pace of this run, evaluations included; early stopping may end it sooner.
    """

    step: int
    steps: int
    loss: float
    losses: Mapping[str, float]
    learning_rate: float
    seconds: float
    seconds_left: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationReport:
    """One measuring on the dev records.

    Attributes:
        step: After how many steps.
        figures: The figures, by name.
        maximised: The name of the figure that chooses the best state.
        best_step: The step of the best state so far.
        best: The best state's figure.
    """

    step: int
    figures: Mapping[str, float]
    maximised: str
    best_step: int
    best: float


class Progress(Protocol):
    """Is told how far training has come."""

    def stage(self, stage: str, done: int, total: int | None) -> None:
        """Takes a report of work other than steps; what all of memedit calls to tell of long work.

        Args:
            stage: What is being done.
            done: How much of it is done.
            total: The whole; None where it is not known.
        """

    def step(self, report: StepReport) -> None:
        """Takes the report of a step."""

    def evaluation(self, report: EvaluationReport) -> None:
        """Takes the report of an evaluation."""


class _Silent:
    def stage(self, stage: str, done: int, total: int | None) -> None:
        """Tells nobody."""

    def step(self, report: StepReport) -> None:
        """Tells nobody."""

    def evaluation(self, report: EvaluationReport) -> None:
        """Tells nobody."""


SILENT: Progress = _Silent()
"""Tells nobody."""
