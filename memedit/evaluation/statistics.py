"""Ratios of sums over cases, how sure they are, and how sure the difference of two is.

Intervals are bootstrap percentile intervals (Efron and Tibshirani 1993, *An Introduction to the Bootstrap*, chapter 13)
that draw whole cases: the probes of a case stay together, and so does what one case came to under several seeds, since
neither are independent of each other. They say nothing of scores that are all alike, where both ends are the score.
This file knows nothing of probes, measures or methods.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "COVERAGE",
    "RESAMPLES",
    "Interval",
    "PairedDifference",
    "PerCase",
    "Tally",
    "area_under_roc",
    "bootstrap_interval",
    "paired_difference",
]

RESAMPLES = 2_000
"""How often the cases are drawn anew for an interval."""

COVERAGE = 0.95
"""Share of the resamples that lies within an interval."""

_SEED = 0
_BLOCK_VALUES = 2_000_000
"""Numbers that a statistic works on at a time, so that memory stays bounded."""

Floats = NDArray[np.float64]

Statistic = Callable[[Floats], Floats]
"""Takes how often each cluster was drawn in each resample, ``[resamples, clusters]``; returns ``[resamples]``."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a number lies.

    Attributes:
        low: The lower end.
        high: The upper end.
    """

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """What the second of two ratios has over the first, on the cases that both have.

    Attributes:
        value: Second less first.
        interval: Its interval; None where there are fewer than two cases.
        cases: On how many cases.
    """

    value: float
    interval: Interval | None
    cases: int


@dataclass(frozen=True, slots=True)
class PerCase:
    """The sums of a tally, case by case.

    Attributes:
        names: The cases, in order, ``[cases]``.
        amounts: Above the line, ``[cases]``.
        overs: Below it, ``[cases]``.
    """

    names: NDArray[np.str_]
    amounts: Floats
    overs: Floats


class Tally:
    """A ratio of sums that is gathered test by test: a mean where every test counts as one.

    Each test belongs to a case and a seed. The ratio is over all of them; a case under several seeds is one case.
    """

    def __init__(self) -> None:
        self._cases: list[str] = []
        self._seeds: list[int] = []
        self._amounts: list[float] = []
        self._overs: list[float] = []
        self._befores: list[float] = []

    def add(self, case: str, seed: int, amount: float, *, over: float = 1.0, before: float | None = None) -> None:
        """Count a test.

        Args:
            case: The case that it is part of.
            seed: The seed of the run that it is part of.
            amount: What it adds to the sum above the line.
            over: What it adds to the sum below the line, above 0.
            before: The amount of the unedited model; None where that has none.
        """
        self._cases.append(case)
        self._seeds.append(seed)
        self._amounts.append(amount)
        self._overs.append(over)
        if before is not None:
            self._befores.append(before)

    def __bool__(self) -> bool:
        return bool(self._amounts)

    @property
    def value(self) -> float:
        """The ratio; not a number where nothing was counted."""
        return _ratio(self._amounts, self._overs)

    @property
    def before(self) -> float | None:
        """The ratio of the unedited model; None unless every test has its amount."""
        return _ratio(self._befores, self._overs) if len(self._befores) == len(self._amounts) else None

    @property
    def by_seed(self) -> dict[int, float]:
        """The ratio for each seed, in order."""
        parts: dict[int, tuple[list[float], list[float]]] = {}
        for seed, amount, over in zip(self._seeds, self._amounts, self._overs, strict=True):
            amounts, overs = parts.setdefault(seed, ([], []))
            amounts.append(amount)
            overs.append(over)
        return {seed: _ratio(*parts[seed]) for seed in sorted(parts)}

    @property
    def cases(self) -> int:
        """How many cases were counted."""
        return len(set(self._cases))

    @property
    def count(self) -> int:
        """How many tests were counted."""
        return len(self._amounts)

    def interval(self) -> Interval | None:
        """The interval of the ratio; None where there are fewer than two cases, or an amount that is not finite."""
        per_case = self.per_case()
        amounts, overs = per_case.amounts, per_case.overs
        if not np.isfinite(amounts).all():
            return None
        return bootstrap_interval(lambda drawn: (drawn @ amounts) / (drawn @ overs), len(amounts))

    def per_case(self) -> PerCase:
        """The sums of each case."""
        names, place = np.unique(np.array(self._cases, dtype=np.str_), return_inverse=True)
        amounts, overs = np.zeros(len(names)), np.zeros(len(names))
        np.add.at(amounts, place, self._amounts)
        np.add.at(overs, place, self._overs)
        return PerCase(names, amounts, overs)


def bootstrap_interval(statistic: Statistic, clusters: int, *, width: int | None = None) -> Interval | None:
    """The percentile interval of a statistic when whole clusters are drawn with replacement.

    Resamples for which the statistic is not a number are left out. The draws are the same at every call with the same
    number of clusters.

    Args:
        statistic: What is worked out of each resample.
        clusters: How many clusters there are.
        width: How many numbers the statistic works on for each resample, where that is more than one a cluster.

    Returns:
        The interval; None where there are fewer than two clusters, or no resample has a value.
    """
    if clusters < 2:
        return None
    drawn = _times_drawn(clusters)
    rows = max(1, _BLOCK_VALUES // max(clusters, width or 0))
    values = np.concatenate(
        [statistic(drawn[start : start + rows].astype(np.float64)) for start in range(0, RESAMPLES, rows)]
    )
    values = values[~np.isnan(values)]
    if not values.size:
        return None
    low, high = np.quantile(values, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Interval(float(low), float(high))


def paired_difference(first: Tally, second: Tally) -> PairedDifference | None:
    """What the second ratio has over the first, on the cases that both have, drawn together.

    Returns:
        The difference; None where no case is in both, or an amount is not finite.
    """
    ours, theirs = first.per_case(), second.per_case()
    shared, here, there = np.intersect1d(ours.names, theirs.names, assume_unique=True, return_indices=True)
    amounts, overs = ours.amounts[here], ours.overs[here]
    others, other_overs = theirs.amounts[there], theirs.overs[there]
    if not shared.size or not (np.isfinite(amounts).all() and np.isfinite(others).all()):
        return None

    def difference(drawn: Floats) -> Floats:
        return (drawn @ others) / (drawn @ other_overs) - (drawn @ amounts) / (drawn @ overs)

    value = float(difference(np.ones((1, shared.size)))[0])
    return PairedDifference(value, bootstrap_interval(difference, shared.size), shared.size)


def area_under_roc(scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """The chance that a positive has a higher score than a negative, ties counting half (AUROC).

    Args:
        scores: ``[items]``.
        positive: ``[items]``.
        weights: How often each item counts, ``[resamples, items]``.

    Returns:
        ``[resamples]``; not a number where a resample has no positives or no negatives.
    """
    negatives = np.flatnonzero(~positive)
    negatives = negatives[np.argsort(scores[negatives], kind="stable")]
    positives = np.flatnonzero(positive)
    # weights of the negatives below each place, [places, resamples], so that a place is one run of memory
    below = np.zeros((negatives.size + 1, len(weights)))
    np.cumsum(weights.T[negatives], axis=0, out=below[1:])
    in_order = scores[negatives]
    won = below[np.searchsorted(in_order, scores[positives], side="left")]
    won += below[np.searchsorted(in_order, scores[positives], side="right")]
    up = weights.T[positives]
    pairs = up.sum(axis=0) * below[-1]
    halves = np.einsum("ij,ij->j", up, won)
    area: Floats = np.divide(halves / 2, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)
    return area


def _ratio(amounts: list[float], overs: list[float]) -> float:
    return sum(amounts) / sum(overs) if amounts else math.nan


@lru_cache(maxsize=8)
def _times_drawn(clusters: int) -> NDArray[np.uint16]:
    """How often each cluster is drawn in each resample, ``[resamples, clusters]``."""
    draws = np.random.default_rng(_SEED).multinomial(clusters, np.full(clusters, 1 / clusters), size=RESAMPLES)
    return draws.astype(np.uint16)
