"""Calibration maps against scikit-learn and SciPy, and the calibration error against its definition by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.calibration import CalibratedClassifierCV
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from classifiers.calibration import (
    IsotonicMap,
    LogisticMap,
    expected_calibration_error,
    isotonic_regression,
    platt_scaling,
    reliability_bins,
    temperature_scaling,
)


def pairs(count: int = 20_000, *, temperature: float = 2.5, bias: float = 0.0, seed: int = 0):
    """Logits that are too extreme by a known temperature, and labels drawn from the true probabilities."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 4, count)
    return logits, generator.random(count) < LogisticMap(temperature, bias)(logits)


def by_temperature(logits, labels) -> LogisticMap:
    return LogisticMap(temperature_scaling(logits, labels))


def test_the_temperature_that_labels_were_drawn_with_is_found() -> None:
    logits, labels = pairs()
    temperature = temperature_scaling(logits, labels)
    assert temperature == pytest.approx(2.5, rel=0.05)
    alone = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(logits[:, None], labels)
    assert 1 / temperature == pytest.approx(alone.coef_[0, 0], rel=1e-4)


@pytest.mark.parametrize("bias", [-3.0, 0.0, 1.0])
def test_platt_finds_temperature_and_bias(bias: float) -> None:
    logits, labels = pairs(bias=bias)
    fitted = platt_scaling(logits, labels)
    both = LogisticRegression(C=np.inf, tol=1e-10).fit(logits[:, None], labels)
    assert 1 / fitted.temperature == pytest.approx(both.coef_[0, 0], rel=2e-3)
    assert fitted.bias == pytest.approx(both.intercept_[0], abs=5e-3)


def test_platt_is_that_of_scikit_learn() -> None:
    """Few pairs, so that the smoothing of labels shows."""
    logits, labels = pairs(60, bias=-1.0, seed=4)

    class Scores(LogisticRegression):
        def decision_function(self, X):  # noqa: N803 - scikit-learn's name
            return X[:, 0]

    raw = Scores().fit(logits[:, None], labels)
    from sklearn.frozen import FrozenEstimator

    theirs = CalibratedClassifierCV(FrozenEstimator(raw), method="sigmoid").fit(logits[:, None], labels)
    ours = platt_scaling(logits, labels)
    assert ours(logits) == pytest.approx(theirs.predict_proba(logits[:, None])[:, 1], abs=1e-4)


@pytest.mark.parametrize("fit", [by_temperature, platt_scaling, isotonic_regression])
def test_a_fitted_map_is_calibrated_where_the_raw_output_is_not(fit) -> None:
    logits, labels = pairs(seed=1)
    held_out, truth = pairs(seed=2)
    raw = expected_calibration_error(LogisticMap()(held_out), truth)
    calibrated = fit(logits, labels)(held_out)
    assert raw > 0.08
    assert expected_calibration_error(calibrated, truth) < 0.02
    order = np.argsort(held_out)
    assert (np.diff(calibrated[order]) >= 0).all()


def test_pairs_that_are_separated_without_error_have_a_finite_fit() -> None:
    logits, labels = [-2.0, -1.0, 1.0, 2.0], [0, 0, 1, 1]
    assert temperature_scaling(logits, labels) == pytest.approx(0.01, rel=0.01)
    platt = platt_scaling(logits, labels)
    assert 0.1 < platt.temperature < 10
    assert 0.5 < platt(2.0) < 1


def test_large_and_tiny_logits_are_fitted_alike() -> None:
    logits, labels = pairs(2_000, bias=0.5)
    reference = platt_scaling(logits, labels)
    for factor in (1e-4, 1e4):
        scaled = platt_scaling(logits * factor, labels)
        assert scaled.temperature / factor == pytest.approx(reference.temperature, rel=1e-3)
    assert LogisticMap()([-1e6, 1e6]).tolist() == pytest.approx([0.0, 1.0])


def test_logits_that_go_the_wrong_way_are_refused() -> None:
    logits, labels = pairs(500)
    with pytest.raises(ValueError, match="no rising curve"):
        platt_scaling(-logits, labels)


def test_isotonic_is_that_of_scikit_learn_and_survives_json() -> None:
    logits, labels = pairs(3_000)
    theirs = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(logits, labels)
    ours = isotonic_regression(logits, labels)
    asked = np.linspace(-20, 20, 999)
    assert ours(asked) == pytest.approx(theirs.predict(asked), abs=1e-12)
    assert IsotonicMap.from_state(json.loads(json.dumps(ours.to_state()))) == ours


def test_the_temperature_minimises_the_likelihood_that_scipy_minimises() -> None:
    logits, labels = pairs(300, seed=9)
    truth = np.asarray(labels, dtype=float)

    def loss(temperature: float) -> float:
        probabilities = 1 / (1 + np.exp(-logits / temperature))
        return float(-(truth * np.log(probabilities) + (1 - truth) * np.log1p(-probabilities)).mean())

    best = minimize_scalar(loss, bounds=(0.5, 20), method="bounded")
    assert loss(temperature_scaling(logits, labels)) == pytest.approx(best.fun, abs=1e-9)


def test_bins_and_error_by_hand() -> None:
    probabilities, labels = [0.05, 0.15, 0.95, 1.0, 0.9], [0, 1, 1, 1, 0]
    found = reliability_bins(probabilities, labels, bins=10)
    assert [(one.low, one.high, one.count) for one in found] == [(0.0, 0.1, 1), (0.1, 0.2, 1), (0.9, 1.0, 3)]
    assert found[2].foretold == pytest.approx(0.95)
    assert found[2].found == pytest.approx(2 / 3)
    by_hand = (0.05 + 0.85 + 3 * abs(2 / 3 - 0.95)) / 5
    assert expected_calibration_error(probabilities, labels, bins=10) == pytest.approx(by_hand)


def test_a_perfect_forecast_has_no_error_and_the_opposite_the_greatest() -> None:
    labels = np.array([0, 1] * 50)
    assert expected_calibration_error(labels, labels) == 0.0
    assert expected_calibration_error(1 - labels, labels) == 1.0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: temperature_scaling([1.0, 2.0], [1]), "shapes"),
        (lambda: temperature_scaling([], []), "at least one pair"),
        (lambda: temperature_scaling([1.0, 2.0], [1, 1]), "only one kind"),
        (lambda: platt_scaling([1.0, math.inf], [0, 1]), "finite"),
        (lambda: isotonic_regression([1.0, 2.0], [0, 2]), "labels are true or false"),
        (lambda: reliability_bins([1.5], [1]), "from 0 to 1"),
        (lambda: reliability_bins([0.5], [1], bins=0), "bins must be at least 1"),
        (lambda: LogisticMap(temperature=0.0), "above 0"),
        (lambda: IsotonicMap((), ()), "at least one"),
        (lambda: IsotonicMap((0.0, 0.0), (0.0, 1.0)), "rise"),
        (lambda: IsotonicMap((0.0, 1.0), (1.0, 0.0)), "never fall"),
    ],
)
def test_what_makes_no_sense_is_refused(call, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
