"""Where the command line prints: results on stdout, everything else on stderr.

A program reads JSON or plain lines, with nothing cut off and no colour; a person at a terminal reads tables.
Which of the two is at hand is asked here. What edits look like is in `render`.
"""

from __future__ import annotations

import contextlib
import json
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any, Protocol

from rich.console import Console, RenderableType
from rich.text import Text

from memedit.commands.exits import Failure

__all__ = ["Output", "Progress", "printable"]


class Progress(Protocol):
    """Is told how far long work has come."""

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Takes one report.

        Args:
            stage: What is being done.
            done: How much of it is done.
            total: The whole; None where it is not known.
        """


_SAFE_CONTROLS = "\n\t\u200c\u200d"
"""Line breaks, tabs, and the joiners that several scripts and emoji need."""

_BYTES_STAGE_FROM = 1 << 20
"""A stage with a whole this large counts bytes."""


class Output:
    """The two streams of one command.

    Args:
        as_json: Whether stdout carries JSON and nothing else.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.out = Console(highlight=False, markup=False, emoji=False)
        self.err = Console(stderr=True, highlight=False, markup=False, emoji=False)

    @property
    def for_person(self) -> bool:
        """Whether a person reads stdout at a terminal."""
        return self.out.is_terminal and not self.as_json

    def json(self, value: Any) -> None:
        """One JSON value on one line of stdout."""
        self.line(json.dumps(value, ensure_ascii=False, default=str))

    def line(self, text: str) -> None:
        """One line of stdout, exactly as given."""
        sys.stdout.write(f"{text}\n")

    def text(self, text: str) -> None:
        """Running text on stdout: wrapped at words for a person, as it is for a program."""
        if self.for_person:
            self.show(Text(printable(text)))
        else:
            self.line(printable(text))

    def show(self, renderable: RenderableType) -> None:
        """Something for a person's terminal on stdout."""
        self.out.print(renderable)

    def note(self, text: str, *, style: str = "dim") -> None:
        """A remark on stderr; a program that asked for JSON gets none."""
        if not self.as_json:
            self.err.print(Text(printable(text), style=style), soft_wrap=not self.err.is_terminal)

    def fail(self, failure: Failure) -> None:
        """An error on stderr."""
        if self.as_json:
            sys.stderr.write(json.dumps(failure.to_json(), ensure_ascii=False) + "\n")
            return
        self._fail_line("error", "bold red", failure.message)
        if failure.hint:
            self._fail_line("hint", "bold cyan", failure.hint)

    def _fail_line(self, label: str, style: str, message: str) -> None:
        line = Text.assemble((f"{label}: ", style), printable(message))
        self.err.print(line, soft_wrap=not self.err.is_terminal)

    @contextlib.contextmanager
    def progress(self) -> Iterator[Progress]:
        """Progress bars on stderr while the block runs, none where no person would see them."""
        if self.as_json or not self.err.is_terminal:
            yield _no_progress
            return
        with _Bars(self.err) as bars:
            yield bars


def _no_progress(stage: str, done: int, total: int | None) -> None:
    """Reports nothing."""


class _Bars:
    """One bar a stage, which appears with the first report of it."""

    def __init__(self, console: Console) -> None:
        from rich import progress

        self._progress = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(bar_width=30),
            progress.TextColumn("{task.fields[amount]}", markup=False),
            progress.TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Progress:
        self._progress.start()
        return self._report

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _report(self, stage: str, done: int, total: int | None) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(printable(stage), total=total, amount="")
        self._progress.update(self._tasks[stage], completed=done, total=total, amount=_amount(done, total))


def _amount(done: int, total: int | None) -> str:
    if total is None and not done:
        return ""
    if (total or done) >= _BYTES_STAGE_FROM:
        whole = "" if total is None else f"/{total / 1e6:.0f}"
        return f"{done / 1e6:.0f}{whole} MB"
    return f"{done:,}" if total is None else f"{done:,}/{total:,}"


def printable(text: str) -> str:
    """A text without characters that would steer the terminal; they appear as escapes instead.

    Stored facts and a model's answers are other people's text: an escape sequence in one must not reach the
    terminal.
    """
    if text.isprintable():
        return text
    return "".join(character if _is_safe(character) else _escaped(character) for character in text)


def _is_safe(character: str) -> bool:
    return character in _SAFE_CONTROLS or unicodedata.category(character) not in {"Cc", "Cf", "Cs"}


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
