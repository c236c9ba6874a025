"""The scope classifier on every development set: all edits of a set in one memory, each probe from its text alone.

    python -m benchmarks.scope --data ../shared/data [--scope FOLDER|shipped|similarity] [--failures failures.jsonl]
    python -m benchmarks.scope --data ../shared/data --most 80 --refusals

In scope "right" means that the right edit fired: the probe's own, one that puts the very same prompt, or, in
CounterFact, one about the same subject and relation in other words. Out of scope "own" means that the case's own edit
fired, "any" that some edit did and "elsewhere" that this edit's subject is not named in the probe: several edits may be
about one subject, and a question of one case may rightly be governed by another's edit. Of CounterFact's neighbours,
whose relation is known, "another fact" leaves out the edits that state the very fact asked for: about a subject that
the probe names, and of its relation. Of questions asked the other way round "same of another" are those for which
another edit fired that says the same of another thing, which answers them as well. CounterFact has 8,000 edits of its
training split beside its own; the ordinary questions are those that are not trained on, asked of that memory.
``--refusals`` has the counterfactual model read what was let through, and counts what it would refuse.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table

from benchmarks.stated_facts import StatedFacts
from classifiers import ScopeClassifier, SentenceEncoder, SimilarityScope, load_scope
from memedit import conversation_query, question_query, resolve
from memedit.counterfactual import CounterfactualModel, Request
from memedit.evaluation.cases import EvalCase, Probe, Turn, folded
from memedit.evaluation.datasets.registry import load_cases
from memedit.known_models import DEFAULT_ENCODER
from memedit.routing import Decision, Router
from memory_store import Edit, EditMemory
from training.facts import for_training

SETS = (
    "counterfact:dev",
    "knowedit-counterfact:dev",
    "knowedit-zsre:dev",
    "halluedit:dev",
    "unke:dev",
    "mquake:hard_dev",
)
TRAFFIC = ("traffic:nq_dev", "traffic:triviaqa_dev")
DISTRACTORS = 8_000
COLUMNS = (
    "right",
    "wrong edit",
    "same of another",
    "among candidates",
    "read",
    "own fires",
    "any fires",
    "elsewhere",
    "another fact",
)
T = TypeVar("T")
BATCH = 128


@dataclass(frozen=True, slots=True)
class Asked:
    """A probe and what became of it.

    Attributes:
        case: Its case.
        probe: The probe; None edits of the case govern it where it is out of scope.
        own: Ids in memory of the case's edits.
        rightful: Ids of the edits that may fire for it.
        decision: The router's.
        stating: Ids of the edits that state the fact asked for, of a probe out of scope; None where that is not known.
        answering: Ids of the edits that say of other things what the rightful ones say, of a question asked the other
            way round.
    """

    case: EvalCase
    probe: Probe
    own: frozenset[str]
    rightful: frozenset[str]
    decision: Decision
    stating: frozenset[str] | None = None
    answering: frozenset[str] = frozenset()

    @property
    def fired(self) -> str | None:
        """The id of the edit that fired."""
        return self.decision.edits[0].id if self.decision.governed else None

    @property
    def elsewhere(self) -> bool:
        """Whether the edit that fired is about something that the probe does not name."""
        subject = self.decision.edits[0].subject if self.decision.governed else None
        return subject is not None and folded(subject) not in folded(self.probe.prompt.text)


def routed(router: Router, cases: Sequence[EvalCase], ids: dict[str, str], *, limit: int | None) -> Iterator[Asked]:
    """Routes every probe of some cases.

    Args:
        router: The router.
        cases: The cases.
        ids: Folded prompt of each edit in memory to its id.
        limit: Most probes.
    """
    facts = StatedFacts(router.memory)
    waiting: list[tuple[EvalCase, Probe]] = [(case, probe) for case in cases for probe in case.probes]
    if limit is not None:
        waiting = waiting[:limit]
    for begin in range(0, len(waiting), BATCH):
        some = waiting[begin : begin + BATCH]
        queries = [
            conversation_query([*probe.prompt.turns, Turn("user", probe.prompt.text)])
            if probe.prompt.turns
            else question_query(probe.prompt.text)
            for _, probe in some
        ]
        for (case, probe), decision in zip(some, router.route(queries, thorough=True), strict=True):
            own = [ids[folded(edit.prompt)] for edit in case.edits]
            rightful = [own[probe.of_edit]] if probe.of_edit is not None else own if probe.in_scope else []
            exact = ids.get(folded(probe.prompt.text))
            asking = {*rightful, *([exact] if exact else [])}
            same = (facts.like(one) for one in asking)
            stating = None if probe.in_scope or not own else facts.stating(probe.prompt.text, own[0])
            all_rightful = frozenset(asking.union(*same))
            answering = facts.of_others(all_rightful) if probe.kind == "reversed" else frozenset()
            yield Asked(case, probe, frozenset(own), all_rightful, decision, stating, answering)


def filled(
    encoder: SentenceEncoder, cases: Sequence[EvalCase], others: Sequence[EvalCase]
) -> tuple[EditMemory, dict[str, str]]:
    """A memory of all edits, and the id of each by its prompt; what contradicts a case's edit is left out."""
    memory = EditMemory(":memory:", encoder=encoder)
    chosen: dict[str, Edit] = {}
    for case in (*cases, *others):
        for edit in case.edits:
            chosen.setdefault(folded(edit.prompt), edit)
    memory.add_many(list(chosen.values()))
    return memory, {folded(edit.prompt): edit.id for edit in memory.iterate()}


