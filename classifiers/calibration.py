"""Probabilities that mean what they say: maps fitted on held-out pairs, and how far off probabilities are.

A map takes a classifier's raw output to a probability. It is fitted on pairs that the classifier was not trained on:
`temperature_scaling` (Guo et al. 2017, On Calibration of Modern Neural Networks, section 4) and `platt_scaling` (Platt
1999) on logits, `isotonic_regression` (Zadrozny and Elkan 2002) on any score. All three keep the order of scores, the
last up to ties: it maps whole stretches of scores to one probability, so that a threshold chosen later cannot fall
within one.

`reliability_bins` and `expected_calibration_error` measure. This file knows nothing of texts or edits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "IsotonicMap",
    "LogisticMap",
    "ReliabilityBin",
    "expected_calibration_error",
    "isotonic_regression",
    "platt_scaling",
    "reliability_bins",
    "temperature_scaling",
]

_Floats = NDArray[np.float64]

_MOST_LOG_TEMPERATURE = math.log(100.0)
"""Temperatures are sought from 0.01 to 100; where labels are separated without error, the best one would be 0."""


@dataclass(frozen=True, slots=True)
class LogisticMap:
    """The probability ``1 / (1 + exp(-(logit / temperature + bias)))``.

    Attributes:
        temperature: Above 1 it makes probabilities less extreme, below 1 more so.
        bias: 0 for temperature scaling, which keeps a logit of 0 at one half.
    """

    temperature: float = 1.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0.0 and math.isfinite(self.bias)):
            raise ValueError(
                "temperature is a finite number above 0 and bias a finite number; "
                f"given {self.temperature!r} and {self.bias!r}"
            )

    def __call__(self, logits: ArrayLike) -> _Floats:
        """Maps logits to probabilities of the same shape."""
        # the clip only keeps exp within range; at 700 the curve is flat to the last bit
        scaled = np.clip(np.asarray(logits, dtype=np.float64) / self.temperature + self.bias, -700.0, 700.0)
        probabilities: _Floats = 1.0 / (1.0 + np.exp(-scaled))
        return probabilities


@dataclass(frozen=True, slots=True)
class IsotonicMap:
    """Straight lines between knots, level outside them; never falling.

    Attributes:
        scores: Where the knots are, rising.
        probabilities: Their probabilities, as many, never falling.
    """

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        scores, probabilities = np.array(self.scores), np.array(self.probabilities)
        if not self.scores or len(self.scores) != len(self.probabilities):
            raise ValueError(
                f"there are as many probabilities as scores, at least one; given {len(self.probabilities)} "
                f"and {len(self.scores)}"
            )
        if not np.isfinite(scores).all() or (np.diff(scores) <= 0).any():
            raise ValueError("scores are finite numbers that rise from knot to knot")
        if not ((probabilities >= 0) & (probabilities <= 1)).all() or (np.diff(probabilities) < 0).any():
            raise ValueError("probabilities lie from 0 to 1 and never fall from knot to knot")

    def __call__(self, scores: ArrayLike) -> _Floats:
        """Maps scores to probabilities of the same shape."""
        return np.asarray(np.interp(np.asarray(scores, dtype=np.float64), self.scores, self.probabilities))

    def to_state(self) -> dict[str, list[float]]:
        """Gives the knots as JSON values."""
        return {"scores": list(self.scores), "probabilities": list(self.probabilities)}

    @classmethod
    def from_state(cls, state: Mapping[str, Sequence[float]]) -> Self:
        """Makes the map from what `to_state` gave."""
        return cls(tuple(map(float, state["scores"])), tuple(map(float, state["probabilities"])))


def temperature_scaling(logits: ArrayLike, labels: ArrayLike) -> float:
    """Gives what logits are to be divided by: the temperature of the least negative log-likelihood.

    Guo et al. 2017, section 4.2. It is sought from 0.01 to 100.

    Args:
        logits: Raw outputs, ``[pairs]``.
        labels: Whether each pair is in scope, ``[pairs]``.

    Raises:
        ValueError: The two differ in length, hold something else, or only one kind of pair is there.
    """
    from scipy.optimize import minimize_scalar

    values, truth = _checked(logits, labels, both=True)

    def loss(log_temperature: float) -> float:
        return _negative_log_likelihood(values * math.exp(-log_temperature), truth)

    bounds = (-_MOST_LOG_TEMPERATURE, _MOST_LOG_TEMPERATURE)
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-8})
    return math.exp(float(found.x))


def platt_scaling(logits: ArrayLike, labels: ArrayLike) -> LogisticMap:
    """Fits a temperature and a bias, for classifiers that say yes too often or too seldom (Platt 1999).

    Labels are drawn a little towards the middle, as Platt does, so that pairs separated without error have a best fit
    that is finite.

    Args:
        logits: Raw outputs, ``[pairs]``.
        labels: Whether each pair is in scope, ``[pairs]``.

    Raises:
        ValueError: The two differ in length, hold something else, or only one kind of pair is there; or larger logits
            do not go with pairs in scope.
    """
    from scipy.optimize import minimize

    values, truth = _checked(logits, labels, both=True)
    inside = int(truth.sum())
    outside = len(truth) - inside
    targets = np.where(truth > 0, (inside + 1) / (inside + 2), 1 / (outside + 2))
    size = float(np.abs(values).max()) or 1.0  # the slope is sought in units in which it is neither huge nor tiny

    def loss(fit: _Floats) -> tuple[float, _Floats]:
        scaled = fit[0] * values / size + fit[1]
        off = LogisticMap()(scaled) - targets
        return _negative_log_likelihood(scaled, targets), np.array([(off * values / size).mean(), off.mean()])

    found = minimize(loss, np.array([size, 0.0]), jac=True, method="BFGS", options={"gtol": 1e-8})
    slope = float(found.x[0]) / size
    if slope <= 0.0:
        raise ValueError("larger logits do not go with pairs in scope, so no rising curve fits them")
    return LogisticMap(temperature=1.0 / slope, bias=float(found.x[1]))


def isotonic_regression(scores: ArrayLike, labels: ArrayLike) -> IsotonicMap:
    """Fits the best curve that never falls, without any assumption on its shape (scikit-learn's).

    It needs more pairs than the logistic maps: a few thousand.

    Args:
        scores: Raw outputs, ``[pairs]``.
        labels: Whether each pair is in scope, ``[pairs]``.

    Raises:
        ValueError: The two differ in length, hold something else, or there are none.
    """
    from sklearn.isotonic import IsotonicRegression

    values, truth = _checked(scores, labels)
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(values, truth)
    return IsotonicMap(tuple(fitted.X_thresholds_.tolist()), tuple(fitted.y_thresholds_.tolist()))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """One bar of a reliability diagram.

    Attributes:
        low: From this probability on.
        high: To this one, which belongs to the next bin, 1 excepted.
        foretold: Mean probability in the bin.
        found: Share that came true.
        count: How many.
    """

    low: float
    high: float
    foretold: float
    found: float
    count: int


def reliability_bins(probabilities: ArrayLike, labels: ArrayLike, *, bins: int = 15) -> tuple[ReliabilityBin, ...]:
    """Compares what was foretold with what came true, in bins of equal width; empty bins are left out.

    Args:
        probabilities: What was foretold, each 0 to 1, ``[pairs]``.
        labels: Whether it came true, ``[pairs]``.
        bins: How many bins 0 to 1 is divided into.

    Raises:
        ValueError: The two differ in length or hold something else, or ``bins`` is not positive.
    """
    values, truth = _checked(probabilities, labels)
    if not ((values >= 0.0) & (values <= 1.0)).all():
        raise ValueError("probabilities lie from 0 to 1")
    if bins < 1:
        raise ValueError(f"bins must be at least 1, given {bins}")
    places = np.minimum((values * bins).astype(np.intp), bins - 1)
    return tuple(
        ReliabilityBin(
            low=int(place) / bins,
            high=(int(place) + 1) / bins,
            foretold=float(values[places == place].mean()),
            found=float(truth[places == place].mean()),
            count=int((places == place).sum()),
        )
        for place in np.unique(places)
    )


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, *, bins: int = 15) -> float:
    """Gives how far probabilities are off, on average over bins of equal width (Guo et al. 2017, equation 3).

    Args:
        probabilities: What was foretold, each 0 to 1, ``[pairs]``.
        labels: Whether it came true, ``[pairs]``.
        bins: How many bins 0 to 1 is divided into.

    Raises:
        ValueError: As `reliability_bins`.
    """
    found = reliability_bins(probabilities, labels, bins=bins)
    total = sum(one.count for one in found)
    return sum(one.count / total * abs(one.found - one.foretold) for one in found)


def _negative_log_likelihood(logits: _Floats, targets: _Floats) -> float:
    """Mean over pairs, stable for logits of any size."""
    return float((np.logaddexp(0.0, logits) - targets * logits).mean())


def _checked(values: ArrayLike, labels: ArrayLike, *, both: bool = False) -> tuple[_Floats, _Floats]:
    """Values and labels as arrays of one length.

    Raises:
        ValueError: They are not, or ``both`` kinds of label are needed and one is missing.
    """
    numbers, truth = np.asarray(values, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if numbers.ndim != 1 or numbers.shape != truth.shape or not numbers.size:
        raise ValueError(
            f"each of at least one pair has a value and a label; given shapes {numbers.shape} and {truth.shape}"
        )
    if not np.isfinite(numbers).all():
        raise ValueError("a value is not a finite number")
    if not np.isin(truth, (0.0, 1.0)).all():
        raise ValueError("labels are true or false, 1 or 0")
    if both and truth.min() == truth.max():
        raise ValueError("pairs in scope and pairs out of scope are needed, and only one kind is there")
    return numbers, truth
