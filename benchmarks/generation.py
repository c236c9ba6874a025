"""What the memory costs a model whose prompts no edit governs.

    python -m benchmarks.generation

With 10,000 edits in memory, prompts out of scope are continued by the base model and by the edited model in turn, 32
new tokens each, at batch 1 and 16; the figure is the ratio of the two medians, of one run. A router decision is timed
apart, without its encoder. A governed batch is timed too: what in-context answering costs beside the base model.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

import memedit
from benchmarks.rows import Row, table
from memedit import Edit, EditedModel, question_query

EDITS = 10_000
NEW_TOKENS = 32
OUT_OF_SCOPE = (
    "The Moon goes around the Earth once in",
    "To bake a good loaf of bread, one needs",
    "Water boils at a temperature of",
    "The most common letter in English is",
    "A spider has",
    "Photosynthesis is the process by which",
    "The opposite of hot is",
    "A triangle with three equal sides is called",
)
GOVERNED = "The harbour master of Port {0:05d} is"


def edits(count: int) -> list[Edit]:
    """Facts about ports that do not exist."""
    return [Edit(prompt=GOVERNED.format(number), target=f"Captain {number % 97}") for number in range(count)]


def ratio(base: Callable[[], Any], edited: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """The ratio of the medians, and the base's median in seconds, of runs taken in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for call in (base, edited):
        call()
    for _ in range(rounds):
        for call, taken in zip((base, edited), times, strict=True):
            started = time.perf_counter()
            call()
            taken.append(time.perf_counter() - started)
    return statistics.median(times[1]) / statistics.median(times[0]), statistics.median(times[0])


def generating(model: EditedModel, prompts: Sequence[str], rounds: int) -> tuple[float, float]:
    """Ratio and base seconds for one batch."""
    inputs = model.tokenizer(list(prompts), return_tensors="pt", padding=True)
    options: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False}
    return ratio(
        lambda: model.unedited.generate(**inputs, **options), lambda: model.generate(**inputs, **options), rounds
    )


def deciding(model: EditedModel) -> float:
    """Median milliseconds of a router decision without its encoder, one ordinary prompt at a time."""
    times = []
    for number in range(200):
        prompt = f"{OUT_OF_SCOPE[number % len(OUT_OF_SCOPE)]} {number}"
        timings = model.router.route([question_query(prompt)])[0].timings
        times.append(1000 * (timings.search + timings.classify))
    return statistics.median(times)


def run(*, rounds: int = 7) -> list[Row]:
    """Measure; a few minutes on two cores."""
    with tempfile.TemporaryDirectory() as folder:
        model = memedit.load("smollm2-135m-instruct", memory=Path(folder) / "facts.db")
        model.add_many(edits(EDITS))
        rows = []
        for size in (1, 16):
            prompts = (OUT_OF_SCOPE * 2)[:size]
            if any(model.decide(prompt).governed for prompt in prompts):
                raise RuntimeError("a prompt that should be out of scope is governed")
            times, seconds = generating(model, prompts, rounds)
            rows.append(Row(f"no edit in scope, batch {size}: time over the base model's", times, "x", 1.05))
            rows.append(Row(f"   base model, batch {size}, {NEW_TOKENS} tokens", seconds, "s"))
        rows.append(Row("router decision straight after the encoder, without it, median", deciding(model), "ms", 1.0))
        times, _ = generating(model, [GOVERNED.format(number) for number in range(8)], 3)
        rows.append(Row("all 8 rows governed: time over the base model's", times, "x"))
        times, _ = generating(model, [*OUT_OF_SCOPE[:4], *(GOVERNED.format(number) for number in range(4))], 3)
        rows.append(Row("4 of 8 rows governed: time over the base model's", times, "x"))
        model.close()
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="runs of each, in turn")
    arguments = parser.parse_args()
    Console().print(table(run(rounds=arguments.rounds), title=f"generation, {EDITS:,} edits in memory"))


if __name__ == "__main__":
    main()