@dataclass(frozen=True, slots=True)
class FilledSet:
    """A development set in memory.

    Attributes:
        name: Its name; ``traffic`` for ordinary questions, asked of CounterFact's memory.
        memory: All its edits.
        ids: Folded prompt of each edit to its id.
        cases: What is asked.
    """

    name: str
    memory: EditMemory
    ids: dict[str, str]
    cases: tuple[EvalCase, ...]


def filled_sets(
    encoder: SentenceEncoder, data: Path, names: Sequence[str], *, most: int | None = None
) -> Iterator[FilledSet]:
    """One set after the other; the memory of one is closed before the next is filled.

    Args:
        encoder: The encoder of memories.
        data: The data folder.
        names: Sets, and ``traffic``.
        most: Most probes of a kind, evenly spread; None for all.
    """
    train = load_cases("counterfact:train", data=data, limit=DISTRACTORS).cases
    for name in names:
        own = "counterfact:dev" if name == "traffic" else name
        cases = load_cases(own, data=data).cases
        memory, ids = filled(encoder, cases, train if own == "counterfact:dev" else ())
        if name == "traffic":
            cases = tuple(
                case
                for source in TRAFFIC
                for case in load_cases(source, data=data).cases
                if not for_training(case.probes[0].prompt.text)
            )
        with memory:
            yield FilledSet(name, memory, ids, thinned(cases, most) if most else tuple(cases))


def measured(asked: Sequence[Asked]) -> dict[str, dict[str, float]]:
    """The figures of a set, by kind of probe."""
    kinds: dict[str, list[Asked]] = {}
    for one in asked:
        kinds.setdefault(f"{one.probe.kind}{f' {one.probe.hops}' if one.probe.hops else ''}", []).append(one)
    found: dict[str, dict[str, float]] = {}
    for kind, some in sorted(kinds.items()):
        number = len(some)
        figures: dict[str, float] = {"probes": number}
        if some[0].probe.in_scope:
            figures["right"] = sum(one.fired in one.rightful for one in some) / number
            figures["wrong edit"] = (
                sum(one.fired is not None and one.fired not in one.rightful for one in some) / number
            )
            if some[0].probe.kind == "reversed":
                figures["same of another"] = sum(one.fired in one.answering for one in some) / number
            figures["among candidates"] = (
                sum(any(each.edit.id in one.rightful for each in one.decision.candidates) for one in some) / number
            )
            figures["read"] = (
                sum(
                    any(each.edit.id in one.rightful and each.probability > 0.0 for each in one.decision.candidates)
                    for one in some
                )
                / number
            )
        else:
            wrong = [one for one in some if one.fired is not None and one.fired not in one.rightful]
            figures["own fires"] = sum(one.fired in one.own for one in wrong) / number
            figures["any fires"] = len(wrong) / number
            figures["elsewhere"] = sum(one.elsewhere for one in wrong) / number
            known = [(one.fired, one.stating) for one in some if one.stating is not None]
            if known and some[0].probe.kind == "same_relation":
                figures["another fact"] = sum(fired not in {None, *stating} for fired, stating in known) / len(known)
        found[kind] = figures
    return found


def probabilities(asked: Sequence[Asked]) -> Iterator[dict[str, Any]]:
    """The best probability of the right edits and of the others, a record a probe, to try other thresholds on."""
    for one in asked:
        right = [each.probability for each in one.decision.candidates if each.edit.id in one.rightful]
        others = [each.probability for each in one.decision.candidates if each.edit.id not in one.rightful]
        yield {
            "kind": one.probe.kind,
            "in_scope": one.probe.in_scope,
            "right": max(right, default=0.0),
            "other": max(others, default=0.0),
        }


