"""Runs a test's body in a process of its own, for tests that fork.

A fork of a process whose libraries have started threads, as torch does, may wait for their locks forever.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path


def run_in_a_process_without_threads(body: Callable[[Path], None], path: Path, *, seconds: float) -> None:
    """Fails when the body fails (its traceback is in the captured output) or takes longer than `seconds`."""
    process = multiprocessing.get_context("spawn").Process(target=body, args=(path,))
    process.start()
    process.join(seconds)
    hung = process.is_alive()
    process.kill()
    process.join()
    assert not hung, f"{body.__name__} was not done after {seconds} s"
    assert process.exitcode == 0, f"{body.__name__} failed: its traceback is above"
