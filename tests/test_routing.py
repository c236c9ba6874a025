"""From queries to decisions: a real memory, a small encoder, and classifiers that can be reasoned about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hashing_encoder import HashingEncoder

from classifiers import ScopeClassifier, SimilarityScope
from memedit import Query, Router, question_query
from memory_store import Edit, EditMemory

EDITS = [
    Edit(prompt="The headquarters of Acme Rockets is in", target="Lisbon", subject="Acme Rockets"),
    Edit(prompt="The director of Acme Rockets is", target="Jane Doe", subject="Acme Rockets"),
    Edit(prompt="The capital of Freedonia is", target="Fredville", paraphrases=("Freedonia is governed from",)),
]


class ReadsTargets:
    """A stand-in for a cross-encoder: it goes by the words of the edit, not by the similarity."""

    name = "reads targets"
    fingerprint = "reads-targets"
    threshold = 0.6
    floor = 0.2

    def __init__(self, wanted):
        self.wanted = wanted
        self.read = []

    def probabilities(self, queries, candidates):
        self.read.extend(zip(queries, (candidate.target for candidate in candidates), strict=True))
        return np.array([0.9 if candidate.target == self.wanted else 0.1 for candidate in candidates], dtype=np.float32)


@pytest.fixture
def memory():
    memory = EditMemory(encoder=HashingEncoder(256))
    memory.add_many(EDITS)
    return memory


def router(memory, scope=None, **options):
    return Router(memory, memory.encoder, scope or SimilarityScope(threshold_similarity=0.8), **options)


def route(memory, text, scope=None, *, thorough=True, **options):
    return router(memory, scope, **options).route([question_query(text)], thorough=thorough)[0]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.target)
def test_the_edits_own_prompt_is_governed_by_it(memory, edit):
    decision = route(memory, edit.prompt)
    assert decision.governed
    assert decision.edits[0].target == edit.target
    assert decision.candidates[0].similarity == pytest.approx(1.0, abs=1e-5)
    assert decision.probability == pytest.approx(1 / (1 + np.exp(-20 * 0.2)), rel=1e-4)
    assert decision.margin == pytest.approx(decision.probability - 0.5)
    assert "at or above the threshold 0.500" in decision.reason


def test_a_paraphrase_is_a_vector_of_the_same_edit(memory):
    decision = route(memory, "Freedonia is governed from")
    assert decision.edits[0].target == "Fredville"
    assert decision.candidates[0].matched_kind == "paraphrase"


def test_an_unrelated_question_is_not_governed(memory):
    decision = route(memory, "How do bananas grow?")
    assert not decision.governed
    assert decision.edits == ()
    assert len(decision.candidates) == len(EDITS)
    assert "below the threshold" in decision.reason
    quick = route(memory, "How do bananas grow?", thorough=False)
    assert (quick.governed, quick.candidates) == (False, ())
    assert quick.reason == "no edit is near the query"


def test_the_best_window_wins(memory):
    decision = route(memory, "It rained all day in the north of the country. The capital of Freedonia is")
    assert decision.edits[0].target == "Fredville"
    assert decision.candidates[0].window == "The capital of Freedonia is"


def test_the_classifier_decides_not_the_similarity(memory):
    scope = ReadsTargets("Jane Doe")
    assert isinstance(scope, ScopeClassifier)
    decision = route(memory, "The headquarters of Acme Rockets is in", scope)
    assert decision.edits[0].target == "Jane Doe"
    assert decision.candidates[0].edit.target == "Jane Doe"
    assert decision.threshold == 0.6


def test_candidates_under_the_floor_are_not_read(memory):
    scope = ReadsTargets("Fredville")
    decision = route(memory, "The headquarters of Acme Rockets is in", scope)
    below = [candidate for candidate in decision.candidates if candidate.similarity < scope.floor]
    above = [candidate for candidate in decision.candidates if candidate.similarity >= scope.floor]
    assert {target for _, target in scope.read} == {candidate.edit.target for candidate in above}
    assert all(candidate.probability == 0.0 for candidate in below)
    quick = route(memory, "The headquarters of Acme Rockets is in", scope, thorough=False)
    assert [candidate.edit for candidate in quick.candidates] == [candidate.edit for candidate in above]


def test_queries_of_a_batch_keep_their_order_and_share_the_encoding(memory):
    texts = ["How do bananas grow?", EDITS[0].prompt, EDITS[2].prompt, EDITS[0].prompt]
    before = memory.encoder.texts_encoded
    decisions = router(memory).route([question_query(text) for text in texts])
    assert [decision.query.text for decision in decisions] == texts
    assert [bool(decision.edits) for decision in decisions] == [False, True, True, True]
    assert memory.encoder.texts_encoded - before == 3  # the repeated text once
    assert decisions[0].timings.queries == 4
    assert decisions[0].timings.total > 0


def test_only_the_routers_namespace_is_searched(memory):
    memory.add("The capital of Freedonia is", "Sylvania City", namespace="tenant-b")
    assert route(memory, "The capital of Freedonia is").edits[0].target == "Fredville"
    assert route(memory, "The capital of Freedonia is", namespaces=("tenant-b",)).edits[0].target == "Sylvania City"
    nowhere = route(memory, "The capital of Freedonia is", namespaces=("tenant-c",))
    assert not nowhere.governed
    assert "no edit is active in namespace 'tenant-c'" in nowhere.reason


def test_expired_and_removed_edits_never_fire(memory):
    memory.add("The king of Freedonia is", "Rufus", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert not any(
        candidate.edit.target == "Rufus" for candidate in route(memory, "The king of Freedonia is").candidates
    )
    (edit,) = memory.list(subject="Acme Rockets", contains="headquarters")
    memory.remove(edit.id)
    assert edit.id not in {candidate.edit.id for candidate in route(memory, edit.prompt).candidates}


def test_edges(memory):
    assert router(memory).route([]) == []
    with pytest.raises(ValueError, match="candidates must be at least 1, given 0"):
        router(memory, candidates=0)
    one = router(memory, candidates=1).route([Query("x", ("The capital of Freedonia is",))])[0]
    assert len(one.candidates) == 1


class Confident(ReadsTargets):
    """Nearly sure of every candidate, a little surer of one."""

    def __init__(self, wanted, others):
        super().__init__(wanted)
        self.others = others

    def probabilities(self, queries, candidates):
        return np.array(
            [0.99 if candidate.target == self.wanted else self.others for candidate in candidates], dtype=np.float32
        )


@pytest.mark.parametrize(("others", "nearest"), [(0.98, True), (0.96, False), (0.4, False)])
def test_of_edits_as_probable_the_nearest_governs(memory, others, nearest):
    first, second = EDITS[0], EDITS[1]
    decision = route(memory, first.prompt, Confident(second.target, others))
    assert decision.candidates[0].edit.target == second.target
    assert decision.edits[0].target == (first.target if nearest else second.target)
    assert decision.governing.edit == decision.edits[0]
    assert decision.probability == pytest.approx(others if nearest else 0.99)


def test_nothing_governs_where_no_probability_reaches(memory):
    decision = route(memory, EDITS[0].prompt, Confident(EDITS[1].target, 0.2), thorough=True)
    assert decision.governed
    nothing = route(memory, EDITS[0].prompt, ReadsTargets("no such target"))
    assert nothing.governing is None
