"""The untrained scope classifier: where its curve lies, and what it keeps of the protocol."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifiers import ScopeCandidate, ScopeClassifier, SimilarityScope


def candidates(*similarities: float) -> list[ScopeCandidate]:
    return [
        ScopeCandidate(prompt="p", target="t", matched_text="p", similarity=similarity) for similarity in similarities
    ]


def probability(scope: SimilarityScope, similarity: float) -> float:
    return float(scope.probabilities(["q"], candidates(similarity))[0])


def test_is_a_scope_classifier():
    assert isinstance(SimilarityScope(), ScopeClassifier)


def test_is_the_logistic_curve_of_its_docstring():
    scope = SimilarityScope(0.6, steepness=10.0)
    found = scope.probabilities(["q"] * 4, candidates(-1.0, 0.55, 0.6, 0.9))
    expected = [1 / (1 + math.exp(-10.0 * (s - 0.6))) for s in (-1.0, 0.55, 0.6, 0.9)]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_governs_exactly_from_the_threshold_on():
    scope = SimilarityScope(0.7)
    assert probability(scope, 0.7) >= scope.threshold
    assert probability(scope, 0.6999) < scope.threshold


@given(
    threshold=st.floats(-1, 1),
    steepness=st.floats(0.1, 1000),
    similarity=st.floats(-1.001, 1.001),
)
def test_nothing_that_reaches_the_threshold_lies_under_the_floor(threshold: float, steepness: float, similarity: float):
    scope = SimilarityScope(threshold, steepness=steepness)
    if similarity >= threshold or similarity >= np.float32(threshold):
        assert similarity >= scope.floor


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=20), st.floats(0.1, 10_000))
def test_is_monotone_and_a_probability(similarities: list[float], steepness: float):
    ordered = sorted(similarities)
    found = SimilarityScope(steepness=steepness).probabilities(["q"] * len(ordered), candidates(*ordered))
    assert (np.diff(found) >= 0).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_a_pair_does_not_depend_on_the_batch():
    scope = SimilarityScope()
    together = scope.probabilities(["q"] * 3, candidates(0.2, 0.71, 0.9))
    assert [probability(scope, s) for s in (0.2, 0.71, 0.9)] == together.tolist()


def test_no_pairs_give_no_probabilities():
    assert SimilarityScope().probabilities([], []).shape == (0,)


def test_pairs_must_match():
    with pytest.raises(ValueError, match="2 queries, 1 candidates"):
        SimilarityScope().probabilities(["a", "b"], candidates(0.5))


@pytest.mark.parametrize("similarity", [math.nan, math.inf])
def test_a_similarity_that_is_no_number_is_refused(similarity: float):
    with pytest.raises(ValueError, match="not a finite number"):
        SimilarityScope().probabilities(["a"], candidates(similarity))


@pytest.mark.parametrize("threshold", [-1.01, 70, math.nan])
def test_threshold_is_a_cosine(threshold: float):
    with pytest.raises(ValueError, match="from -1 to 1"):
        SimilarityScope(threshold)


@pytest.mark.parametrize("steepness", [0, -3, math.inf, math.nan])
def test_steepness_is_positive(steepness: float):
    with pytest.raises(ValueError, match="above 0"):
        SimilarityScope(steepness=steepness)


def test_fingerprint_follows_the_parameters():
    assert SimilarityScope().fingerprint == SimilarityScope(0.7).fingerprint
    others = {SimilarityScope(0.71).fingerprint, SimilarityScope(steepness=21.0).fingerprint}
    assert SimilarityScope().fingerprint not in others
    assert len(others) == 2
