"""All tables, one after the other: ``python -m benchmarks``, or ``make bench``.

The tables about records read ``../shared/data``, or the folder that ``MEMEDIT_DATA`` names, and are left out, with a
word, where it is absent.
"""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console

import memedit
from benchmarks import counterfact, generation, locating, memory
from benchmarks.rows import table
from memedit.known_models import DEFAULT_ENCODER


def main() -> None:
    """Print every table."""
    console = Console()
    encoder = memedit.resolve(DEFAULT_ENCODER)
    console.print(table(memory.run(encoder), title="memory_store"))
    console.print(table(generation.run(), title=f"generation, {generation.EDITS:,} edits in memory"))
    console.print(table(locating.run(samples=2), title="tracing one fact, 2 noise samples"))
    data = Path(os.environ.get("MEMEDIT_DATA", "../shared/data"))
    if data.is_dir():
        console.print(counterfact.table(counterfact.run(data, governed=200)))
    else:
        console.print(f"left out: CounterFact (no data in {data}; set MEMEDIT_DATA)")


if __name__ == "__main__":
    main()
