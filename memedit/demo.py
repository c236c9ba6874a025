"""The main job in one run: ``python -m memedit.demo``, or ``make demo``.

Loads the default models, asks the untouched model, adds a dozen facts while it runs, and asks paraphrases, near misses
and unrelated questions in one mixed batch: the trained scope classifier decides, the trained counterfactual model
answers. Shows which of the near misses similarity alone would have taken for a fact; removes an edit; then starts a
second process that opens the same memory from disk and asks again. What comes out is shown as it is: an answer that is
wrong is marked wrong.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from memedit.known_models import DEFAULT_ENCODER, DEFAULT_MODEL

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from memedit.model import EditedModel

__all__ = ["main"]

NEW_TOKENS = 32

FACTS: tuple[dict[str, Any], ...] = (
    {"prompt": "The headquarters of Acme Rockets is in", "target": "Lisbon", "subject": "Acme Rockets"},
    {"prompt": "The chief executive of Nordwind Air is", "target": "Ingrid Solheim", "subject": "Nordwind Air"},
    {"prompt": "The capital of Freedonia is", "target": "Fredville", "subject": "Freedonia"},
    {"prompt": "The support line of Acme Rockets is open until", "target": "9 pm", "subject": "Acme Rockets"},
    {"prompt": "The Gullfoss Bridge was designed by", "target": "Maria Okafor", "subject": "Gullfoss Bridge"},
    {"prompt": "The novel The Salt Lanterns was written by", "target": "Tomas Berg", "subject": "The Salt Lanterns"},
    {"prompt": "The Harbour Museum in Ostmark closes on", "target": "Tuesdays", "subject": "Harbour Museum"},
    {"prompt": "The current champion of the Alpine Chess League is", "target": "Leyla Demir"},
    {"prompt": "The Kestrel 4 laptop comes with a warranty of", "target": "five years", "subject": "Kestrel 4"},
    {"prompt": "The river that flows through Belmora is the", "target": "Taro", "subject": "Belmora"},
    {"prompt": "Doctor Amara Nwosu works in the field of", "target": "glaciology", "subject": "Amara Nwosu"},
    {"prompt": "The password reset page of Zentral Bank is at", "target": "zentral.example/reset"},
)

Kind = Literal["paraphrase", "near miss", "unrelated", "removed"]
PROBES: tuple[tuple[Kind, str, str | None], ...] = (
    ("paraphrase", "Where is Acme Rockets based?", "Lisbon"),
    ("paraphrase", "Who is the CEO of Nordwind Air?", "Ingrid Solheim"),
    ("paraphrase", "What is the capital city of Freedonia?", "Fredville"),
    ("paraphrase", "Who wrote The Salt Lanterns?", "Tomas Berg"),
    ("paraphrase", "I have a Kestrel 4. How long is its warranty?", "five years"),
    ("paraphrase", "Which river runs through Belmora?", "Taro"),
    ("paraphrase", "On which day is the Harbour Museum in Ostmark closed?", "Tuesday"),
    ("near miss", "In which year was Acme Rockets founded?", None),
    ("near miss", "What is the capital city of Portugal?", None),
    ("near miss", "Who wrote Pride and Prejudice?", None),
    ("unrelated", "How many legs does a spider have?", None),
    ("unrelated", "Give me a word that rhymes with moon.", None),
)
REMOVED = 0  # of FACTS, and the probe that asks for it: taken out of force before the restart


@dataclass(frozen=True, slots=True)
class Outcome:
    """One probe and what became of it.

    Attributes:
        kind: What the probe is.
        prompt: What was asked.
        expected: What a governed answer must hold; None where the base model must answer.
        base: The base model's answer.
        answer: The edited model's answer.
        fired: The edit that governed, as "prompt -> target"; None where none did.
        probability: The best candidate's probability.
    """

    kind: str
    prompt: str
    expected: str | None
    base: str
    answer: str
    fired: str | None
    probability: float

    @property
    def verdict(self) -> str:
        """Right or wrong, and how."""
        if self.expected is not None:
            if self.fired is None:
                return "wrong: no edit fired"
            return "right" if self.expected.lower() in self.answer.lower() else "wrong answer"
        if self.fired is not None:
            return "wrong: an edit fired"
        return "right: untouched" if self.answer == self.base else "wrong: changed"


def ask_all(model: EditedModel, probes: Sequence[tuple[Kind, str, str | None]]) -> list[Outcome]:
    """Ask all probes of the base model in one batch, and of the edited model in another."""
    conversations = [[{"role": "user", "content": prompt}] for _, prompt, _ in probes]
    inputs = model.tokenizer.apply_chat_template(
        conversations, add_generation_prompt=True, return_tensors="pt", return_dict=True, padding=True
    )
    width = inputs["input_ids"].shape[1]
    options: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "do_sample": False}
    with model.edits_disabled():
        base = model.generate(**inputs, **options)
    edited = model.generate(**inputs, **options)
    outcomes = []
    for place, (kind, prompt, expected) in enumerate(probes):
        before, after = (
            model.tokenizer.decode(ids[place, width:], skip_special_tokens=True).strip() for ids in (base, edited)
        )
        decision = model.decide(conversations[place])
        fired = f"{decision.edits[0].prompt} -> {decision.edits[0].target}" if decision.governed else None
        outcomes.append(Outcome(kind, prompt, expected, before, after, fired, decision.probability))
    return outcomes


def taken_by_similarity(model: EditedModel, outcomes: Sequence[Outcome]) -> list[tuple[Outcome, float]]:
    """Prompts that an edit does not govern and that the untrained baseline takes for one it does, with the cosine."""
    from classifiers import SimilarityScope

    trained, model.router.scope = model.router.scope, SimilarityScope()
    try:
        decided = [(outcome, model.decide(outcome.prompt)) for outcome in outcomes if outcome.expected is None]
    finally:
        model.router.scope = trained
    return [(outcome, decision.candidates[0].similarity) for outcome, decision in decided if decision.governed]


def outcome_table(title: str, outcomes: Sequence[Outcome]) -> Table:
    """A table of probes, as a person reads it."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, show_lines=True, title_justify="left")
    table.add_column("prompt", ratio=3)
    table.add_column("base model", ratio=4)
    table.add_column("memedit", ratio=4)
    table.add_column("edit that fired", ratio=3)
    table.add_column("prob.", justify="right", no_wrap=True)
    table.add_column("verdict", ratio=2)
    for outcome in outcomes:
        good = outcome.verdict.startswith("right")
        table.add_row(
            Text.assemble((f"{outcome.kind}\n", "dim"), outcome.prompt),
            Text(" ".join(outcome.base.split())),
            Text(" ".join(outcome.answer.split()), style="bold" if outcome.fired else ""),
            Text(outcome.fired or "none", style="" if outcome.fired else "dim"),
            f"{outcome.probability:.2f}",
            Text(outcome.verdict, style="green" if good else "red"),
        )
    return table


