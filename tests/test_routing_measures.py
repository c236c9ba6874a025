"""Routing measures against scikit-learn and plain counting, and small cases with known answers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import sklearn.calibration
import sklearn.metrics

from memedit.errors import ConfigError
from memedit.evaluation.cases import ProbeKind
from memedit.evaluation.figures import CalibrationBin, Figure, RiskPoint
from memedit.evaluation.measures import Results
from memedit.evaluation.results import CaseResult, Cell, ProbeResult, Routed
from memedit.evaluation.routing_measures import calibration_of, risk_of, routing_figures

CELL = Cell(dataset="made:dev", method="ike", protocol="free", edits=10)
METHODS: dict[str, dict[str, Any]] = {"ike": {"oracle": False}, "ft-m": {"oracle": False}, "gold": {"oracle": True}}


def probe(
    kind: ProbeKind = "edit",
    *,
    right: bool | None = None,
    probability: float = 0.5,
    rank: int | None = None,
    **fields: Any,
) -> ProbeResult:
    """A probe that was routed; an edit fired for it where it is said whether that was right."""
    routed = Routed(fired=right is not None, right=right, probability=probability, threshold=0.5, rank=rank)
    in_scope = fields.pop("in_scope", kind in ("edit", "paraphrase"))
    return ProbeResult(place=0, kind=kind, in_scope=in_scope, **{"routed": routed, **fields})


def case(name: str, *probes: ProbeResult, **fields: Any) -> CaseResult:
    placed = tuple(replace(one, place=place) for place, one in enumerate(probes))
    return CaseResult(case=name, probes=placed, **{"position": 0, "made": 10, "testable": True, **fields})


def figures(cases: Sequence[CaseResult], cell: Cell = CELL) -> dict[str | None, Figure]:
    found = routing_figures({cell: cases}, METHODS)
    assert {(figure.measure, figure.reading, figure.unit) for figure in found} <= {("routing", None, "share")}
    assert len({figure.kind for figure in found}) == len(found)
    return {figure.kind: figure for figure in found}


def random_probes(chance: random.Random, count: int) -> list[ProbeResult]:
    kinds: list[ProbeKind] = ["edit", "paraphrase", "same_subject", "same_relation", "unrelated"]
    probes = []
    for _ in range(count):
        kind = chance.choice(kinds)
        inside = kind in ("edit", "paraphrase")
        # rounded, so that some are equal
        probability = round(min(1.0, max(0.0, chance.gauss(0.65 if inside else 0.4, 0.2))), 2)
        right = (inside and chance.random() < 0.8) if probability >= 0.5 else None
        rank = chance.choice([1, 1, 1, 2, 6, 10, None]) if inside else None
        probes.append(probe(kind, right=right, probability=probability, rank=rank))
    return probes


def random_results(seed: int) -> Results:
    chance = random.Random(seed)
    return {
        replace(CELL, edits=edits, seed=seed): [
            case(f"case {number}", *random_probes(chance, chance.randint(2, 9)), testable=number % 7 != 0)
            for number in range(40)
        ]
        for edits in (1, 100)
        for seed in (0, 1)
    }


def counting(results: Results, edits: int) -> list[ProbeResult]:
    return [
        one
        for cell, cases in results.items()
        if cell.edits == edits
        for of_case in cases
        if of_case.testable
        for one in of_case.probes
    ]


def truths(probes: Sequence[ProbeResult]) -> tuple[list[float], list[bool], list[bool]]:
    """Probabilities; whether in scope; whether the best candidate is the gold edit."""
    routed = [(one, one.routed) for one in probes if one.routed]
    found = [one.in_scope and (by.right is True or (by.right is None and by.rank == 1)) for one, by in routed]
    return [by.probability for _, by in routed], [one.in_scope for one, _ in routed], found


def test_area_and_brier_score_are_those_of_sklearn() -> None:
    results = random_results(4)
    found = routing_figures(results, METHODS)
    for edits in (1, 100):
        of_size = {figure.kind: figure for figure in found if figure.edits == edits}
        probabilities, in_scope, right = truths(counting(results, edits))
        area, brier = of_size["AUROC"], of_size["Brier score"]
        assert area.value == pytest.approx(sklearn.metrics.roc_auc_score(in_scope, probabilities))
        assert brier.value == pytest.approx(sklearn.metrics.brier_score_loss(right, probabilities))
        assert area.count == brier.count == len(probabilities)
        for figure in (area, brier):
            assert figure.low is not None
            assert figure.high is not None
            assert figure.low < figure.value < figure.high < figure.low + 0.2
        assert set(area.by_seed) == {0, 1}


def test_area_of_each_seed_and_its_interval_by_a_slow_loop() -> None:
    results = random_results(6)
    (figure,) = [one for one in routing_figures(results, METHODS) if one.kind == "AUROC" and one.edits == 1]
    chance = random.Random(0)
    by_case: dict[str, list[ProbeResult]] = {}
    for cell, cases in results.items():
        if cell.edits == 1:
            probabilities, in_scope, _ = truths([one for each in cases if each.testable for one in each.probes])
            assert figure.by_seed[cell.seed] == pytest.approx(sklearn.metrics.roc_auc_score(in_scope, probabilities))
            for of_case in cases:
                if of_case.testable:
                    by_case.setdefault(of_case.case, []).extend(of_case.probes)
    drawn = []
    for _ in range(600):
        sample = [one for name in chance.choices(list(by_case), k=len(by_case)) for one in by_case[name]]
        probabilities, in_scope, _ = truths(sample)
        drawn.append(sklearn.metrics.roc_auc_score(in_scope, probabilities))
    drawn.sort()
    assert figure.cases == len(by_case)
    assert figure.low == pytest.approx(drawn[15], abs=0.015)
    assert figure.high == pytest.approx(drawn[585], abs=0.015)


def test_area_is_no_surer_for_what_one_case_says_ten_times() -> None:
    chance = random.Random(1)
    scores = [(chance.gauss(0.6, 0.2), chance.gauss(0.4, 0.2)) for _ in range(30)]
    once, often = (
        figures(
            [
                case(str(number), *[probe(probability=inside), probe("unrelated", probability=outside)] * times)
                for number, (inside, outside) in enumerate(scores)
            ]
        )["AUROC"]
        for times in (1, 10)
    )
    assert (often.count, often.cases) == (600, 30)
    assert (often.value, often.low, often.high) == pytest.approx((once.value, once.low, once.high))


def test_reliability_diagram_is_that_of_sklearn() -> None:
    results = random_results(8)
    for edits in (1, 100):
        bins = [one for one in calibration_of(results, METHODS) if one.edits == edits]
        probabilities, _, right = truths(counting(results, edits))
        # sklearn closes its bins above, ours are closed below: kept off the borders, both are the same
        shifted = [min(1.0, value + 1e-6) for value in probabilities]
        found, foretold = sklearn.calibration.calibration_curve(right, shifted, n_bins=10)
        assert [one.found for one in bins] == pytest.approx(list(found))
        assert [one.foretold for one in bins] == pytest.approx(list(foretold), abs=1e-5)
        assert sum(one.count for one in bins) == len(probabilities)
        assert all(one.low <= one.foretold <= one.high for one in bins)
        (error,) = [
            one for one in routing_figures(results, METHODS) if one.kind == "calibration error" and one.edits == edits
        ]
        expected = sum(one.count * abs(one.found - one.foretold) for one in bins) / len(probabilities)
        assert error.value == pytest.approx(expected)
        assert error.low is None


def test_counts_by_hand() -> None:
    found = figures(
        [
            case("a", probe(right=True, rank=1), probe("paraphrase", right=False, rank=4)),
            case("b", probe(rank=10), probe("paraphrase", rank=None)),
            case("c", probe("same_subject", right=False), probe("same_subject"), probe("same_relation")),
            case("d", probe("unrelated", right=True), probe("unrelated", right=False), probe("forgetfulness")),
        ]
    )
    expected = {
        "recall@1": (0.25, 4),
        "recall@5": (0.5, 4),
        "recall@10": (0.75, 4),
        "right edit": (0.25, 4),
        "another edit": (0.25, 4),
        "false fires": (pytest.approx(1 / 3), 6),
        "false fires: same_subject": (0.5, 2),
        "false fires: same_relation": (0.0, 1),
        "false fires: unrelated": (0.5, 2),
        "false fires: forgetfulness": (0.0, 1),
    }
    assert {kind: (found[kind].value, found[kind].count) for kind in expected} == expected
    assert set(found) - set(expected) == {"AUROC", "Brier score", "calibration error"}
    assert all(figure.before is None for figure in found.values())


def test_a_probe_behind_a_context_fires_falsely_as_the_kind_it_was() -> None:
    found = figures(
        [case("a", probe("after_turns", base_kind="same_relation", in_scope=False, right=False, probability=0.9))]
    )
    assert found["false fires: same_relation"].value == 1.0
    assert "AUROC" not in found


def test_what_rightly_fires_out_of_scope_spoils_neither_area_nor_calibration() -> None:
    asks_for_another = probe("same_relation", right=True, probability=1.0)
    clear = [probe(right=True, rank=1, probability=0.9), probe("same_relation", probability=0.2)]
    found, without = figures([case("a", *clear, asks_for_another)]), figures([case("a", *clear)])
    for kind in ("AUROC", "Brier score", "calibration error"):
        assert found[kind] == without[kind]
    assert found["false fires"].value == 0.0
    assert found["false fires"].count == 2


def test_what_does_not_count_is_not_routed_either() -> None:
    counted = probe(right=True, rank=1)
    found = figures(
        [
            case("a", counted, probe(right=False, left_out="condition not met"), probe(routed=None)),
            case("known", probe(right=False), testable=False),
            case("broken", probe(right=False), error="RuntimeError: no"),
        ]
    )
    assert (found["right edit"].value, found["right edit"].count) == (1.0, 1)


@pytest.mark.parametrize(
    ("cell", "there"),
    [
        (replace(CELL, method="gold"), False),
        (replace(CELL, protocol="oracle-router"), False),
        (replace(CELL, protocol="no-router"), True),
    ],
)
def test_who_is_told_the_edit_has_no_figures_of_routing(cell: Cell, there: bool) -> None:
    cases = [case("a", probe(right=True, rank=1), probe("unrelated"))]
    assert bool(routing_figures({cell: cases}, METHODS)) is there
    assert calibration_of({cell: cases}, METHODS) == ()
    assert risk_of({cell: cases}, METHODS) == ()


def test_a_method_without_a_router_has_no_figures_of_routing() -> None:
    results = {replace(CELL, method="ft-m"): [case("a", probe(routed=None))]}
    assert (routing_figures(results, METHODS), calibration_of(results, METHODS), risk_of(results, METHODS)) == (
        (),
        (),
        (),
    )


def test_a_method_of_which_nothing_is_known_is_an_error() -> None:
    for measure in (routing_figures, calibration_of, risk_of):
        with pytest.raises(ConfigError, match="'ike'"):
            measure({CELL: [case("a", probe())]}, {})


def test_bins_by_hand() -> None:
    cases = [
        case("a", probe(right=True, rank=3, probability=1.0), probe(right=False, rank=1, probability=0.95)),
        case("b", probe(rank=1, probability=0.3), probe(rank=2, probability=0.3), probe("unrelated", probability=0.0)),
    ]
    about: dict[str, Any] = {"dataset": "made:dev", "method": "ike", "edits": 10}
    assert calibration_of({CELL: cases}, METHODS) == (
        CalibrationBin(**about, low=0.0, high=0.1, foretold=0.0, found=0.0, count=1),
        CalibrationBin(**about, low=0.3, high=0.4, foretold=0.3, found=0.5, count=2),
        CalibrationBin(**about, low=0.9, high=1.0, foretold=0.975, found=0.5, count=2),
    )
    # 2/5 of |0.3 - 0.5| and 2/5 of |0.975 - 0.5|
    assert figures(cases)["calibration error"].value == pytest.approx(0.4 * 0.2 + 0.4 * 0.475)


def test_risk_at_each_size_of_the_memory() -> None:
    small = [case("a", probe(right=True), probe("unrelated"), probe("same_subject"))]
    large = [
        case("a", probe(right=True), probe(right=False), probe(), probe(right=True)),
        case("b", probe("same_subject", right=False), probe("same_relation")),
    ]
    results = {
        replace(CELL, edits=1): small,
        replace(CELL, edits=1_000): large,
        replace(CELL, edits=1_000, seed=1): [case("a", probe(right=False))],
        # the same under another protocol and in another order of editing is not counted twice
        replace(CELL, edits=1_000, protocol="probability"): [case("a", probe(right=False))],
        replace(CELL, edits=1_000, sequential=True): [case("a", probe(right=False))],
        replace(CELL, edits=5, protocol="probability"): [case("a", probe("unrelated", right=False))],
    }
    assert risk_of(results, METHODS) == (
        RiskPoint(
            dataset="made:dev", method="ike", edits=1, right=1.0, wrong=0.0, near_misses=0.0, unrelated=0.0, count=3
        ),
        RiskPoint(
            dataset="made:dev",
            method="ike",
            edits=5,
            right=None,
            wrong=None,
            near_misses=None,
            unrelated=1.0,
            count=1,
        ),
        RiskPoint(
            dataset="made:dev",
            method="ike",
            edits=1_000,
            right=0.4,
            wrong=0.4,
            near_misses=0.5,
            unrelated=None,
            count=7,
        ),
    )
