"""Thresholds kept with a memory: when the router goes by them, what it says of them, and what it costs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hashing_encoder import HashingEncoder
from sqlalchemy import event

from memedit import ConfigError, Explanation, Query, Router
from memedit.routing import Decision, RoutingTimings, told_apart
from memedit.thresholds import (
    OWN_THRESHOLD,
    SETTING,
    ChosenThreshold,
    NamespaceThreshold,
    forget_threshold,
    keep_threshold,
    kept_threshold,
    threshold_history,
)
from memory_store import EditMemory

_SAID = re.compile(r"(\w+)=([\d.]+)")


class AsSaid:
    """A classifier that is told its probabilities in the query: ``"Lyon=0.7"``; 0 for targets that are not named."""

    name = "as said"
    floor = -1.0

    def __init__(self, fingerprint: str = "as-said", threshold: float = 0.5) -> None:
        self.fingerprint = fingerprint
        self.threshold = threshold

    def probabilities(self, queries, candidates):
        said = [dict(_SAID.findall(query)) for query in queries]
        found = [float(one.get(candidate.target, 0.0)) for one, candidate in zip(said, candidates, strict=True)]
        return np.array(found, dtype=np.float32)


CHOSEN = ChosenThreshold(
    threshold=0.75,
    max_false_fire=0.01,
    confidence=0.95,
    prompts=5_000,
    in_scope=2,
    fires=31,
    edits=2,
    room_for=3,
    candidates=10,
    classifier="as said",
    classifier_fingerprint="as-said",
    encoder_fingerprint=HashingEncoder().fingerprint,
    traffic="prompts.jsonl",
    traffic_sha256="ab" * 32,
    traffic_bytes=123_456,
    chosen_at=datetime(2026, 11, 20, 12, 30, tzinfo=UTC),
    version="0.1.0",
)
TOLD = "chosen on 2026-11-20 from 5,000 prompts for at most 1% false fires"


@pytest.fixture
def memory() -> Iterator[EditMemory]:
    with EditMemory(encoder=HashingEncoder()) as opened:
        opened.add("The capital of France is", "Lyon")
        opened.add("The capital of Spain is", "Porto", namespace="team")
        yield opened


def router(memory: EditMemory, scope: AsSaid | None = None, **options) -> Router:
    assert memory.encoder is not None
    return Router(memory, memory.encoder, scope or AsSaid(), **options)


def decide(by: Router, text: str, *, thorough: bool = False) -> Decision:
    return by.route([Query(text, (text,))], thorough=thorough)[0]


# -- which threshold counts --------------------------------------------------------------------------------------------


def test_without_a_chosen_threshold_the_classifiers_own_counts(memory) -> None:
    decision = decide(router(memory), "Lyon=0.6")
    assert (decision.governed, decision.threshold, decision.threshold_origin) == (True, 0.5, OWN_THRESHOLD)
    assert "at or above the threshold 0.500 (similarity" in decision.reason
    assert router(memory).thresholds() == (NamespaceThreshold("default", 0.5),)


def test_a_kept_threshold_counts_and_is_told_of(memory) -> None:
    by = router(memory)
    assert decide(by, "Lyon=0.6").governed
    keep_threshold(memory, "default", CHOSEN)
    below, above = decide(by, "Lyon=0.6"), decide(by, "Lyon=0.8")
    assert (below.governed, above.governed) == (False, True)
    assert (below.threshold, below.threshold_origin) == (0.75, TOLD)
    assert f"below the threshold 0.750, {TOLD} (similarity" in below.reason
    assert f"at or above the threshold 0.750, {TOLD} (similarity" in above.reason
    assert decide(by, "Lyon=0.75").governed
    (found,) = by.thresholds()
    assert (found.in_force, found.chosen, found.threshold) == (True, CHOSEN, 0.75)
    assert forget_threshold(memory, "default")
    assert not forget_threshold(memory, "default")
    assert decide(by, "Lyon=0.6").governed


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"classifier_fingerprint": "other"}, "was chosen for another classifier"),
        ({"encoder_fingerprint": "other"}, "was chosen for another encoder"),
    ],
)
def test_a_threshold_of_another_classifier_or_encoder_does_not_count(memory, changed, said: str) -> None:
    keep_threshold(memory, "default", replace(CHOSEN, **changed))
    decision = decide(router(memory), "Lyon=0.6")
    assert (decision.governed, decision.threshold) == (True, 0.5)
    assert f"the threshold 0.500, {OWN_THRESHOLD}: 0.750 of 2026-11-20 {said} (similarity" in decision.reason
    (found,) = router(memory).thresholds()
    assert (found.in_force, found.unused, found.threshold) == (False, said, 0.5)


def test_a_classifier_that_is_exchanged_is_noticed(memory) -> None:
    keep_threshold(memory, "default", CHOSEN)
    by = router(memory)
    assert not decide(by, "Lyon=0.6").governed
    by.scope = AsSaid("another", threshold=0.55)
    assert (decide(by, "Lyon=0.6").governed, decide(by, "Lyon=0.5").governed) == (True, False)
    by.scope = AsSaid()
    assert not decide(by, "Lyon=0.6").governed


def test_each_edit_is_judged_by_the_threshold_of_its_namespace(memory) -> None:
    keep_threshold(memory, "team", CHOSEN)
    by = router(memory, namespaces=("default", "team"))
    assert decide(by, "Lyon=0.6 Porto=0.7").edits[0].target == "Lyon"
    assert decide(by, "Lyon=0.6 Porto=0.7").threshold == 0.5
    assert decide(by, "Lyon=0.6 Porto=0.8").edits[0].target == "Porto"
    near = decide(by, "Lyon=0.4 Porto=0.6")  # the more probable one lacks more
    assert (near.governed, near.threshold) == (False, 0.5)
    assert near.probability == pytest.approx(0.4)
    assert [candidate.edit.target for candidate in near.candidates] == ["Porto", "Lyon"]
    assert [one.threshold for one in by.thresholds()] == [0.5, 0.75]
    alone = router(memory, namespaces=("team",))
    assert not decide(alone, "Lyon=1.0 Porto=0.7").governed


def test_with_no_edit_in_force_the_threshold_is_told_too(memory) -> None:
    keep_threshold(memory, "empty", CHOSEN)
    decision = decide(router(memory, namespaces=("empty",)), "Lyon=1.0")
    assert (decision.threshold, decision.threshold_origin, decision.candidates) == (0.75, TOLD, ())


# -- other processes, and the cost of a query --------------------------------------------------------------------------


@contextmanager
def statements(memory: EditMemory) -> Iterator[list[str]]:
    """The statements that a memory sends to its database in the block, those of the driver itself aside."""
    seen: list[str] = []

    def note(connection, cursor, statement: str, *_: object) -> None:
        seen.append(statement)

    engine = memory._database._engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


def of_settings(seen: Sequence[str]) -> list[str]:
    return [statement for statement in seen if "namespace_settings.value" in statement]


def test_a_query_reads_no_setting_until_one_has_changed(tmp_path) -> None:
    with EditMemory(tmp_path / "facts.db", encoder=HashingEncoder()) as memory:
        memory.add("The capital of France is", "Lyon")
        by = router(memory)
        with statements(memory) as seen:
            decide(by, "Lyon=0.6")
            assert len(of_settings(seen)) == 1
            seen.clear()
            for _ in range(3):
                decide(by, "Lyon=0.6")
            assert of_settings(seen) == []
            each = len(seen) / 3
            with EditMemory(tmp_path / "facts.db") as other:
                keep_threshold(other, "default", CHOSEN)
            seen.clear()
            assert not decide(by, "Lyon=0.6").governed  # seen at the next query
            assert len(of_settings(seen)) == 1
            seen.clear()
            decide(by, "Lyon=0.6")
            assert (len(of_settings(seen)), len(seen)) == (0, each)


def test_a_chosen_threshold_survives_the_process(tmp_path) -> None:
    with EditMemory(tmp_path / "facts.db", encoder=HashingEncoder()) as memory:
        keep_threshold(memory, "default", CHOSEN)
    with EditMemory(tmp_path / "facts.db", encoder=HashingEncoder()) as memory:
        assert kept_threshold(memory, "default") == CHOSEN
        memory.reencode()
        assert kept_threshold(memory, "default") == CHOSEN


# -- doubts ------------------------------------------------------------------------------------------------------------


def test_a_memory_that_has_outgrown_the_promise_says_so_to_a_person(memory) -> None:
    keep_threshold(memory, "default", CHOSEN)
    by = router(memory)
    memory.add("a", "b")
    gone = memory.add("c", "d").edit
    assert decide(by, "Lyon=0.8", thorough=True).threshold_origin == TOLD
    memory.add("e", "f")
    told = f"{TOLD}; that was promised for up to 3 edits and there are 4: calibrate again"
    assert decide(by, "Lyon=0.8", thorough=True).threshold_origin == told
    assert told in decide(by, "Lyon=0.8", thorough=True).reason
    assert decide(by, "Lyon=0.8").threshold_origin == TOLD  # not counted for every query
    assert decide(by, "Lyon=0.7").threshold == 0.75  # and in force all the same
    memory.remove(gone.id)
    assert decide(by, "Lyon=0.8", thorough=True).threshold_origin == TOLD


def test_more_candidates_than_were_promised_for_are_told(memory) -> None:
    keep_threshold(memory, "default", CHOSEN)
    said = decide(router(memory, candidates=11), "Lyon=0.8", thorough=True).threshold_origin
    assert said == f"{TOLD}; that was promised for 10 candidates a prompt and 11 are read: calibrate again"
    assert decide(router(memory, candidates=9), "Lyon=0.8", thorough=True).threshold_origin == TOLD


# -- how it is kept ----------------------------------------------------------------------------------------------------


def test_the_history_keeps_every_choice(memory) -> None:
    later = replace(CHOSEN, threshold=0.8)
    keep_threshold(memory, "default", CHOSEN)
    memory.set_namespace_setting("default", SETTING, {"threshold": "of another kind"})
    forget_threshold(memory, "default")
    keep_threshold(memory, "default", later)
    history = threshold_history(memory, "default")
    assert [chosen for _, chosen in history] == [CHOSEN, None, later]
    assert [at for at, _ in history] == sorted(at for at, _ in history)
    assert threshold_history(memory, "team") == []


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.7, "no JSON object but float"),
        ({}, "KeyError: 'threshold'"),
        ({**CHOSEN.to_json(), "threshold": "high"}, "ValueError"),
        ({**CHOSEN.to_json(), "chosen_at": 5}, "TypeError"),
    ],
)
def test_what_cannot_be_read_is_an_error_that_says_how_to_go_on(memory, value, said: str) -> None:
    memory.set_namespace_setting("default", SETTING, value)
    with pytest.raises(ConfigError, match=said) as caught:
        decide(router(memory), "Lyon=0.6")
    assert "memedit calibrate --reset" in str(caught.value)
    assert forget_threshold(memory, "default")
    assert decide(router(memory), "Lyon=0.6").governed


def test_what_a_later_version_adds_is_passed_over() -> None:
    assert ChosenThreshold.from_json({**CHOSEN.to_json(), "colour": "blue"}) == CHOSEN


# -- what a person reads -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("probability", "threshold", "told"),
    [
        (0.98, 0.5, ("0.980", "0.500")),
        (0.7312, 0.7309, ("0.731200", "0.730900")),
        (0.99999, 1.0, ("0.999990", "1.000000")),
        (0.5, 0.5, ("0.500", "0.500")),
        (1.0, 1.0, ("1.000", "1.000")),
    ],
)
def test_a_probability_and_its_threshold_are_told_apart(probability: float, threshold: float, told) -> None:
    assert told_apart(probability, threshold) == told


def test_an_explanation_shows_margin_and_origin(memory) -> None:
    keep_threshold(memory, "default", CHOSEN)
    by = router(memory)
    for said, shown in (
        ("Lyon=0.8", "probability  0.800 (threshold 0.750, margin +0.050)"),
        ("Lyon=0.7499", "probability  0.749900 (threshold 0.750000, margin -0.000100)"),
    ):
        decision = decide(by, said, thorough=True)
        lines = str(Explanation(said, decision, "base model", said, 3, 0)).splitlines()
        assert shown in lines
        assert any(line.startswith("why ") and TOLD in line for line in lines)


def test_a_decision_made_by_hand_has_the_classifiers_own_threshold() -> None:
    decision = Decision(Query("x", ("x",)), (), 0.0, 0.5, "told", (), RoutingTimings())
    assert decision.threshold_origin == OWN_THRESHOLD
