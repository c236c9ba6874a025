"""What the counterfactual model answers when it is given the right edit, and end to end.

    python -m benchmarks.answers --data ../shared/data [--weights FOLDER] [--limit N] [--failures FILE] [--json FILE]
    python -m benchmarks.answers --data ../shared/data --end-to-end

Given the edit: every probe is asked with the edit of its case, whoever would have found it, and near misses are too, as
when the router is wrong. Beside the counterfactual model (``serac``) stand the same base model with the fact in context
(``ike``, and the bare fact, ``ice``) and without any (``base``). Answers are generated freely and read as
``memedit eval`` reads them. In scope ``start`` and ``anywhere`` are the shares of answers that begin with or hold the
target or an alias of it, and ``rouge-l`` is the mean over answers that are whole texts. Of near misses ``same 8`` is
the share whose first eight tokens are those of the unedited model's answer, ``same`` that of whole answers, ``spared``
that of answers that do not say the edit's target, or say it as the unedited model does.

End to end: all edits of CounterFact's dev split and 8,000 of its training split in one memory, each prompt from its
text alone, by router and answerer together. What ``memedit eval --methods serac --data counterfact:dev --edits 9919
--distractors counterfact:train`` reports is the same, with intervals; here weights that are not shipped can be tried.
Of neighbours there is a row more, for those of whom no edit in memory states the fact that they ask for.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.scope import DISTRACTORS, chosen_scope, spread
from benchmarks.stated_facts import StatedFacts
from memedit import resolve
from memedit.counterfactual import CounterfactualModel
from memedit.counterfactual_responder import CounterfactualResponder
from memedit.editors import ice_oracle, ike, serac
from memedit.editors.memory_editor import MemoryEditor, scoped_router
from memedit.editors.subject import Subject
from memedit.evaluation.answering import Answerer, Row
from memedit.evaluation.cases import EvalCase, Probe, coinciding_probes, folded
from memedit.evaluation.datasets.registry import load_cases
from memedit.evaluation.matching import match_answer
from memedit.evaluation.rendering import prompt_ids
from memedit.evaluation.scoring import read, rouge_l
from memedit.known_models import DEFAULT_ENCODER, DEFAULT_MODEL
from memory_store import Edit

SETS = ("counterfact:dev", "knowedit-counterfact:dev", "knowedit-zsre:dev", "halluedit:dev", "unke:dev")
ANSWERERS = ("base", "ice", "ike", "serac")
LIMIT = 100
SHORT_TOKENS, LONG_TOKENS = 24, 256
COMPARED_TOKENS = 8
COLUMNS = ("start", "anywhere", "rouge-l", "same 8", "same", "spared")


@dataclass(frozen=True, slots=True)
class Asked:
    """A probe, with the edit that is given."""

    set: str
    probe: Probe
    edit: Edit

    @property
    def kind(self) -> str:
        """Set and kind, with the number of facts that its answer chains."""
        return f"{self.set} {self.probe.kind}{f' {self.probe.hops}' if self.probe.hops else ''}"

    @property
    def is_long(self) -> bool:
        """Whether the answer is a whole text."""
        return self.probe.reference.form == "long"


def chosen(data: Path, sets: Sequence[str], limit: int | None) -> list[Asked]:
    """The probes, of each kind of a set at most so many and of those with long answers a quarter, evenly spread."""
    kinds: dict[str, list[Asked]] = {}
    for name in sets:
        for case in load_cases(name, data=data).cases:
            for probe in case.probes:
                asked = Asked(name, probe, case.edits[probe.of_edit or 0])
                if probe.reference.form != "replies":
                    kinds.setdefault(asked.kind, []).append(asked)
    return [one for some in kinds.values() for one in spread(some, _limit_of(some[0], limit))]


def _limit_of(asked: Asked, limit: int | None) -> int | None:
    return limit if limit is None or not asked.is_long else max(1, limit // 4)


def said(subject: Subject, editor: MemoryEditor | None, asked: Sequence[Asked], answerer: Answerer) -> list[str]:
    """What is answered to each probe, its edit given; without an editor, what the base model answers."""
    ids = [prompt_ids(subject, one.probe.prompt) for one in asked]
    if editor is None:
        rows = [Row(each) for each in ids]
    else:
        treated = editor.treat_told(ids, [one.edit for one in asked])
        rows = [Row(each, one.context, one.model) for each, one in zip(ids, treated, strict=True)]
    return answered(answerer, rows, [one.is_long for one in asked])


def answered(answerer: Answerer, rows: Sequence[Row], long: Sequence[bool]) -> list[str]:
    """The answers to rows, each with the room that its kind wants."""
    texts: dict[int, str] = {}
    for wanted, tokens in ((False, SHORT_TOKENS), (True, LONG_TOKENS)):
        places = [place for place, is_long in enumerate(long) if is_long == wanted]
        answers = answerer.answer([rows[place] for place in places], max_new_tokens=tokens)
        texts.update((place, answer.text) for place, answer in zip(places, answers, strict=True))
    return [texts[place] for place in range(len(rows))]


def scored(asked: Asked, answer: str, base: str, tokenizer: Any) -> dict[str, float]:
    """The figures of one answer; those that do not apply are left out."""
    if asked.probe.in_scope:
        match = read(answer, asked.probe.prompt, asked.probe.reference)
        found = {"start": float(match is not None and match.start)}
        found["anywhere"] = float(match is not None and match.anywhere)
        overlap = rouge_l(answer, asked.probe.reference)
        return found if overlap is None else {**found, "rouge-l": overlap}
    first, other = (tokenizer(text, add_special_tokens=False)["input_ids"][:COMPARED_TOKENS] for text in (answer, base))
    says, base_says = (match_answer(text, [asked.edit.target]).anywhere for text in (answer, base))
    return {
        "same 8": float(first == other),
        "same": float(answer == base),
        "spared": float(not says or base_says),
    }


def mean_figures(kinds: Sequence[str], figures: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """The means by kind, with how many there are."""
    by_kind: dict[str, list[Mapping[str, float]]] = {}
    for kind, figure in zip(kinds, figures, strict=True):
        by_kind.setdefault(kind, []).append(figure)
    return {
        kind: {"probes": len(some), **{name: fmean(one[name] for one in some) for name in some[0]}}
        for kind, some in by_kind.items()
    }


def failures(name: str, asked: Sequence[Asked], texts: Sequence[str], base: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What went wrong, a record each: in scope the target is not said, of near misses it is, or the text differs."""
    for one, text, before in zip(asked, texts, base, strict=True):
        match = read(text, one.probe.prompt, one.probe.reference) if one.probe.in_scope else None
        if text == before if match is None else match.start:
            continue
        yield {
            "answerer": name,
            "kind": one.kind,
            "edit": f"{one.edit.prompt} => {one.edit.target}",
            "asked": one.probe.prompt.text,
            "wanted": list(one.probe.reference.answers) if one.probe.in_scope else before,
            "said": text,
        }


