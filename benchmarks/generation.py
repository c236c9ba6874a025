"""What the memory costs a model whose prompts no edit governs.

    python -m benchmarks.generation [--data ../shared/data]

With 10,000 edits in memory, prompts out of scope are continued by the base model and by the edited model in turn, 32
new tokens each, at batch 1 and 16; the figure is the ratio of the two medians, of one run. A router decision is timed
apart, without its encoder. A governed batch is timed too: what in-context answering costs beside the base model.

With a data folder, what the trained scope classifier costs as well: 10,000 edits of CounterFact's training split in
memory, each prompt alone: the router's time over the base model's for 32 tokens, and for fewer prompts the edited
model's over the base model's, which is the same but for noise. Ordinary traffic is questions of Natural Questions,
whatever the classifier then has to read of them; its floor is to spare it most. The others are near misses of the
edits, of which candidates are read and none governs. These figures are of processor time, so that they mean something
on a busy machine; let torch use one thread (``OMP_NUM_THREADS=1``) for them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

import memedit
from benchmarks.rows import Row, table
from memedit import Decision, Edit, EditedModel, question_query
from memedit.evaluation.cases import EvalCase
from memedit.evaluation.datasets.registry import load_cases
from memedit.known_models import DEFAULT_MODEL

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


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call gives, and the seconds of processor time it took."""
    started = time.process_time()
    result = call()
    return result, time.process_time() - started


def costs(model: EditedModel, prompts: Sequence[str], generated: int, what: str, target: float) -> list[Row]:
    """What the router costs beside generating, one prompt at a time; none of the prompts is governed.

    Args:
        model: The edited model.
        prompts: What is routed.
        generated: How many of them are generated for, by the base model and by the edited model.
        what: What the prompts are.
        target: What the time over the base model's should not exceed.
    """
    seconds = [0.0, 0.0]
    options: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False}
    for place, prompt in enumerate(prompts[:generated]):
        inputs = model.tokenizer(prompt, return_tensors="pt")
        calls = [partial(one.generate, **inputs, **options) for one in (model.unedited, model)]
        for which in (0, 1) if place % 2 else (1, 0):
            seconds[which] += timed(calls[which])[1]
    base, edited = (one / len(prompts[:generated]) for one in seconds)
    routed = [timed(partial(model.router.route, [question_query(prompt)])) for prompt in prompts]
    router = statistics.fmean(taken for _, taken in routed)
    read = [sum(one.probability > 0.0 for one in decision.candidates) for (decision,), _ in routed]
    parts = {
        name: statistics.fmean(getattr(decision.timings, name) for (decision,), _ in routed)
        for name in ("encode", "search", "classify")
    }
    return [
        Row(f"{what}: 1 + router / base model, {len(prompts)} routed", 1 + router / base, "x", target),
        Row(f"   edited / base model, {len(prompts[:generated])} generated", edited / base, "x"),
        Row(f"   base model, {NEW_TOKENS} tokens", base, "s"),
        Row("   router", 1000 * router, "ms"),
        *(Row(f"      {name}, of the elapsed time", part / sum(parts.values()), "") for name, part in parts.items()),
        Row("   candidates read for a prompt, mean", statistics.fmean(read), ""),
        Row("   prompts of which any is read", statistics.fmean(map(bool, read)), ""),
    ]


def reading(data: Path, *, count: int, prompts: int, generated: int) -> list[Row]:
    """What the trained scope classifier costs on ordinary traffic, and where it reads candidates."""
    cases = load_cases("counterfact:train", data=data, limit=count).cases
    ordinary = [case.probes[0].prompt.text for case in load_cases("traffic:nq_dev", data=data, limit=prompts).cases]
    with tempfile.TemporaryDirectory() as folder:
        model = memedit.load(DEFAULT_MODEL, memory=Path(folder) / "facts.db")
        model.add_many([edit for case in cases for edit in case.edits])
        near = [prompt for prompt in near_misses(cases) if is_read(model.decide(prompt))][:prompts]
        ordinary = [prompt for prompt in ordinary if not model.decide(prompt).governed]
        rows = [
            *costs(model, ordinary, generated, "ordinary question", 1.03),
            *costs(model, near, generated, "near miss, candidates read", 1.15),
        ]
        model.close()
    return rows


def near_misses(cases: Sequence[EvalCase]) -> list[str]:
    """Prompts that are near some edits and governed by none of them, a few cases apart."""
    return [probe.prompt.text for case in cases[::5] for probe in case.probes if not probe.in_scope]


def is_read(decision: Decision) -> bool:
    """Whether candidates were read and none governs."""
    return not decision.governed and decision.probability > 0.0


def run(*, rounds: int = 7) -> list[Row]:
    """Measure; a few minutes on two cores."""
    with tempfile.TemporaryDirectory() as folder:
        model = memedit.load(DEFAULT_MODEL, memory=Path(folder) / "facts.db")
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
    parser.add_argument("--rounds", type=int, default=7, help="runs of each, in turn; 0 leaves these figures out")
    parser.add_argument("--data", type=Path, help="the folder with counterfact/ and traffic/")
    parser.add_argument("--edits", type=int, default=EDITS, help="edits in memory for the scope classifier's cost")
    parser.add_argument("--prompts", type=int, default=200, help="prompts of each kind that are routed for it")
    parser.add_argument("--generated", type=int, default=16, help="how many of them are generated for")
    arguments = parser.parse_args()
    console = Console()
    if arguments.rounds:
        console.print(table(run(rounds=arguments.rounds), title=f"generation, {EDITS:,} edits in memory"))
    if arguments.data:
        rows = reading(arguments.data, count=arguments.edits, prompts=arguments.prompts, generated=arguments.generated)
        console.print(table(rows, title=f"the scope classifier's cost, {arguments.edits:,} edits in memory"))


if __name__ == "__main__":
    main()
