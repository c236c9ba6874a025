"""What a person sees of training on a terminal: a bar with losses, the best dev figure and the time left.

Each evaluation is a line of its own. Where there is no terminal, and so no bar, the beginning of each stage is a line
too, and every five minutes one tells how far training has come, so that a file of it says what is being done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from memedit.commands.output import Output, printable
from training.progress import EvaluationReport, Progress, StepReport

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

__all__ = ["training_progress"]


@contextlib.contextmanager
def training_progress(output: Output) -> Iterator[Progress]:
    """Reports of training on stderr while the block runs.

    Args:
        output: The command's output; where it is read by a program, there are neither bars nor lines.
    """
    if output.as_json or not output.err.is_terminal:
        yield _Lines(output)
        return
    from rich import progress

    bars = progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=20),
        progress.TextColumn("{task.fields[told]}", markup=False),
        console=output.err,
        transient=True,
    )
    with bars:
        yield _Bars(output, bars)


_EVERY = 300.0
"""Seconds between two lines that tell of steps."""


class _Lines:
    """A line an evaluation, one at the beginning of a stage, and one in five minutes."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._begun: set[str] = set()
        self._told: float | None = None

    def stage(self, stage: str, done: int, total: int | None) -> None:
        """Tells that a stage has begun."""
        if stage not in self._begun and done != total:
            self._begun.add(stage)
            self._output.note(f"{printable(stage)} ..." if total is None else f"{printable(stage)} ({total:,}) ...")

    def step(self, report: StepReport) -> None:
        """Tells of the first step and, five minutes after the last line, of another."""
        if self._told is None or report.seconds - self._told >= _EVERY:
            self._told = report.seconds
            told = f"step {report.step:,} of {report.steps:,}: loss {report.loss:.3f}"
            self._output.note(f"{told}, {_clock(report.seconds_left)} left")

    def evaluation(self, report: EvaluationReport) -> None:
        """Tells the dev figure that chooses the best state; the log has all of them."""
        figure, best = report.figures[report.maximised], f"best {report.best:.4g}, at step {report.best_step:,}"
        self._output.note(f"step {report.step:,}: {report.maximised} {figure:.4g} ({best})")


class _Bars(_Lines):
    """A bar for the steps, and one for each stage that is not done."""

    def __init__(self, output: Output, bars: RichProgress) -> None:
        super().__init__(output)
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._best = ""

    def stage(self, stage: str, done: int, total: int | None) -> None:
        """Shows a bar while the stage lasts."""
        told = f"{done:,}" if total is None else f"{done:,}/{total:,}"
        self._show(stage, done, total, told, visible=done != total)

    def step(self, report: StepReport) -> None:
        """Moves the bar of the steps."""
        parts = "".join(f" {name} {value:.3f}" for name, value in report.losses.items())
        told = f"{report.step:,}/{report.steps:,}  loss {report.loss:.3f}{parts}{self._best}"
        self._show("training", report.step, report.steps, f"{told}  {_clock(report.seconds_left)} left", visible=True)

    def evaluation(self, report: EvaluationReport) -> None:
        """Tells the dev figure above the bars."""
        self._best = f"  best {report.best:.4g}"
        super().evaluation(report)

    def _show(self, name: str, done: int, total: int | None, told: str, *, visible: bool) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(printable(name), total=total, told="")
        self._bars.update(self._tasks[name], completed=done, total=total, told=printable(told), visible=visible)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