def failures(asked: Sequence[Asked]) -> Iterator[dict[str, Any]]:
    """What went wrong, a record each."""
    for one in asked:
        wrong = one.fired not in one.rightful if one.probe.in_scope else one.fired not in {None, *one.rightful}
        if wrong:
            best = one.decision.candidates[:3]
            gold = [each for each in one.decision.candidates if each.edit.id in one.own]
            yield {
                "kind": one.probe.kind,
                "query": one.probe.prompt.text,
                "windows": list(one.decision.query.windows),
                "own": [f"{edit.prompt} => {edit.target}" for edit in one.case.edits],
                "gold": [[round(each.similarity, 3), round(each.probability, 3)] for each in gold],
                "best": [
                    [round(each.similarity, 3), round(each.probability, 3), f"{each.edit.prompt} => {each.edit.target}"]
                    for each in best
                ],
                "fired": one.fired is not None,
            }


def refused(asked: Sequence[Asked], model: CounterfactualModel) -> list[tuple[bool, float]]:
    """Of each probe that an edit fired for, whether rightly, and how probable the counterfactual model's refusal is."""
    fired = [one for one in asked if one.decision.governed]
    requests = [Request(edits=one.decision.edits, query=one.probe.prompt.text) for one in fired]
    found = model.refusals(requests)
    return [(one.fired in one.rightful, refusal) for one, refusal in zip(fired, found, strict=True)]


def spread(some: Sequence[T], limit: int | None) -> Sequence[T]:
    """At most so many, evenly spread."""
    if limit is None or limit >= len(some):
        return some
    return [some[place * len(some) // limit] for place in range(limit)]


def thinned(cases: Sequence[EvalCase], most: int) -> tuple[EvalCase, ...]:
    """The cases with at most so many probes of each kind, evenly spread."""
    kinds: dict[tuple[str, int | None], list[Probe]] = {}
    for case in cases:
        for probe in case.probes:
            kinds.setdefault((probe.kind, probe.hops), []).append(probe)
    kept = {id(probe) for probes in kinds.values() for probe in spread(probes, most)}
    return tuple(replace(case, probes=tuple(one for one in case.probes if id(one) in kept)) for case in cases)


def chosen_scope(name: str, folder: Path) -> ScopeClassifier:
    """The classifier of a name: ``similarity``, ``shipped``, or a folder."""
    if name == "similarity":
        return SimilarityScope()
    if name == "shipped":
        from classifiers.shipped import shipped_scope

        return shipped_scope(folder)
    return load_scope(name, encoder=folder)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scope", default="shipped")
    parser.add_argument("--sets", default=",".join((*SETS, "traffic")))
    parser.add_argument("--limit", type=int, help="most probes of a set")
    parser.add_argument("--most", type=int, help="most probes of a kind")
    parser.add_argument("--refusals", action="store_true", help="what the counterfactual model would refuse")
    parser.add_argument("--failures", type=Path, help="where failing records are written")
    parser.add_argument("--probabilities", type=Path, help="where each probe's probabilities are written")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    arguments = parser.parse_args()
    folder = Path(resolve(DEFAULT_ENCODER))
    encoder = SentenceEncoder(folder)
    scope = chosen_scope(arguments.scope, folder)
    console = Console(width=140)
    table = Table("set", "probe", "probes", *COLUMNS)
    every: dict[str, Any] = {}
    wrong: list[dict[str, Any]] = []
    every_probe: list[dict[str, Any]] = []
    refusals: list[tuple[bool, float]] = []
    answering = CounterfactualModel.load(dtype="bfloat16") if arguments.refusals else None
    started = time.perf_counter()
    for one in filled_sets(encoder, arguments.data, arguments.sets.split(","), most=arguments.most):
        asked = list(routed(Router(one.memory, encoder, scope), one.cases, one.ids, limit=arguments.limit))
        refusals += refused(asked, answering) if answering is not None else []
        figures = measured(asked)
        every[one.name] = {"edits": len(one.ids), "seconds": time.perf_counter() - started, "kinds": figures}
        started = time.perf_counter()
        wrong += [{"set": one.name, **record} for record in failures(asked)]
        every_probe += [{"set": one.name, **record} for record in probabilities(asked)]
        for kind, found in figures.items():
            cells = [f"{100 * found[column]:.1f}" if column in found else "" for column in COLUMNS]
            table.add_row(f"{one.name} ({len(one.ids):,} edits)", kind, f"{found['probes']:.0f}", *cells)
    console.print(table)
    for least in (0.5, 0.9) if arguments.refusals else ():
        counts = [(rightly, refusal >= least) for rightly, refusal in refusals]
        console.print(
            f"refused from {least} on: {counts.count((True, True))} of {sum(one for one, _ in counts)} fired rightly, "
            f"{counts.count((False, True))} of {sum(not one for one, _ in counts)} fired wrongly",
            highlight=False,
        )
    for path, records in ((arguments.failures, wrong), (arguments.probabilities, every_probe)):
        if path is not None:
            path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    if arguments.json:
        arguments.json.write_text(json.dumps(every, indent=1))


if __name__ == "__main__":
    main()
