"""Two runs side by side: paired where their cases are at hand, and refused where they are not comparable."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from memedit.errors import ConfigError
from memedit.evaluation import Match
from memedit.evaluation.comparing import Comparison, compare
from memedit.evaluation.figures import EvalReport
from memedit.evaluation.measures import Results, figures_of
from memedit.evaluation.results import CaseResult, Cell, EditingCost, ProbeResult, Routed
from memedit.evaluation.routing_measures import routing_figures

CELL = Cell(dataset="made:dev", method="ike", protocol="free", edits=10)
METHODS: dict[str, dict[str, Any]] = {"ike": {"oracle": False}, "scr": {"oracle": False}, "gold": {"oracle": True}}


def case(name: str, *hits: bool, **fields: Any) -> CaseResult:
    probes = tuple(
        ProbeResult(place=place, kind="edit", in_scope=True, match=Match(hit, hit, hit), match_before=Match())
        for place, hit in enumerate(hits)
    )
    return CaseResult(case=name, position=0, made=10, testable=True, **{"probes": probes, **fields})


def report(results: Results, provenance: Mapping[str, Any] | None = None, **fields: Any) -> EvalReport:
    methods = fields.pop("methods", METHODS)
    figures = (*figures_of(results, methods), *routing_figures(results, methods))
    return EvalReport(
        **{"config": {}, "provenance": provenance or {}, "methods": methods, "figures": figures, "cells": (), **fields}
    )


def compared(first: Results, second: Results, **fields: Any) -> Comparison:
    return compare(report(first), report(second), first, second, **fields)


def one(comparison: Comparison, kind: str | None = None, reading: str | None = "anywhere") -> Any:
    (found,) = [each for each in comparison.differences if (each.first.kind, each.first.reading) == (kind, reading)]
    return found


def random_cases(seed: int, share: float, names: Sequence[str]) -> list[CaseResult]:
    chance = random.Random(seed)
    return [case(name, *(chance.random() < share for _ in range(chance.randint(1, 4)))) for name in names]


def test_difference_is_paired_on_shared_cases() -> None:
    names = [f"case {number}" for number in range(40)]
    first = random_cases(1, 0.4, [*names, "only here"])
    second = random_cases(2, 0.7, [*reversed(names), "only there"])
    difference = one(compared({CELL: first}, {CELL: second}))
    by_name = [
        {each.case: [bool(p.match and p.match.anywhere) for p in each.probes] for each in run}
        for run in (first, second)
    ]

    def mean(run: int, sample: Sequence[str]) -> float:
        hits = [hit for name in sample for hit in by_name[run][name]]
        return sum(hits) / len(hits)

    assert difference.value == pytest.approx(mean(1, names) - mean(0, names))
    assert difference.cases == 40
    assert difference.first.value == pytest.approx(mean(0, [*names, "only here"]))
    assert difference.second.value == pytest.approx(mean(1, [*names, "only there"]))
    chance = random.Random(0)
    samples = [chance.choices(names, k=40) for _ in range(4_000)]
    drawn = sorted(mean(1, sample) - mean(0, sample) for sample in samples)
    assert difference.low == pytest.approx(drawn[100], abs=0.025)
    assert difference.high == pytest.approx(drawn[3_900], abs=0.025)
    assert difference.is_clear


def test_a_run_differs_not_from_itself() -> None:
    results = {CELL: random_cases(1, 0.4, ["a", "b", "c", "d"])}
    comparison = compared(results, results)
    assert [each.first for each in comparison.differences] == list(report(results).figures)
    assert {(each.value, each.low, each.high, each.is_clear) for each in comparison.differences} == {
        (0.0, 0.0, 0.0, False)
    }
    assert (comparison.refused, comparison.notes) == ((), ())


def test_without_results_figures_are_compared_as_they_stand() -> None:
    first, second = {CELL: [case("a", True), case("b", False)]}, {CELL: [case("a", True), case("c", True)]}
    difference = one(compare(report(first), report(second), first))
    assert (difference.value, difference.low, difference.cases, difference.is_clear) == (0.5, None, None, False)


def test_without_a_shared_case_figures_are_compared_as_they_stand() -> None:
    difference = one(compared({CELL: [case("a", True)]}, {CELL: [case("b", False)]}))
    assert (difference.value, difference.low, difference.cases) == (-1.0, None, 0)


def test_routing_is_compared_too() -> None:
    def routed(right: bool, probability: float) -> CaseResult:
        by = Routed(fired=True, right=right, probability=probability, threshold=0.5, rank=1)
        return case(str(probability), probes=(ProbeResult(place=0, kind="edit", in_scope=True, routed=by),))

    comparison = compared(
        {CELL: [routed(True, 0.9), routed(False, 0.8)]}, {CELL: [routed(True, 0.9), routed(True, 0.8)]}
    )
    right = one(comparison, "right edit", None)
    assert (right.value, right.cases) == (0.5, 2)
    error = one(comparison, "calibration error", None)
    assert (error.value, error.cases) == (pytest.approx((0.1 + 0.2) / 2 - (0.1 + 0.8) / 2), None)


def test_costs_that_cases_share_have_no_interval() -> None:
    first, second = (
        {CELL: [case(name, True, cost=EditingCost(edits=10, seconds=seconds)) for name in "abc"]}
        for seconds in (10, 30)
    )
    difference = one(compared(first, second), "seconds an edit", None)
    assert (difference.value, difference.low, difference.cases) == (2.0, None, 3)


def test_only_what_is_in_both_and_of_one_kind_is_compared() -> None:
    cases = [case("a", True)]
    other = [
        replace(CELL, edits=100),
        replace(CELL, sequential=True),
        replace(CELL, dataset="other:dev"),
        replace(CELL, protocol="no-router"),
        replace(CELL, method="scr"),
    ]
    for cell in other:
        assert compared({CELL: cases}, {cell: cases}).differences == ()
    assert (
        len({each.first.reading for each in compared({CELL: cases}, {CELL: cases, other[0]: cases}).differences}) == 3
    )


def test_two_methods_of_one_run() -> None:
    results = {CELL: [case("a", False)], replace(CELL, method="scr"): [case("a", True)]}
    comparison = compared(results, results, methods=("ike", "scr"))
    assert {(each.first.method, each.second.method) for each in comparison.differences} == {("ike", "scr")}
    assert one(comparison).value == 1.0


def test_an_oracle_is_not_compared_with_a_method_that_is_not_told() -> None:
    results = {CELL: [case("a", False)], replace(CELL, method="gold"): [case("a", True)]}
    comparison = compared(results, results, methods=("ike", "gold"))
    assert comparison.differences == ()
    assert comparison.refused == ("made:dev, 10 edits: ike (free) and gold (free · told the edit) are not comparable.",)


def test_a_method_that_was_told_the_edit_in_one_run_alone_is_refused() -> None:
    results = {CELL: [case("a", False)]}
    told = report(results, methods={"ike": {"oracle": True}})
    assert compare(report(results), told).differences == ()
    assert len(compare(report(results), told).refused) == 1


@pytest.mark.parametrize(("methods", "where"), [(("scr", "ike"), "first"), (("ike", "scr"), "second")])
def test_a_method_that_was_not_run_is_an_error(methods: tuple[str, str], where: str) -> None:
    results = {CELL: [case("a", True)]}
    with pytest.raises(ConfigError, match=rf"the {where} run has no figures of 'scr'; it has those of ike\."):
        compared(results, results, methods=methods)


def test_notes_say_in_what_the_runs_differ() -> None:
    results = {CELL: [case("a", True)]}
    first = {
        "model": {"name": "smollm2", "fingerprint": "aa"},
        "versions": {"torch": "2.13.0", "numpy": "2.4.6"},
        "data": [{"name": "b.json", "sha256": "11"}, {"name": "a.json", "sha256": "22"}],
        "command": "memedit eval --out a",
        "goes": [{"seconds": 10}],
        "hosts": ["x"],
    }
    second = {
        "model": {"name": "gemma", "fingerprint": "bb"},
        "versions": {"torch": "2.13.0", "numpy": "2.5.0"},
        "data": [{"name": "a.json", "sha256": "33"}, {"name": "b.json", "sha256": "11"}],
        "command": "memedit eval --out b",
        "goes": [{"seconds": 20}, {"seconds": 5}],
        "hosts": ["x", "y" * 100],
    }
    assert compare(report(results, first), report(results, second)).notes == (
        "data.a.json.sha256 differs: 22 in the first run, 33 in the second",
        f"hosts.1 is known of the second run alone: {'y' * 59}…",
        "model.fingerprint differs: aa in the first run, bb in the second",
        "model.name differs: smollm2 in the first run, gemma in the second",
        "versions.numpy differs: 2.4.6 in the first run, 2.5.0 in the second",
    )