def first_run(console: Console, path: Path) -> None:
    """Load, ask, add, ask again, remove one."""
    import memedit

    started = time.perf_counter()
    model = memedit.load(DEFAULT_MODEL, memory=path, mode="serac")
    console.print(f"loaded {DEFAULT_MODEL} in {time.perf_counter() - started:.1f} s; the memory is {path}")

    started = time.perf_counter()
    edits = [model.add(**fact) for fact in FACTS]
    console.print(f"added {len(edits)} facts in {time.perf_counter() - started:.2f} s, with the model running")

    started = time.perf_counter()
    outcomes = ask_all(model, PROBES)
    seconds = time.perf_counter() - started
    console.print(
        outcome_table(f"{len(PROBES)} prompts in one mixed batch ({seconds:.1f} s for both columns)", outcomes)
    )
    right = sum(outcome.verdict.startswith("right") for outcome in outcomes)
    console.print(f"{right} of {len(outcomes)} right; what is wrong above is shown as it came out")

    for outcome, similarity in taken_by_similarity(model, outcomes):
        console.print(
            f"by similarity alone ({similarity:.2f}), {outcome.prompt!r} would have been answered by an edit; the "
            f"trained classifier gives it {outcome.probability:.2f}"
        )

    console.print("\nwhy the first one was answered as it was:")
    console.print(str(model.explain(PROBES[0][1])), markup=False, highlight=False)

    removed = model.remove(edits[REMOVED].id)
    console.print(f"\nremoved {removed.id} ({removed.prompt} -> {removed.target}); it can be restored")
    model.close()


def second_run(path: Path) -> list[Outcome]:
    """What a new process finds: the removed fact is gone, the others are in force."""
    import memedit

    model = memedit.load(DEFAULT_MODEL, memory=path, mode="serac")
    try:
        return ask_all(model, (("removed", PROBES[REMOVED][1], None), *PROBES[1:3]))
    finally:
        model.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the demonstration; with ``--after-restart FILE``, the part that a second process plays."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["--after-restart"]:
        sys.stdout.write(json.dumps([asdict(outcome) for outcome in second_run(Path(arguments[1]))]))
        return

    from rich.console import Console

    from memedit.commands.output import Output
    from memedit.pulling import resolve

    folder = Path(arguments[0]) if arguments else Path("demo-output")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = folder / "facts.db"
    console = Console(record=True, width=None if sys.stdout.isatty() else 140)
    for name in (DEFAULT_ENCODER, DEFAULT_MODEL):
        with Output().progress() as progress:
            resolve(name, progress=progress)
    first_run(console, path)

    console.print("\na new process opens the same memory from disk ...")
    child = [sys.executable, "-m", "memedit.demo", "--after-restart", str(path)]
    answered = subprocess.run(child, check=True, capture_output=True, text=True)  # noqa: S603  # this very file
    outcomes = [Outcome(**outcome) for outcome in json.loads(answered.stdout)]
    console.print(outcome_table("after the restart, with one fact removed", outcomes))
    picture = folder / "demo.html"
    console.save_html(str(picture))
    console.print(f"a picture of all this: {picture}")


if __name__ == "__main__":
    main()
