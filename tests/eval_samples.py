"""A made-up run of the evaluation, as large as a test wants it: a report, what came of each case, and the cases.

The numbers are invented but behave like real ones: methods differ, routing gets worse as the memory grows, intervals
have the width that the number of cases gives. The same arguments give the same run.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from memedit.editors.editor import MethodInfo
from memedit.evaluation.cases import EvalCase, Probe, ProbeKind, ProbePrompt, Reference
from memedit.evaluation.figures import CalibrationBin, CellSummary, EvalReport, Figure, Measure, RiskPoint
from memedit.evaluation.matching import match_answer
from memedit.evaluation.results import CaseResult, Cell, EditingCost, ProbeResult, Protocol, Routed
from memory_store import Edit

KNOWN: dict[str, dict[str, Any]] = {
    "base": {"changes": "nothing", "group": "none", "title": "Unedited model", "paper": "", "skill": 0.0, "harm": 0.0},
    "ike": {"title": "In-context editing from the memory", "paper": "Zheng et al. 2023", "skill": 0.9, "harm": 0.02},
    "scr": {"title": "Selective contextual reasoning", "paper": "He et al. 2025", "skill": 0.72, "harm": 0.09},
    "retrieval": {"title": "Plain retrieval", "paper": "none", "skill": 0.62, "harm": 0.21},
    "ice-oracle": {"title": "ICE, told", "paper": "Cohen et al. 2024", "skill": 0.96, "harm": 0.6, "oracle": True},
    "ft-m": {
        "changes": "weights",
        "group": "editing intrinsic knowledge",
        "title": "Fine-tuning, masked",
        "paper": "Zhang et al. 2024",
        "skill": 0.8,
        "harm": 0.3,
    },
}
"""Methods as they are, with how well they do here and what they break."""

COUNTRIES = "France Norway Japan Peru Ghana Italy Nepal Kenya Chile Egypt Spain India Fiji Cuba Laos".split()
CITIES = "Lyon Bergen Osaka Cusco Kumasi Turin Pokhara Kisumu Arica Aswan Bilbao Pune Lautoka Matanzas Pakse".split()
PORTABILITY: tuple[ProbeKind, ...] = ("alias", "one_hop", "multi_hop", "reversed", "yes_no")
AROUND: tuple[ProbeKind, ...] = ("same_subject", "same_relation", "unrelated")


@dataclass(frozen=True)
class Run:
    """A made-up run."""

    report: EvalReport
    results: dict[Cell, list[CaseResult]]
    cases: dict[tuple[str, str], EvalCase]


def method_facts(name: str) -> dict[str, Any]:
    known = {"changes": "memory", "group": "external knowledge", "title": name, "paper": "none"} | KNOWN.get(name, {})
    known = {key: value for key, value in known.items() if key not in {"skill", "harm"}}
    return asdict(MethodInfo(name=name, summary=f"What {name} does to a prompt, in a sentence.", **known))


def sample_run(
    *,
    methods: Sequence[str] = tuple(KNOWN),
    datasets: Sequence[str] = ("counterfact:dev",),
    edits: Sequence[int] = (1, 10, 100, 1000),
    protocols: Sequence[Protocol] = ("free",),
    sequential: bool = False,
    records: int = 12,
    seed: int = 0,
) -> Run:
    """Makes up a run."""
    chance = random.Random(seed)
    infos = {method: method_facts(method) for method in methods}
    figures: list[Figure] = []
    cells: list[CellSummary] = []
    results: dict[Cell, list[CaseResult]] = {}
    cases: dict[tuple[str, str], EvalCase] = {}
    calibration: list[CalibrationBin] = []
    risk: list[RiskPoint] = []
    for dataset in datasets:
        made = [sample_case(dataset, place) for place in range(records)]
        cases.update({(dataset, case.id): case for case in made})
        for method in methods:
            routes = infos[method]["changes"] == "memory" and not infos[method]["oracle"]
            for protocol in protocols:
                for count in edits:
                    for one_by_one in (False, True) if sequential and count > 1 else (False,):
                        figures.extend(_figures(chance, infos, dataset, method, protocol, count, one_by_one))
                        cell = Cell(
                            dataset=dataset, method=method, protocol=protocol, edits=count, sequential=one_by_one
                        )
                        cells.append(_summary(chance, cell))
                        results[cell] = [_case_result(chance, cell, case, place) for place, case in enumerate(made)]
            if routes:
                risk.extend(_risk(chance, dataset, method, edits))
                calibration.extend(_calibration(chance, dataset, method, max(edits)))
    report = EvalReport(
        config={"model": "smollm2-135m-instruct", "edits": list(edits), "protocols": list(protocols), "limit": 200},
        provenance={
            "command": [
                "memedit",
                "eval",
                "--model",
                "smollm2-135m-instruct",
                "--data",
                *datasets,
                "--out",
                "runs/it s",
            ],
            "versions": {"memedit": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
            "data": [{"file": "counterfact_dev.json", "sha256": "9f86d081884c7d65" * 4}],
            "revision": "8fb3bb2",
            "machine": {"cpu": "x86_64", "cores": 2, "gpu": None},
            "seconds": 1834.2,
        },
        methods=infos,
        figures=tuple(figures),
        cells=tuple(cells),
        calibration=tuple(calibration),
        risk=tuple(risk),
    )
    return Run(report, results, cases)


def sample_case(dataset: str, place: int) -> EvalCase:
    country, city = COUNTRIES[place % len(COUNTRIES)], CITIES[place % len(CITIES)]
    new, old = Reference(answers=(city,), old_answers=("Paris",)), Reference(answers=("something else",))
    questions: list[tuple[ProbeKind, str, Reference]] = [
        ("edit", f"The capital of {country} is", new),
        ("paraphrase", f"Which city is the seat of the government of {country}?", new),
        ("one_hop", f"Which river flows through the capital of {country}?", Reference(answers=("the Arno",))),
        ("same_subject", f"What is the currency of {country}?", old),
        ("same_relation", "What is the capital of Mongolia?", old),
        ("unrelated", "Write a short note that thanks a colleague for her help with the move last week.", Reference()),
    ]
    return EvalCase(
        id=f"{dataset.partition(':')[0]}-{place:04d}",
        edits=(Edit(prompt=f"The capital of {country} is", target=city, subject=country),),
        probes=tuple(
            Probe(kind=kind, prompt=ProbePrompt(text=text), reference=reference, of_edit=0)
            for kind, text, reference in questions
        ),
    )


def _skill(method: str) -> tuple[float, float]:
    known = KNOWN.get(method)
    if known is not None:
        return known["skill"], known["harm"]
    chance = random.Random(method)
    return chance.uniform(0.2, 0.95), chance.uniform(0.01, 0.5)


def _figures(
    chance: random.Random,
    infos: dict[str, dict[str, Any]],
    dataset: str,
    method: str,
    protocol: Protocol,
    edits: int,
    sequential: bool,
) -> Iterator[Figure]:
    skill, harm = _skill(method)
    decades = len(str(edits)) - 1
    wear = (0.12 if infos[method]["changes"] == "weights" else 0.025) * decades * (1.6 if sequential else 1.0)
    legacy = protocol == "teacher-forced"
    in_scope = {"teacher-forced": "token accuracy", "probability": "P(new) > P(old)"}.get(protocol, "anywhere")
    outside = {"teacher-forced": "token agreement", "probability": "P(old) > P(new)"}.get(protocol, "identical")

    def figure(measure: Measure, value: float, **given: Any) -> Figure:
        count = 200
        if given.setdefault("unit", "share") == "share":
            value = min(max(value, 0.0), 1.0)
            half = 1.96 * (value * (1 - value) / count) ** 0.5
            given.setdefault("low", max(0.0, value - half))
            given.setdefault("high", min(1.0, value + half))
        return Figure(
            dataset=dataset,
            method=method,
            protocol=protocol,
            comparability=("teacher-forced (legacy, not comparable)" if legacy else protocol)
            + (" · told the edit" if infos[method]["oracle"] else ""),
            edits=edits,
            sequential=sequential,
            measure=measure,
            value=value,
            cases=count,
            count=count * 2,
            **given,
        )

    def near(value: float) -> float:
        return value + chance.uniform(-0.03, 0.03) if skill else max(value, 0.0)

    answered: list[tuple[Measure, float, tuple[ProbeKind, ...]]] = [
        ("reliability", 0.04, ("edit",)),
        ("generalization", 0.05, ("paraphrase",)),
        ("portability", 0.16, PORTABILITY),
        ("robustness", 0.03, ("after_passage", "after_turns", "after_document")),
    ]
    hardness = {"reliability": 1.04, "generalization": 0.93, "portability": 0.55, "robustness": 0.74}
    for measure, before, kinds in answered:
        value = near(before + (skill - wear) * hardness[measure] - before * skill) if skill else before
        for kind in (None, *kinds) if len(kinds) > 1 else (None,):
            moved = near(value) if kind else value
            yield figure(measure, moved, kind=kind, reading=in_scope, before=before)
            if in_scope == "anywhere":
                yield figure(measure, moved * 0.86, kind=kind, reading="start", before=before / 2)
                yield figure(measure, moved * 0.31, kind=kind, reading="exact", before=0.0)
                yield figure(measure, (1 - moved) * 0.4, kind=kind, reading="old said", before=0.45)
    kept = 1 - harm * (0.5 + 0.3 * decades)
    for near_miss in (None, *AROUND):
        yield figure("locality", near(kept), kind=near_miss, reading=outside, before=1.0)
        if in_scope == "anywhere":
            spread = harm * (0.2 + decades) * chance.uniform(0.9, 1.1)
            yield figure(
                "locality", spread, kind=near_miss, reading="kl", unit="nats", low=spread * 0.7, high=spread * 1.4
            )
    if sequential:
        for place, later in enumerate(("0", "1-9", "10-99", "100-999")[: decades + 1]):
            yield figure("retention", near(skill - wear * place / 2), kind=later, reading="anywhere", before=0.04)
    if infos[method]["changes"] == "memory" and not infos[method]["oracle"] and not legacy:
        for part, value in (("recall@1", 0.97), ("recall@5", 0.99), ("recall@10", 1.0), ("right edit", skill)):
            yield figure("routing", near(value - 0.01 * decades), kind=part)
        for around in AROUND:
            yield figure("routing", near(harm * 0.4), kind=f"false fires: {around}")
        yield figure("routing", 0.99 - harm / 2, kind="AUROC")
    time = {"nothing": 0.0, "memory": 0.011, "weights": 3.4}[infos[method]["changes"]]
    yield figure("efficiency", time, kind="seconds an edit", unit="seconds")
    yield figure("efficiency", 1540.0 if time else 0.0, kind="bytes an edit", unit="bytes")
    ratio = 1.0 + skill * 0.4 * (time < 1)
    yield figure(
        "efficiency", ratio, kind="answer seconds, ratio to base", unit="ratio", low=ratio * 0.97, high=ratio * 1.04
    )
    yield figure("fluency", 5.4 - harm, unit="bits", before=5.4)


def _summary(chance: random.Random, cell: Cell) -> CellSummary:
    if cell.method == "ft-m" and cell.edits >= 1000:
        reason = "needs 57 minutes, over the limit of 30 that was set for a cell"
        return CellSummary(cell=cell, cases=0, not_testable=0, failed=0, skipped=reason)
    return CellSummary(
        cell=cell,
        cases=200,
        not_testable=9,
        failed=chance.choice((0, 0, 0, 1)),
        left_out={"condition not met": 31, "asks for another edit": 4},
    )


def _case_result(chance: random.Random, cell: Cell, case: EvalCase, place: int) -> CaseResult:
    probes = tuple(_probe_result(chance, cell, case, place) for place in range(len(case.probes)))
    cost = EditingCost(edits=cell.edits, seconds=0.01 * cell.edits)
    made = max(cell.edits, place + 1)
    return CaseResult(case=case.id, position=place, made=made, testable=True, probes=probes, cost=cost)


def _probe_result(chance: random.Random, cell: Cell, case: EvalCase, place: int) -> ProbeResult:
    skill, harm = _skill(cell.method)
    probe = case.probes[place]
    target = case.edits[0].target
    before = "I believe that this is Paris, the largest city of the country and its seat of government since 1790."
    works = chance.random() < (skill * 0.8 if probe.in_scope else harm)
    answer = f"{probe.reference.answers[0] if probe.in_scope else target}." if works else before
    routed = None
    if cell.method not in {"base", "ft-m", "ice-oracle"}:
        fired = works or (probe.in_scope and chance.random() < 0.5)
        right = probe.in_scope and (works or chance.random() < 0.6)
        edit = case.edits[0].prompt if right else "The capital of Austria is"
        odds = chance.uniform(0.5, 1.0) if fired else chance.uniform(0.0, 0.5)
        routed = Routed(fired=fired, right=right if fired else None, probability=odds, threshold=0.5, edit=edit)
    generated = cell.protocol in {"free", "oracle-router", "no-router"}
    asked = probe.reference.answers
    return ProbeResult(
        place=place,
        kind=probe.kind,
        in_scope=probe.in_scope,
        answer=answer if generated else None,
        before=before if generated else None,
        match=match_answer(answer, asked) if asked and generated else None,
        match_before=match_answer(before, asked) if asked and generated else None,
        routed=routed,
        seconds=chance.uniform(0.05, 0.9),
    )


def _risk(chance: random.Random, dataset: str, method: str, edits: Sequence[int]) -> Iterator[RiskPoint]:
    skill, harm = _skill(method)
    for count in edits:
        decades = len(str(count)) - 1
        right = min(1.0, skill + 0.06 - 0.03 * decades)
        yield RiskPoint(
            dataset=dataset,
            method=method,
            edits=count,
            right=right,
            wrong=min(1 - right, 0.012 * decades * (1 + 4 * harm)),
            near_misses=harm * (0.3 + 0.2 * decades) * chance.uniform(0.9, 1.1),
            unrelated=harm * 0.05 * decades,
            count=1200,
        )


def _calibration(chance: random.Random, dataset: str, method: str, edits: int) -> Iterator[CalibrationBin]:
    skill, _ = _skill(method)
    for place in range(10):
        middle = (place + 0.5) / 10
        yield CalibrationBin(
            dataset=dataset,
            method=method,
            edits=edits,
            low=place / 10,
            high=(place + 1) / 10,
            foretold=middle,
            found=min(1.0, max(0.0, middle ** (1.6 - skill * 0.6) + chance.uniform(-0.06, 0.06))),
            count=int(20 + 380 * abs(middle - 0.5) ** 2 * chance.uniform(0.8, 1.2) * 4),
        )
