"""What computing each thing once saves ROME: the same edit, the naive way and as it is done.

    python -m benchmarks.editing --data ../shared/data

The naive way fits the value as a plain script does: every step runs the whole model on every token, one context after
the other. As it is done: `memedit.editors.target_values`. Both take the same steps of Adam from the same start, without
stopping early, in one run and turn by turn, so that the ratio means something on a noisy machine; processor time is
told beside the time on the clock.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.rows import Row, table
from memedit.editors.activations import activations
from memedit.editors.located import FactLocator, FactRow, LocatedFact
from memedit.editors.rome import RomeConfig, default_config
from memedit.editors.subject import Subject
from memedit.editors.target_values import target_values
from memedit.editors.weights import output_projection
from memedit.evaluation.datasets.registry import load_cases
from memedit.known_models import DEFAULT_MODEL
from memory_store import Edit


def naively(subject: Subject, fact: LocatedFact, config: RomeConfig, module: str) -> torch.Tensor:
    """The value of a fact, every context alone through the whole model at each step."""
    model = subject.model
    first = fact.rows[0]
    start = activations(model, [first.prompt], [first.place], [(module, True)])[(module, True)][0]
    vector = torch.zeros_like(start).requires_grad_(True)
    adam = torch.optim.Adam([vector], lr=config.learning_rate)
    before: torch.Tensor | None = None

    def said(row: FactRow) -> torch.Tensor:
        def add(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
            where = torch.zeros_like(output)
            where[0, row.place] = 1
            return output + where * vector

        hook = model.get_submodule(module).register_forward_hook(add)
        ids = torch.tensor([[*row.prompt, *row.target]], device=model.device)
        logits: torch.Tensor = model(ids, use_cache=False).logits[0, len(row.prompt) - 1 :].log_softmax(dim=1)
        hook.remove()
        return logits

    for _ in range(config.steps - 1):
        told = torch.stack([-said(row)[range(len(row.target)), list(row.target)].mean() for row in fact.rows])
        essence = said(fact.essence)[0]
        before = essence.detach() if before is None else before
        drift = (essence.exp() * (essence - before)).sum()
        loss = told.mean() + config.kl_factor * drift + config.weight_decay * vector.norm() / start.norm() ** 2
        (vector.grad,) = torch.autograd.grad(loss, [vector])
        adam.step()
        with torch.no_grad():
            vector.mul_((config.clamp * start.norm() / vector.norm().clamp(min=1e-30)).clamp(max=1.0))
    return start + vector.detach()


class Watch:
    """Adds up seconds on the clock, and of the processor, which tell more where others work beside."""

    def __init__(self) -> None:
        self.clock = self.processor = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.clock += time.perf_counter() - self._began[0]
        self.processor += time.process_time() - self._began[1]


def run(edits: Sequence[Edit], *, steps: int | None = None) -> list[Row]:
    """Rows of the table."""
    subject = Subject.load(DEFAULT_MODEL)
    config = replace(default_config(subject.model), stop_loss=0.0)
    config = config if steps is None else replace(config, steps=steps)
    module = output_projection(subject, config.layer).module
    locate = FactLocator(subject, config)
    naive, done, apart = Watch(), Watch(), 0.0
    for edit in edits:
        fact = locate(edit)
        with naive:
            slow = naively(subject, fact, config, module)
        with done:
            quick = target_values(subject.model, [fact], config, layer=config.layer, modules=[module])[0]
        apart = max(apart, float((slow - quick).norm() / slow.norm()))
    count = len(edits)
    return [
        Row("steps of Adam an edit", config.steps, ""),
        Row("naive, an edit", naive.clock / count, "s"),
        Row("as it is done, an edit", done.clock / count, "s"),
        Row("ratio", naive.clock / done.clock, "times"),
        Row("naive, an edit, of the processor", naive.processor / count, "s"),
        Row("as it is done, an edit, of the processor", done.processor / count, "s", target=10),
        Row("ratio of these", naive.processor / done.processor, "times"),
        Row("largest difference of the values", 100 * apart, "%"),
    ]


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments.add_argument("--records", type=int, default=3)
    arguments.add_argument("--steps", type=int, help="of Adam; by default as the method is configured")
    given = arguments.parse_args()
    cases = load_cases("counterfact:dev", data=given.data).cases[: given.records]
    rows = run([edit for case in cases for edit in case.edits], steps=given.steps)
    Console().print(table(rows, title=f"fitting ROME's value, edits: {given.records}"))


if __name__ == "__main__":
    main()
