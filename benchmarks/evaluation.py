"""What the evaluation's batching and sharing save: the same records and method, one prompt at a time and as it is done.

    python -m benchmarks.evaluation --data ../shared/data

One at a time: each probe is generated alone by the edited model and again by the unedited one, as the field's scripts
do it, with the key-value cache of ``transformers`` and without. As it is done: `memedit.evaluation.runner`, whose time
includes planning, scoring and the report. Both in one run, so that the ratio means something on a noisy machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from memedit.editors.registry import create_editor
from memedit.editors.subject import Subject
from memedit.evaluation.answering import Answerer, Row
from memedit.evaluation.cases import EvalCase
from memedit.evaluation.datasets.registry import Dataset, load_cases
from memedit.evaluation.plan import chosen_cases
from memedit.evaluation.rendering import prompt_ids
from memedit.evaluation.runner import evaluate
from memedit.known_models import DEFAULT_MODEL

METHOD = "ike"


def one_at_a_time(subject: Subject, cases: Sequence[EvalCase], *, cache: bool) -> float:
    """Seconds to answer every probe alone, edited and unedited."""
    editor = create_editor(METHOD, subject)
    editor.edit([edit for case in cases for edit in case.edits])
    subject.model.generation_config.use_cache = cache
    started = time.perf_counter()
    for case in cases:
        for probe in case.probes:
            ids = prompt_ids(subject, probe.prompt)
            (treatment,) = editor.treat([ids])
            alone = Answerer(subject)
            alone.answer([Row(ids)])
            alone.answer([Row(ids, treatment.context)])
    seconds = time.perf_counter() - started
    subject.model.generation_config.use_cache = True
    editor.undo()
    return seconds


def as_it_is_done(subject: Subject, dataset: Dataset) -> float:
    """Seconds of a whole evaluation of the same probes."""
    started = time.perf_counter()
    evaluate(subject, methods=METHOD, cases=dataset, edits=len(dataset.cases), kl=False)
    return time.perf_counter() - started


def run(data: Path, *, records: int, uncached: int) -> list[tuple[str, Any, Any]]:
    """Rows of the table: what, seconds a record, ratio."""
    subject = Subject.load(DEFAULT_MODEL)
    whole = load_cases("counterfact:dev", data=data)
    cases = chosen_cases(whole.cases, records)
    dataset = Dataset(name="counterfact:dev", cases=tuple(cases), files=whole.files)
    Answerer(subject).answer([Row(prompt_ids(subject, cases[0].probes[0].prompt))])
    batched = as_it_is_done(subject, dataset) / records
    alone = one_at_a_time(subject, cases, cache=True) / records
    rows: list[tuple[str, Any, Any]] = [
        ("as it is done", f"{batched:.2f}", ""),
        ("one prompt at a time", f"{alone:.2f}", f"{alone / batched:.1f}x"),
    ]
    if uncached:
        slow = one_at_a_time(subject, cases[:uncached], cache=False) / uncached
        rows.append(
            (f"one at a time, no key-value cache ({uncached} records)", f"{slow:.2f}", f"{slow / batched:.1f}x")
        )
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with counterfact/")
    parser.add_argument("--records", type=int, default=50)
    parser.add_argument("--uncached", type=int, default=10, help="records for the row without a key-value cache")
    arguments = parser.parse_args()
    table = Table("CounterFact dev, free generation", "seconds a record", "ratio", title=f"{METHOD} on {DEFAULT_MODEL}")
    for row in run(arguments.data, records=arguments.records, uncached=arguments.uncached):
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