def given(
    subject: Subject, editors: Mapping[str, MemoryEditor], asked: Sequence[Asked], answerer: Answerer, console: Console
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The figures of every answerer by kind, and the failing records."""
    every: dict[str, Any] = {}
    wrong: list[dict[str, Any]] = []
    base: list[str] = []
    for name, editor in {"base": None, **editors}.items():
        started = time.perf_counter()
        texts = said(subject, editor, asked, answerer)
        base = base or texts
        console.print(f"{name}: {len(asked):,} answers in {time.perf_counter() - started:.0f} s", highlight=False)
        figures = [
            scored(one, text, before, subject.tokenizer) for one, text, before in zip(asked, texts, base, strict=True)
        ]
        every[name] = mean_figures([one.kind for one in asked], figures)
        wrong += failures(name, asked, texts, base)
    return every, wrong


def end_to_end(
    subject: Subject, editor: MemoryEditor, data: Path, answerer: Answerer, *, limit: int | None, distractors: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Router and answerer over one memory: the figures by kind, and the failing records.

    Of cases whose edits contradict each other only the first is in memory, and asked.
    """
    cases = load_cases("counterfact:dev", data=data).cases
    edits: dict[str, Edit] = {}
    for case in (*cases, *load_cases("counterfact:train", data=data, limit=distractors).cases):
        for edit in case.edits:
            edits.setdefault(folded(edit.prompt), edit)
    editor.edit(list(edits.values()))
    asked = _end_to_end_probes([case for case in cases if edits[folded(case.edits[0].prompt)] == case.edits[0]], limit)
    ids = [prompt_ids(subject, one.probe.prompt) for one in asked]
    treated = [one for begin in range(0, len(ids), 256) for one in editor.treat(ids[begin : begin + 256])]
    # what no edit governs is the base model's answer by construction, and need not be generated
    places = [
        place
        for place, (one, treatment) in enumerate(zip(asked, treated, strict=True))
        if one.probe.in_scope or treatment.context is not None
    ]
    rows = [Row(ids[place], treated[place].context, treated[place].model) for place in places]
    some = [asked[place] for place in places]
    texts = answered(answerer, rows, [False] * len(rows))
    base = said(subject, None, some, answerer)
    figures: list[Mapping[str, float]] = [{"same 8": 1.0, "same": 1.0, "spared": 1.0}] * len(asked)
    for place, one, text, before in zip(places, some, texts, base, strict=True):
        figures[place] = scored(one, text, before, subject.tokenizer)
    facts = StatedFacts(editor.memory)
    ids_of = {edit.prompt: edit.id for edit in editor.memory.iterate()}
    kinds = [one.kind for one in asked]
    for one, figure in zip(asked, list(figures), strict=True):
        if one.probe.kind != "same_relation":
            continue
        if facts.stating(one.probe.prompt.text, ids_of[one.edit.prompt]) == frozenset():
            kinds.append(f"{one.kind}, stated by no edit")
            figures.append(figure)
    return {"edits": len(edits), "serac": mean_figures(kinds, figures)}, list(failures("serac", some, texts, base))


def _end_to_end_probes(cases: Sequence[EvalCase], limit: int | None) -> list[Asked]:
    """Edit prompts, paraphrases and near misses, without near misses that ask for an edit of another case."""
    answered_by_edits = coinciding_probes(cases)
    kinds: dict[str, list[Asked]] = {}
    for case in cases:
        for place, probe in enumerate(case.probes):
            if place not in answered_by_edits.get(case.id, ()):
                asked = Asked("end to end", probe, case.edits[probe.of_edit or 0])
                kinds.setdefault(asked.kind, []).append(asked)
    return [one for some in kinds.values() for one in spread(some, limit)]


def table_of(every: Mapping[str, Mapping[str, Mapping[str, float]]], title: str) -> Table:
    """The figures for a person, percent."""
    shown = Table("probe", "answerer", "probes", *COLUMNS, title=title)
    for kind in dict.fromkeys(kind for figures in every.values() for kind in figures):
        for name, figures in every.items():
            found = figures[kind]
            cells = [f"{100 * found[one]:.1f}" if one in found else "" for one in COLUMNS]
            shown.add_row(kind, name, f"{found['probes']:.0f}", *cells)
    return shown


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="a folder of the counterfactual model; else the shipped one")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="the base model")
    parser.add_argument("--answerers", default=",".join(ANSWERERS), help="of base, ice, ike, serac")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--limit", type=int, default=LIMIT, help="most probes of a kind; 0 for all")
    parser.add_argument("--end-to-end", action="store_true")
    parser.add_argument("--distractors", type=int, default=DISTRACTORS, help="end to end: edits of the training split")
    parser.add_argument("--refuse-from", type=float, help="from when on serac leaves a query to the base model")
    parser.add_argument("--scope", default="shipped", help="end to end: shipped, similarity, or a folder")
    parser.add_argument("--dtype", default="auto", help="the models' precision")
    parser.add_argument("--failures", type=Path, help="where failing records are written")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    arguments = parser.parse_args()
    console = Console(width=140)
    limit = arguments.limit or None
    subject = Subject.load(arguments.model, encoder=DEFAULT_ENCODER, dtype=arguments.dtype)
    answerer = Answerer(subject, batch_tokens=8_192)
    editors: dict[str, MemoryEditor] = {}
    for name in arguments.answerers.split(","):
        if name == "serac":
            model = CounterfactualModel.load(arguments.weights, dtype=arguments.dtype)
            responder = CounterfactualResponder(
                model, subject.model, subject.tokenizer, refuse_from=arguments.refuse_from
            )
            router = scoped_router(chosen_scope(arguments.scope, Path(resolve(DEFAULT_ENCODER))))
            editors[name] = MemoryEditor(serac.INFO, subject, responder, router=router)
        elif name != "base":
            editors[name] = {"ice": ice_oracle, "ike": ike}[name].create(subject)
    if arguments.end_to_end:
        every, wrong = end_to_end(
            subject, editors["serac"], arguments.data, answerer, limit=limit, distractors=arguments.distractors
        )
        console.print(table_of({"serac": every["serac"]}, f"End to end, {every['edits']:,} edits in one memory"))
    else:
        asked = chosen(arguments.data, arguments.sets.split(","), limit)
        every, wrong = given(subject, editors, asked, answerer, console)
        console.print(table_of(every, "Given the edit"))
    if arguments.failures:
        arguments.failures.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in wrong))
    if arguments.json:
        arguments.json.write_text(json.dumps(every, indent=1))


if __name__ == "__main__":
    main()
