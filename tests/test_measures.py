"""Figures from case results: intervals against scipy, means against pandas, and small cases with known answers."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from memedit.errors import ConfigError
from memedit.evaluation import Match
from memedit.evaluation.cases import OutOfScopeKind, ProbeKind
from memedit.evaluation.figures import Figure
from memedit.evaluation.measures import Results, comparability, figures_of, summaries
from memedit.evaluation.results import (
    CaseResult,
    Cell,
    EditingCost,
    ForcedScore,
    Likelihoods,
    ProbeResult,
)
from memedit.evaluation.statistics import Tally, area_under_roc, paired_difference

CELL = Cell(dataset="made:dev", method="ike", protocol="free", edits=10)
METHODS: dict[str, dict[str, Any]] = {"ike": {"oracle": False}, "base": {"oracle": False}, "gold": {"oracle": True}}
OUT_OF_SCOPE = get_args(OutOfScopeKind)

YES, NO = Match(start=True, anywhere=True, exact=True, alias="x"), Match()
SOMEWHERE = Match(anywhere=True, alias="x")


def probe(kind: ProbeKind = "edit", place: int = 0, **fields: Any) -> ProbeResult:
    in_scope = fields.pop("in_scope", kind not in OUT_OF_SCOPE)
    return ProbeResult(place=place, kind=kind, in_scope=in_scope, **fields)


def said(match: Match | None, earlier: Match | None = NO, kind: ProbeKind = "edit", **fields: Any) -> ProbeResult:
    fields = {"answer": "new", "before": "old", **fields}
    return probe(kind, match=match, match_before=earlier, **fields)


def case(name: str, *probes: ProbeResult, **fields: Any) -> CaseResult:
    placed = tuple(replace(one, place=place) for place, one in enumerate(probes))
    return CaseResult(case=name, probes=placed, **{"position": 0, "made": 10, "testable": True, **fields})


def figures(cases: Sequence[CaseResult], cell: Cell = CELL) -> list[Figure]:
    return list(figures_of({cell: cases}, METHODS))


def one(found: Sequence[Figure], **wanted: Any) -> Figure:
    (figure,) = [each for each in found if all(getattr(each, name) == value for name, value in wanted.items())]
    return figure


def tally_of(scores: Sequence[Sequence[float]]) -> Tally:
    """A tally of the scores of each case."""
    tally = Tally()
    for number, of_case in enumerate(scores):
        for score in of_case:
            tally.add(f"case {number}", 0, score)
    return tally


# -- intervals -----------------------------------------------------------------------------------------------------


def test_interval_is_that_of_scipy() -> None:
    chance = random.Random(5)
    scores = [[float(chance.random() < 0.6) for _ in range(chance.randint(1, 6))] for _ in range(80)]
    expected = scipy.stats.bootstrap(
        (np.array([sum(one) for one in scores]), np.array([len(one) for one in scores])),
        lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        rng=1,
    ).confidence_interval
    interval = tally_of(scores).interval()
    assert interval is not None
    assert interval.low == pytest.approx(expected.low, abs=0.01)
    assert interval.high == pytest.approx(expected.high, abs=0.01)
    assert expected.high - expected.low > 0.08


def test_probes_of_a_case_and_seeds_of_a_case_stay_together() -> None:
    """What is said ten times by the same case makes nothing surer."""
    scores = [float(number % 3 == 0) for number in range(30)]
    single, probes, seeds, apart = Tally(), Tally(), Tally(), Tally()
    for number, score in enumerate(scores):
        single.add(str(number), 0, score)
        for again in range(10):
            probes.add(str(number), 0, score)
            seeds.add(str(number), again, score)
            apart.add(f"{number} {again}", 0, score)
    assert single.interval() == probes.interval() == seeds.interval()
    assert (seeds.cases, seeds.count) == (30, 300)
    narrow, wide = apart.interval(), single.interval()
    assert narrow is not None
    assert wide is not None
    assert narrow.high - narrow.low < (wide.high - wide.low) / 2


def test_one_case_has_no_interval_and_no_case_no_value() -> None:
    tally = Tally()
    assert not tally
    assert math.isnan(tally.value)
    tally.add("a", 0, 1.0)
    tally.add("a", 1, 0.0)
    assert (tally.value, tally.interval()) == (0.5, None)


def test_an_infinite_amount_has_no_interval() -> None:
    tally = tally_of([[1.0], [math.inf]])
    assert (tally.value, tally.interval()) == (math.inf, None)
    assert paired_difference(tally, tally) is None


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=4), min_size=2, max_size=12))
def test_interval_lies_within_the_means_of_the_cases(scores: list[list[float]]) -> None:
    tally = tally_of(scores)
    interval = tally.interval()
    means = [sum(one) / len(one) for one in scores]
    assert interval is not None
    assert min(means) - 1e-9 <= interval.low <= interval.high <= max(means) + 1e-9
    assert tally.value == pytest.approx(sum(map(sum, scores)) / sum(map(len, scores)))


def test_paired_difference_is_on_shared_cases_drawn_together() -> None:
    chance = random.Random(2)
    ours = {f"case {number}": [chance.random() for _ in range(3)] for number in range(60)}
    # the second is better by a tenth everywhere, but on a case that the first has not
    theirs = {name: [score + 0.1 for score in scores] for name, scores in ours.items()} | {"other": [-50.0]}
    first, second = Tally(), Tally()
    for tally, scores in ((first, ours), (second, theirs)):
        for name in sorted(scores, key=lambda _: chance.random()):
            for score in scores[name]:
                tally.add(name, 0, score)
    paired = paired_difference(first, second)
    assert paired is not None
    assert paired.interval is not None
    assert paired.cases == 60
    assert [paired.value, paired.interval.low, paired.interval.high] == pytest.approx([0.1, 0.1, 0.1])


def test_paired_interval_is_that_of_a_slow_loop() -> None:
    chance = random.Random(3)
    cases = [[(chance.random(), chance.random()) for _ in range(chance.randint(1, 4))] for _ in range(25)]
    drawn = []
    for _ in range(4_000):
        sample = [pair for one in chance.choices(cases, k=len(cases)) for pair in one]
        drawn.append(sum(second - first for first, second in sample) / len(sample))
    drawn.sort()
    paired = paired_difference(
        tally_of([[pair[0] for pair in one] for one in cases]), tally_of([[pair[1] for pair in one] for one in cases])
    )
    assert paired is not None
    assert paired.interval is not None
    assert paired.interval.low == pytest.approx(drawn[100], abs=0.02)
    assert paired.interval.high == pytest.approx(drawn[3_900], abs=0.02)
    assert drawn[3_900] - drawn[100] > 0.1


def test_tallies_without_a_shared_case_have_no_difference() -> None:
    other = Tally()
    other.add("elsewhere", 0, 1.0)
    assert paired_difference(tally_of([[1.0]]), other) is None


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3)), min_size=2, max_size=30).filter(
        lambda items: len({positive for _, positive, weight in items if weight}) == 2
    )
)
def test_area_under_roc_is_that_of_sklearn(items: list[tuple[int, bool, int]]) -> None:
    scores, positive, weights = (np.array(column) for column in zip(*items, strict=True))
    expected = sklearn.metrics.roc_auc_score(positive, scores, sample_weight=weights)
    area = area_under_roc(scores.astype(float), positive, np.stack([weights, 2 * weights, 0 * weights]).astype(float))
    assert area[:2] == pytest.approx(expected)
    assert math.isnan(area[2])


# -- means against pandas ------------------------------------------------------------------------------------------


def random_results(seed: int) -> Results:
    chance = random.Random(seed)
    matches = [NO, SOMEWHERE, Match(start=True, anywhere=True, alias="x"), YES]
    kinds: list[ProbeKind] = ["edit", "paraphrase", "alias", "one_hop", "conflict", "same_subject", "unrelated"]

    def probes() -> list[ProbeResult]:
        return [
            said(
                chance.choice([*matches, None]),
                chance.choice(matches),
                chance.choice(kinds),
                answer=chance.choice(["new", "old"]),
                left_out=chance.choice([None, None, None, "condition not met"]),
            )
            for _ in range(chance.randint(1, 8))
        ]

    return {
        Cell(dataset=dataset, method=method, protocol="free", edits=edits, seed=seed): [
            case(
                f"case {number}",
                *probes(),
                testable=chance.random() < 0.8,
                error=chance.choice([None, None, None, None, "RuntimeError: no"]),
            )
            for number in range(12)
        ]
        for dataset in ("a:dev", "b:dev")
        for method in ("base", "ike")
        for edits in (1, 100)
        for seed in (0, 1, 2)
    }


def as_frame(results: Results) -> pd.DataFrame:
    """Every probe that counts as one row, without any code of ours."""
    measures = {"edit": "reliability", "paraphrase": "generalization", "alias": "portability"}
    measures |= {"one_hop": "portability", "conflict": "conflict", "same_subject": "locality", "unrelated": "locality"}
    rows = [
        {
            "dataset": cell.dataset,
            "method": cell.method,
            "edits": cell.edits,
            "seed": cell.seed,
            "case": of_case.case,
            "kind": each.kind,
            "measure": measures[each.kind],
            "identical": each.answer == each.before,
            **{name: getattr(each.match, name) if each.match else None for name in ("start", "anywhere", "exact")},
            "before": each.match_before.anywhere if each.match and each.match_before else None,
        }
        for cell, cases in results.items()
        for of_case in cases
        if of_case.testable and not of_case.error
        for each in of_case.probes
        if each.left_out is None
    ]
    return pd.DataFrame(rows).astype(dict.fromkeys(("start", "anywhere", "exact", "before"), "Float64"))


@pytest.mark.parametrize("by_kind", [False, True])
@pytest.mark.parametrize("reading", ["anywhere", "start", "exact", "identical"])
def test_means_are_those_of_pandas(reading: str, by_kind: bool) -> None:
    results = random_results(seed=7)
    frame = as_frame(results).dropna(subset=[reading])
    frame = frame[frame["measure"] == "locality"] if reading == "identical" else frame
    if reading in ("start", "exact"):
        frame = frame[frame["measure"] != "locality"]
    keys = ["dataset", "method", "edits", "measure", *(["kind"] if by_kind else [])]
    grouped = frame.groupby(keys)
    found = [
        figure
        for figure in figures_of(results, METHODS)
        if figure.reading == reading and (figure.kind is not None) == by_kind
    ]
    values = {tuple(getattr(figure, key) for key in keys): figure for figure in found}
    assert values.keys() == set(grouped.groups)
    for key, rows in grouped:
        figure = values[key]
        assert figure.value == pytest.approx(rows[reading].mean())
        assert figure.count == len(rows)
        assert figure.cases == rows["case"].nunique()
        assert figure.by_seed == pytest.approx(rows.groupby("seed")[reading].mean().to_dict())
        if reading == "anywhere":
            assert figure.before == pytest.approx(rows["before"].mean())


# -- what counts ---------------------------------------------------------------------------------------------------


def test_cases_that_test_nothing_or_failed_count_nowhere_and_are_counted() -> None:
    cases = [
        case("good", said(YES), said(None, None, "same_subject", answer="same", before="same")),
        case("known", said(YES, YES), said(None, None, "same_subject", kl=9.0, seconds=1.0), testable=False),
        case("broken", error="RuntimeError: out of memory", cost=EditingCost(edits=10, seconds=100.0)),
        case("both", testable=False, error="RuntimeError: out of memory"),
        case("part", said(NO), said(YES, left_out="condition not met"), said(NO, left_out="asks for another edit")),
        case("known too", said(NO, left_out="condition not met"), testable=False),
    ]
    found = figures(cases)
    reliability = one(found, measure="reliability", kind=None, reading="anywhere")
    assert (reliability.value, reliability.cases, reliability.count) == (0.5, 2, 2)
    locality = one(found, measure="locality", kind=None, reading="identical")
    assert (locality.value, locality.cases) == (1.0, 1)
    assert not [figure for figure in found if figure.reading == "kl" or figure.measure == "efficiency"]

    (summary,) = summaries({CELL: cases})
    assert (summary.cell, summary.cases, summary.not_testable, summary.failed) == (CELL, 6, 2, 2)
    assert summary.left_out == {"asks for another edit": 1, "condition not met": 1}


def test_a_run_in_which_nothing_counts_has_no_figures() -> None:
    assert figures([case("known", said(YES, YES), testable=False)]) == []


@pytest.mark.parametrize(("rule", "passed", "passed_before"), [("any", 0.5, 0.5), ("all", 0.25, 0.0)])
def test_probes_of_one_test_count_once(rule: str, passed: float, passed_before: float) -> None:
    """Three wordings of one question are one test, whatever the number of wordings that hit."""
    wordings: dict[str, Any] = {"kind": "multi_hop", "group": "questions", "group_rule": rule}
    cases = [
        case("one hits", said(NO, **wordings), said(YES, YES, **wordings), said(NO, **wordings)),
        case("all hit", said(YES, YES, **wordings), said(SOMEWHERE, NO, **wordings)),
        case("none hits", said(NO, **wordings), said(NO, **wordings), said(YES, left_out="no", **wordings)),
        case("alone", said(NO, kind="multi_hop")),
    ]
    figure = one(figures(cases), measure="portability", kind="multi_hop", reading="anywhere")
    assert (figure.value, figure.before, figure.count, figure.cases) == (passed, passed_before, 4, 4)
    assert one(figures(cases), measure="portability", kind=None, reading="anywhere").value == passed


def test_copies_of_a_test_behind_a_context_are_a_test_of_their_own() -> None:
    about: dict[str, Any] = {"group": "questions", "group_rule": "any"}
    found = figures(
        [
            case(
                "a",
                said(YES, kind="multi_hop", **about),
                said(NO, kind="after_passage", base_kind="multi_hop", **about),
            )
        ]
    )
    assert one(found, measure="portability", kind=None, reading="anywhere").value == 1.0
    assert one(found, measure="robustness", kind="after_passage", reading="anywhere").value == 0.0


def test_an_answer_that_moved_is_not_made_good_by_another() -> None:
    """Locality asks of every probe of a test that it stay, also where any right answer passes the test."""
    about: dict[str, Any] = {"kind": "forgetfulness", "group": "1", "group_rule": "any"}
    found = figures([case("a", said(YES, YES, answer="same", before="same", **about), said(NO, YES, **about))])
    assert one(found, measure="locality", kind=None, reading="identical").value == 0.0
    assert one(found, measure="locality", kind=None, reading="anywhere").value == 1.0


@pytest.mark.parametrize("kind", get_args(ProbeKind))
def test_every_kind_has_its_measure(kind: ProbeKind) -> None:
    measures = {
        "reliability": {"edit"},
        "generalization": {"paraphrase"},
        "conflict": {"conflict"},
        "robustness": {"after_passage", "after_turns", "after_document"},
        "locality": set(OUT_OF_SCOPE),
    }
    expected = next((measure for measure, kinds in measures.items() if kind in kinds), "portability")
    assert {figure.measure for figure in figures([case("a", said(YES, kind=kind))])} == {expected}


def test_a_near_miss_behind_a_context_is_locality() -> None:
    found = figures([case("a", said(YES, kind="after_turns", base_kind="same_relation", in_scope=False))])
    assert {(figure.measure, figure.kind) for figure in found} == {("locality", None), ("locality", "after_turns")}


# -- readings ------------------------------------------------------------------------------------------------------


def test_readings_of_a_free_answer() -> None:
    cases = [
        case("a", said(YES, old_said=False, old_said_before=True, verdict=True)),
        case("b", said(SOMEWHERE, old_said=True, old_said_before=True, verdict=False, cut=True)),
        case("c", said(Match(start=True, anywhere=True, alias="x"), SOMEWHERE, cut=True, overlap=0.5)),
        case("d", said(NO, cut=True)),
    ]
    found = {figure.reading: figure for figure in figures(cases) if figure.kind is None}
    assert {name: (figure.value, figure.before, figure.count) for name, figure in found.items()} == {
        "anywhere": (0.75, 0.25, 4),
        "start": (0.5, 0.0, 4),
        "exact": (0.25, 0.0, 4),
        "verdict": (0.5, None, 2),
        "overlap": (0.5, None, 1),
        "old said": (0.5, 1.0, 2),
        "cut": (0.75, None, 4),
    }
    assert found["anywhere"].delta == 0.5


def test_readings_out_of_scope() -> None:
    cases = [
        case("a", said(YES, YES, "same_subject", answer="Rome", before="Rome", kl=0.0)),
        case("b", said(NO, YES, "same_subject", answer="Rome, Italy", before="Rome", kl=0.3)),
        case("c", said(None, None, "unrelated", answer="Rome", before="Rome ")),
    ]
    found = {figure.reading: figure for figure in figures(cases) if figure.kind is None}
    assert {name: (figure.value, figure.before, figure.count, figure.unit) for name, figure in found.items()} == {
        "identical": (pytest.approx(1 / 3), 1.0, 3, "share"),
        "anywhere": (0.5, 1.0, 2, "share"),
        "kl": (0.15, None, 2, "nats"),
    }


def test_teacher_forced_readings() -> None:
    cell = replace(CELL, protocol="teacher-forced")
    forced = ForcedScore(accuracy=0.75, before=0.25, unchanged=0.5)
    found = figures([case("a", probe(forced=forced), probe("same_relation", forced=forced))], cell)
    assert [(each.measure, each.reading, each.value, each.before) for each in found if each.kind is None] == [
        ("reliability", "token accuracy", 0.75, 0.25),
        ("locality", "token agreement", 0.5, 1.0),
    ]


def test_probability_readings() -> None:
    cell = replace(CELL, protocol="probability")
    moved = Likelihoods(new=math.log(0.8), old=math.log(0.1), new_before=math.log(0.2), old_before=math.log(0.6))
    stayed = Likelihoods(new=math.log(0.1), old=math.log(0.4), new_before=math.log(0.1), old_before=math.log(0.4))
    probes = [probe(likelihoods=moved), probe(likelihoods=stayed)]
    near = [probe("same_relation", likelihoods=moved), probe("same_relation", likelihoods=stayed)]
    found = figures([case("a", *probes, *near)], cell)
    assert [(each.measure, each.reading, each.value, each.before) for each in found if each.kind is None] == [
        ("reliability", "P(new) > P(old)", 0.5, 0.0),
        ("reliability", "P(new) - P(old)", pytest.approx((0.7 - 0.3) / 2), pytest.approx((-0.4 - 0.3) / 2)),
        ("locality", "P(old) > P(new)", 0.5, 1.0),
        ("locality", "P(old) - P(new)", pytest.approx((-0.7 + 0.3) / 2), pytest.approx((0.4 + 0.3) / 2)),
    ]


# -- retention, fluency, cost --------------------------------------------------------------------------------------


def test_retention_is_by_how_many_edits_came_afterwards() -> None:
    cell = replace(CELL, sequential=True, edits=2_000)
    positions = {"last": 1_999, "one later": 1_998, "9 later": 1_990, "10 later": 1_989, "999": 1_000, "first": 0}
    cases = [
        case(name, said(YES if place > 1_500 else NO), said(YES, kind="alias"), position=place, made=2_000)
        for name, place in positions.items()
    ]
    found = [figure for figure in figures(cases, cell) if figure.measure == "retention"]
    assert {figure.kind: (figure.value, figure.count) for figure in found} == {
        "0": (1.0, 1),
        "1-9": (1.0, 2),
        "10-99": (1.0, 1),
        "100-999": (0.0, 1),
        "1000-9999": (0.0, 1),
    }
    assert {figure.reading for figure in found} == {"anywhere"}
    assert not [figure for figure in figures(cases) if figure.measure == "retention"]


def test_fluency_is_beside_the_unedited_models() -> None:
    found = figures([case("a", fluency=6.0, fluency_before=5.0), case("b", fluency=4.0, fluency_before=5.0), case("c")])
    figure = one(found, measure="fluency")
    assert (figure.value, figure.before, figure.unit, figure.cases) == (5.0, 5.0, "bits", 2)


def test_costs_of_editing() -> None:
    first = EditingCost(edits=10, seconds=20.0, setup_seconds=3.0, stored_bytes=500, treat_seconds=0.1, peak_bytes=900)
    second = EditingCost(
        edits=10, seconds=40.0, setup_seconds=5.0, stored_bytes=None, treat_seconds=0.4, peak_bytes=700
    )
    cases = [case("a", said(YES), said(YES), cost=first), case("b", said(YES), cost=second)]
    found = {figure.kind: figure for figure in figures(cases) if figure.measure == "efficiency"}
    assert {kind: (figure.value, figure.unit, figure.low) for kind, figure in found.items()} == {
        "seconds an edit": (3.0, "seconds", None),
        "seconds setup": (4.0, "seconds", None),
        "bytes an edit": (50.0, "bytes", None),
        "treat seconds a prompt": (pytest.approx(0.2), "seconds", pytest.approx(0.1)),
        "peak bytes": (900, "bytes", None),
    }


def test_waiting_is_beside_the_unedited_model_on_the_same_probes() -> None:
    routing = EditingCost(edits=10, seconds=0.0, treat_seconds=1.0)
    base = replace(CELL, method="base")
    results = {
        base: [case("a", said(NO, seconds=2.0), said(NO, seconds=50.0)), case("b", said(NO, seconds=4.0))],
        replace(base, seed=1): [case("a", said(NO, seconds=4.0))],
        # other questions and the other protocol are no measure of these
        replace(base, protocol="no-router"): [case("a", said(NO, seconds=1_000.0))],
        CELL: [
            case("a", said(YES, seconds=5.0), said(YES, seconds=None), cost=routing),
            case("b", said(YES, seconds=8.0), said(YES, seconds=77.0), cost=routing),
        ],
    }
    found = [figure for figure in figures_of(results, METHODS) if figure.method == "ike"]
    wait = one(found, kind="answer seconds, ratio to base")
    assert wait.value == pytest.approx((5 + 1 + 8 + 1) / (3 + 4))
    assert (wait.unit, wait.count) == ("ratio", 2)
    answering = one(found, kind="answer seconds a prompt")
    assert answering.value == pytest.approx((5 + 8 + 77) / 3)
    assert answering.unit == "seconds"
    alone = figures_of({CELL: results[CELL]}, METHODS)
    assert not [figure for figure in alone if figure.unit == "ratio"]


# -- what may stand together ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "method", "expected"),
    [
        ("free", "ike", "free"),
        ("free", "gold", "free · told the edit"),
        ("oracle-router", "ike", "oracle-router · told the edit"),
        ("no-router", "ike", "no-router"),
        ("probability", "gold", "probability · told the edit"),
        ("teacher-forced", "ike", "teacher-forced (legacy, not comparable)"),
        ("teacher-forced", "gold", "teacher-forced (legacy, not comparable) · told the edit"),
    ],
)
def test_comparability(protocol: Any, method: str, expected: str) -> None:
    cell = replace(CELL, protocol=protocol, method=method)
    assert comparability(cell, METHODS[method]) == expected
    assert {figure.comparability for figure in figures([case("a", said(YES))], cell)} == {expected}


def test_one_comparability_is_one_protocol_and_never_an_oracle_beside_another() -> None:
    """A table that shows one group cannot mix what must not be compared."""
    results = {
        replace(CELL, protocol=protocol, method=method): [case("a", said(YES))]
        for protocol in ("free", "teacher-forced", "probability", "oracle-router", "no-router")
        for method in METHODS
    }
    groups: dict[str, set[tuple[str, bool]]] = {}
    for figure in figures_of(results, METHODS):
        told = METHODS[figure.method]["oracle"] or figure.protocol == "oracle-router"
        groups.setdefault(figure.comparability, set()).add((figure.protocol, told))
    assert len(groups) == 9
    assert all(len(kinds) == 1 for kinds in groups.values())


def test_a_method_of_which_nothing_is_known_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"'ike'.*known are base"):
        figures_of({CELL: [case("a", said(YES))]}, {"base": {}})


def test_figures_come_by_cell_measure_and_kind() -> None:
    kinds: list[ProbeKind] = ["unrelated", "alias", "same_subject", "one_hop", "paraphrase", "edit"]
    cases = [case("a", *(said(YES, kind=kind) for kind in kinds))]
    later = replace(CELL, method="gold")
    found = figures_of({later: cases, CELL: cases}, METHODS)
    headline = [figure for figure in found if figure.reading == "anywhere"]
    expected = [
        ("reliability", None),
        ("reliability", "edit"),
        ("generalization", None),
        ("generalization", "paraphrase"),
        ("portability", None),
        ("portability", "alias"),
        ("portability", "one_hop"),
        ("locality", None),
        ("locality", "same_subject"),
        ("locality", "unrelated"),
    ]
    assert [(each.method, each.measure, each.kind) for each in headline] == [
        (method, *each) for method in ("gold", "ike") for each in expected
    ]
