"""Routing and answering on CounterFact: every edit of the dev set in one memory, each probe alone.

    python -m benchmarks.counterfact --data ../shared/data

Retrieval: where the right edit stands among the candidates of its paraphrase. Firing, at the default threshold: rightly
(the paraphrase, by its own edit), falsely (a neighbourhood prompt by an edit about another subject or relation; an
ordinary question of Natural Questions by any). Answering: what the whole model generates freely for prompts with an
edit, and the base model beside it; an answer counts where it begins with the target.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import memedit
from classifiers import SentenceEncoder
from memedit import Decision, Edit, EditedModel, question_query
from memedit.known_models import DEFAULT_ENCODER, DEFAULT_MODEL

ORDINARY_QUESTIONS = 2_000
NEW_TOKENS = 12
BATCH = 16

Record = dict[str, Any]


def read(path: Path) -> list[Record]:
    """The records of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """The items, so many at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def routed(model: EditedModel, prompts: Sequence[str]) -> list[Decision]:
    """The router's decision for each prompt, with every candidate."""
    return [
        decision
        for some in batches(prompts, 256)
        for decision in model.router.route([question_query(prompt) for prompt in some], thorough=True)
    ]


def recall(decisions: Sequence[Decision], wanted: Sequence[str], k: int) -> float:
    """How often the wanted edit is among the ``k`` most similar candidates."""
    found = 0
    for decision, edit_id in zip(decisions, wanted, strict=True):
        nearest = sorted(decision.candidates, key=lambda candidate: -candidate.similarity)[:k]
        found += edit_id in {candidate.edit.id for candidate in nearest}
    return found / len(wanted)


def concerns(edit: Edit, prompt: str) -> bool:
    """Whether a prompt asks for the very subject and relation of an edit: a few neighbours are edits themselves."""
    return " ".join(edit.prompt.split()) == " ".join(prompt.split())


def begins_with(answer: str, target: str) -> bool:
    """Whether an answer begins with the target; case, quotes and an article aside."""

    def folded(text: str) -> str:
        return re.sub(r"^(?:the|a|an) ", "", re.sub(r"[^\w ]", "", text.casefold()).strip())

    return folded(answer).startswith(folded(target))


def answers(model: EditedModel, prompts: Sequence[str]) -> list[str]:
    """What the model generates, greedily, behind each raw prompt."""
    said: dict[int, str] = {}
    for some in batches(sorted(range(len(prompts)), key=lambda place: len(prompts[place])), BATCH):
        inputs = model.tokenizer([prompts[place] for place in some], return_tensors="pt", padding=True)
        out = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
        texts = model.tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        said.update(zip(some, texts, strict=True))
    return [said[place] for place in range(len(prompts))]


def run(data: Path, *, governed: int, seed: int = 0) -> list[tuple[str, str]]:
    """Measure everything; rows of a table."""
    records = read(data / "counterfact" / "dev.jsonl")
    model = memedit.load(DEFAULT_MODEL, encoder=SentenceEncoder(memedit.resolve(DEFAULT_ENCODER)))
    drafts = [Edit(prompt=r["prompt"], target=r["target_new"], subject=r["subject"]) for r in records]
    ids: list[str] = []
    model.memory.add_many(drafts, on_conflict="keep_both", on_chunk=lambda chunk: ids.extend(chunk.ids))

    paraphrases = routed(model, [record["rephrase_prompt"] for record in records])
    neighbours = routed(model, [record["locality_prompt"] for record in records])
    ordinary = routed(model, [r["question"] for r in read(data / "traffic" / "nq_dev.jsonl")[:ORDINARY_QUESTIONS]])

    rows = [("edits in memory", f"{model.memory.count():,}")]
    rows += [(f"paraphrase: recall@{k}", f"{recall(paraphrases, ids, k):.1%}") for k in (1, 5, 10)]
    right = [bool(d.edits) and d.edits[0].id == edit_id for d, edit_id in zip(paraphrases, ids, strict=True)]
    wrong = [bool(d.edits) and not fired for d, fired in zip(paraphrases, right, strict=True)]
    false = [
        d.governed and not concerns(d.edits[0], record["locality_prompt"])
        for d, record in zip(neighbours, records, strict=True)
    ]
    rows += [
        ("paraphrase: fires with the right edit", f"{sum(right) / len(right):.1%}"),
        ("paraphrase: fires with another edit", f"{sum(wrong) / len(wrong):.1%}"),
        ("neighbourhood prompt: fires", f"{sum(d.governed for d in neighbours) / len(neighbours):.1%}"),
        ("neighbourhood prompt: fires falsely", f"{sum(false) / len(false):.1%}"),
        ("ordinary question (NQ): fires", f"{sum(d.governed for d in ordinary) / len(ordinary):.2%}"),
    ]

    chosen = random.Random(seed).sample(range(len(records)), governed)
    for name, field in (("edit prompt", "prompt"), ("paraphrase", "rephrase_prompt")):
        prompts = [records[place][field] for place in chosen]
        with model.edits_disabled():
            base = answers(model, prompts)
        started = time.perf_counter()
        edited = answers(model, prompts)
        seconds = time.perf_counter() - started
        hits = {
            column: sum(
                begins_with(text, records[place]["target_new"]) for text, place in zip(said, chosen, strict=True)
            )
            / governed
            for column, said in (("base", base), ("memedit", edited))
        }
        decided = routed(model, prompts)
        fired = sum(bool(d.edits) and d.edits[0].id == ids[place] for d, place in zip(decided, chosen, strict=True))
        rows += [
            (f"{governed} of each, {name}: right edit fires", f"{fired / governed:.1%}"),
            (f"{governed} of each, {name}: base model begins with the target", f"{hits['base']:.1%}"),
            (f"{governed} of each, {name}: memedit begins with the target", f"{hits['memedit']:.1%}"),
            (f"{governed} of each, {name}: seconds a prompt", f"{seconds / governed:.2f}"),
        ]
    return rows


def table(rows: Sequence[tuple[str, str]]) -> Table:
    """The rows for a person."""
    shown = Table("measure", "figure", title="CounterFact dev, all edits in one memory, similarity baseline")
    for row in rows:
        shown.add_row(*row)
    return shown


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with counterfact/ and traffic/")
    parser.add_argument("--governed", type=int, default=200, help="prompts to answer")
    arguments = parser.parse_args()
    Console().print(table(run(arguments.data, governed=arguments.governed)))


if __name__ == "__main__":
    main()
