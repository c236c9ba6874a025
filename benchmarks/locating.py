"""How fast a fact is traced, beside one forward pass for each restoration.

    python -m benchmarks.locating

One fact of 12 tokens, three kinds (hidden states; MLP and attention outputs in windows of 10 layers), 10 noise samples,
on SmolLM2 with its 30 layers: every token of the subject and behind it. The slow ways are an ordinary forward pass with
hooks, for one restoration of one sample, and, as in the paper's code, for one restoration of all samples at once; some
of their restorations are timed, spread over the grid, and the time of all worked out from these. ``--samples`` makes
the run shorter. Seconds are the processor's, of all threads, so that what else the machine does hardly counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from rich.console import Console

import memedit
from benchmarks.rows import Row, table
from memedit.architectures import architecture_of
from memedit.known_models import DEFAULT_MODEL
from memedit.locate.noise import draw
from memedit.locate.recording import Recording, first_of, hooked, record, with_first
from memedit.locate.records import Fact, FactTrace
from memedit.locate.restoring import Restoration, restorations
from memedit.locate.tracing import TraceConfig, Tracer
from memedit.pretrained import load_model
from memedit.subject_tokens import subject_tokens

FACT = Fact(
    prompt="The Space Needle is a tower that stands in the city of", subject="The Space Needle", answer="Seattle"
)
TIMED = 24
"""Restorations that are timed of each slow way."""


def one_pass(
    model: Any, ids: Sequence[int], noise: torch.Tensor, start: int, token: int, one: Restoration, clean: Recording
) -> None:
    """An ordinary forward pass, the subject corrupted and one thing put back."""
    architecture = architecture_of(model)

    def corrupt(_: Any, __: Any, embedded: torch.Tensor) -> torch.Tensor:
        embedded = embedded.clone()
        embedded[:, start : start + noise.shape[1]] += noise
        return embedded

    def put_back(value: torch.Tensor) -> Callable[..., Any]:
        def hook(_: Any, __: Any, output: Any) -> Any:
            state = first_of(output).clone()
            state[:, token] = value
            return with_first(output, state)

        return hook

    with ExitStack() as hooks, torch.no_grad():
        embeddings = model.get_submodule(architecture.embeddings)
        hooks.enter_context(hooked(embeddings.register_forward_hook(corrupt)))
        for layer in range(one.first, one.last + 1):
            if one.kind == "hidden":
                path, recorded = architecture.module_name(layer), clean.outputs[layer]
            elif one.kind == "mlp":
                path, recorded = architecture.module_name(layer, "mlp"), clean.mlp[layer]
            else:
                path, recorded = architecture.module_name(layer, "attention"), clean.attention[layer]
            module = model.get_submodule(path)
            hooks.enter_context(hooked(module.register_forward_hook(put_back(recorded[0, token]))))
        model(input_ids=torch.tensor([list(ids)] * len(noise)), use_cache=False)


def slow_seconds(model: Any, tokenizer: Any, config: TraceConfig, deviation: float, *, together: bool) -> float:
    """What every restoration in a pass of its own would take."""
    place = subject_tokens(tokenizer, FACT.prompt, FACT.subject)
    architecture = architecture_of(model)
    shape = (config.samples, place.end - place.start, model.config.hidden_size)
    noise = deviation * draw(FACT.prompt, seed=0, samples=shape[0], tokens=shape[1], width=shape[2]).float()
    clean = record(model, architecture, place.ids, noise=noise[:0], start=place.start)
    layers = architecture.layer_count(model)
    grid = [
        (token, one)
        for kind in config.kinds
        for one in restorations(kind, layers, window=config.window)
        for token in range(place.start, len(place.ids))
    ]
    timed = grid[:: max(1, len(grid) // TIMED)]
    one_pass(model, place.ids, noise if together else noise[:1], place.start, *timed[0], clean)
    started = time.process_time()
    for token, one in timed:
        one_pass(model, place.ids, noise if together else noise[:1], place.start, token, one, clean)
    seconds = (time.process_time() - started) / len(timed) * len(grid)
    return seconds if together else seconds * config.samples


def run(*, samples: int = 10) -> list[Row]:
    """Measure; several minutes on two cores."""
    model, tokenizer = load_model(memedit.resolve(DEFAULT_MODEL), dtype=torch.float32)
    config = TraceConfig(samples=samples)
    tracer = Tracer(model, tokenizer, config)
    place = subject_tokens(tokenizer, FACT.prompt, FACT.subject)
    single = slow_seconds(model, tokenizer, config, tracer.deviation, together=False)
    batched = slow_seconds(model, tokenizer, config, tracer.deviation, together=True)
    rows = [
        Row("tokens traced", len(place.ids) - place.start, "tokens"),
        Row("one restoration of one sample a pass", single, "s"),
        Row("one restoration of all samples a pass", batched, "s"),
    ]
    exact: FactTrace | None = None
    for precision in ("float32", "bfloat16"):
        tracer.config = replace(config, precision=precision)
        started = time.process_time()
        trace = tracer.trace(FACT)
        seconds = time.process_time() - started
        rows += [
            Row(f"memedit, {precision}", seconds, "s"),
            Row("  times as fast as one of one sample", single / seconds, "times"),
            Row("  times as fast as one of all samples", batched / seconds, "times"),
        ]
        if exact is not None:
            rows.append(Row("  largest difference of an effect", _apart(exact, trace), ""))
        exact = trace
    return rows


def _apart(first: FactTrace, second: FactTrace) -> float:
    """The largest difference between two traces of a fact, over all effects."""
    pairs = [(effect.indirect, second.effect(effect.kind).indirect) for effect in first.effects]
    return max(
        abs(one - other)
        for grids in pairs
        for row, others in zip(*grids, strict=True)
        for one, other in zip(row, others, strict=True)
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10, help="noise samples (default: 10)")
    samples = parser.parse_args().samples
    Console().print(table(run(samples=samples), title=f"tracing one fact, {samples} noise samples"))


if __name__ == "__main__":
    main()
