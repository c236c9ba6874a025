"""The promise on false fires: exact counts, the promise over many draws of traffic, and what fails without the care."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom

from classifiers.false_fire import (
    allowed_fires,
    choose_threshold,
    grown_rate,
    prompts_needed,
    rate_bound,
    rate_with_room,
)

RATE, CONFIDENCE, DRAWS = 0.05, 0.9, 2_000
"""In the simulations: what is promised, and in how many draws of traffic."""

shares = st.floats(0.001, 0.5)
confidences = st.floats(0.5, 0.999)


def most_failures(draws: int = DRAWS) -> int:
    """More draws than this in which a promise of CONFIDENCE fails are no accident: one in a million."""
    return int(binom.ppf(1 - 1e-6, draws, 1 - CONFIDENCE))


# -- exact values ------------------------------------------------------------------------------------------------------


@given(st.integers(1, 3_000), shares, confidences)
@settings(max_examples=150, deadline=None)
def test_as_many_fires_are_allowed_as_the_binomial_distribution_says(n: int, rate: float, confidence: float) -> None:
    found = allowed_fires(n, max_false_fire=rate, confidence=confidence)
    allowed = -1 if found is None else found
    # exact ties may fall on either side by rounding
    assert binom.cdf(allowed, n, rate) <= (1 - confidence) * (1 + 1e-9)
    assert binom.cdf(allowed + 1, n, rate) > (1 - confidence) * (1 - 1e-9)


def test_allowed_fires_by_exact_fractions() -> None:
    n, rate, risk = 100, Fraction(1, 20), Fraction(1, 20)

    def cumulative(k: int) -> Fraction:
        return sum((comb(n, i) * rate**i * (1 - rate) ** (n - i) for i in range(k + 1)), Fraction())

    k = allowed_fires(n, max_false_fire=0.05, confidence=0.95)
    assert k == 1
    assert cumulative(k) <= risk < cumulative(k + 1)


@given(st.integers(1, 2_000), st.data(), confidences)
@settings(max_examples=100, deadline=None)
def test_the_bound_of_a_rate_is_that_of_clopper_and_pearson(n: int, data: st.DataObject, confidence: float) -> None:
    k = data.draw(st.integers(0, n))
    bound = rate_bound(k, n, confidence=confidence)
    assert bound == pytest.approx(1.0 if k == n else beta.ppf(confidence, k + 1, n - k), rel=1e-9)
    if k < n:
        assert binom.cdf(k, n, bound) == pytest.approx(1 - confidence, rel=1e-6)


def test_no_fire_bounds_the_rate_by_one_power() -> None:
    assert rate_bound(0, 299, confidence=0.95) == pytest.approx(1 - 0.05 ** (1 / 299), rel=1e-12)


@pytest.mark.parametrize(
    ("rate", "confidence", "needed"), [(0.01, 0.95, 299), (0.05, 0.95, 59), (0.005, 0.95, 598), (0.001, 0.99, 4603)]
)
def test_the_fewest_prompts_are_just_enough(rate: float, confidence: float, needed: int) -> None:
    assert prompts_needed(max_false_fire=rate, confidence=confidence) == needed
    assert allowed_fires(needed, max_false_fire=rate, confidence=confidence) == 0
    assert allowed_fires(needed - 1, max_false_fire=rate, confidence=confidence) is None


@given(shares, confidences)
def test_with_the_prompts_that_are_needed_there_is_a_threshold(rate: float, confidence: float) -> None:
    needed = prompts_needed(max_false_fire=rate, confidence=confidence)
    choice = choose_threshold([0.25] * needed, max_false_fire=rate, confidence=confidence)
    assert choice.threshold is not None
    assert rate_bound(0, needed, confidence=confidence) <= rate * (1 + 1e-9)


# -- the threshold -----------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1, width=32), max_size=300), st.floats(0.01, 0.5), confidences, st.floats(0, 0.9))
@settings(max_examples=200, deadline=None)
def test_the_threshold_is_the_lowest_that_lets_the_allowed_number_fire(
    maxima: list[float], rate: float, confidence: float, least: float
) -> None:
    choice = choose_threshold(maxima, max_false_fire=rate, confidence=confidence, least=least)
    assert choice.prompts == len(maxima)
    assert choice.allowed == allowed_fires(len(maxima), max_false_fire=rate, confidence=confidence)
    if choice.allowed is None:
        assert choice.threshold is None
        return
    if choice.threshold is None:
        assert choice.fires == sum(value == 1.0 for value in maxima) > choice.allowed
        return
    assert least <= choice.threshold <= 1
    assert choice.fires == sum(value >= choice.threshold for value in maxima) <= choice.allowed
    lower = [value for value in maxima if least <= value < choice.threshold]
    if lower:  # the next maximum below would let too many fire
        assert sum(value >= max(lower) for value in maxima) > choice.allowed


def test_the_threshold_lies_just_above_the_first_prompt_that_may_not_fire() -> None:
    maxima = np.linspace(0.001, 0.999, 999)
    choice = choose_threshold(maxima, max_false_fire=0.1, confidence=0.9)
    assert choice.allowed is not None
    next_highest = maxima[len(maxima) - 1 - choice.allowed]
    assert choice.fires == choice.allowed
    assert next_highest < choice.threshold < next_highest + 1e-6


def test_nothing_is_set_lower_than_the_classifiers_own_threshold() -> None:
    choice = choose_threshold([0.1] * 1_000, max_false_fire=0.01, confidence=0.95, least=0.5)
    assert (choice.threshold, choice.fires) == (0.5, 0)


def test_too_many_certain_prompts_leave_no_threshold() -> None:
    choice = choose_threshold([1.0] * 20 + [0.0] * 980, max_false_fire=0.01, confidence=0.95)
    assert (choice.threshold, choice.allowed, choice.fires) == (None, 4, 20)


@pytest.mark.parametrize(
    ("maxima", "rate", "confidence", "said"),
    [
        ([0.5], 0.0, 0.9, "max_false_fire lies between 0 and 1"),
        ([0.5], 1.0, 0.9, "max_false_fire lies between 0 and 1"),
        ([0.5], 0.1, 1.0, "confidence lies between 0 and 1"),
        ([1.5], 0.1, 0.9, "maxima are probabilities"),
        ([float("nan")], 0.1, 0.9, "maxima are probabilities"),
        ([[0.5]], 0.1, 0.9, "maxima are probabilities"),
    ],
)
def test_what_is_out_of_range_is_refused(maxima: list[float], rate: float, confidence: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        choose_threshold(maxima, max_false_fire=rate, confidence=confidence)


def test_counts_and_room_that_make_no_sense_are_refused() -> None:
    for fires, prompts in ((2, 1), (-1, 1), (0, 0)):
        with pytest.raises(ValueError, match="fires are counted"):
            rate_bound(fires, prompts, confidence=0.9)
    for edits, room in ((0, 1), (5, 4)):
        with pytest.raises(ValueError, match="room for those there are"):
            rate_with_room(0.1, edits=edits, room_for=room)


# -- the promise, over many draws --------------------------------------------------------------------------------------


def continuous(generator: np.random.Generator, n: int) -> np.ndarray:
    """Maxima with a long upper tail: of the traffic, a share 1 - t fires at t."""
    return generator.random(n)


def rate_of_continuous(threshold: float) -> float:
    return 1 - threshold


_STEPS = np.array([0.0, 0.2, 0.6, 0.9, 1.0])
_CHANCES = np.array([0.6, 0.3, 0.06, 0.03, 0.01])


def lumpy(generator: np.random.Generator, n: int) -> np.ndarray:
    """Maxima of few values, as an isotonic calibration gives them: most thresholds lie between two."""
    return generator.choice(_STEPS, size=n, p=_CHANCES)


def rate_of_lumpy(threshold: float) -> float:
    return float(_CHANCES[threshold <= _STEPS].sum())


TRAFFIC = [(continuous, rate_of_continuous), (lumpy, rate_of_lumpy)]


@pytest.mark.parametrize(("draw", "rate_of"), TRAFFIC, ids=["continuous", "lumpy"])
@pytest.mark.parametrize("prompts", [45, 200, 1_000])
def test_the_promise_holds_in_as_many_draws_as_it_says(draw, rate_of, prompts: int) -> None:
    generator = np.random.default_rng(prompts)
    failures = 0
    for _ in range(DRAWS):
        choice = choose_threshold(draw(generator, prompts), max_false_fire=RATE, confidence=CONFIDENCE)
        failures += choice.threshold is not None and rate_of(choice.threshold) > RATE
    assert failures <= most_failures()


def test_the_promise_is_not_stricter_than_need_be() -> None:
    """In continuous traffic it fails as often as it may: nearly the whole risk is used."""
    generator = np.random.default_rng(7)
    failures = 0
    for _ in range(DRAWS):
        choice = choose_threshold(generator.random(1_000), max_false_fire=RATE, confidence=CONFIDENCE)
        assert choice.threshold is not None
        failures += 1 - choice.threshold > RATE
    expected = binom.cdf(choice.allowed, 1_000, RATE)
    assert failures / DRAWS == pytest.approx(expected, abs=0.025)
    assert expected > 0.8 * (1 - CONFIDENCE)


@pytest.mark.parametrize(("draw", "rate_of"), TRAFFIC[:1], ids=["continuous"])
@pytest.mark.parametrize("prompts", [45, 200, 1_000])
def test_the_plain_quantile_would_fail(draw, rate_of, prompts: int) -> None:
    generator = np.random.default_rng(prompts)
    failures = sum(rate_of(float(np.quantile(draw(generator, prompts), 1 - RATE))) > RATE for _ in range(DRAWS))
    assert failures > 3 * most_failures()


def test_the_maximum_over_all_edits_is_what_counts() -> None:
    """Calibrated on one edit a prompt, a memory of ten exceeds the rate nearly always."""
    generator = np.random.default_rng(3)
    failures = {"one": 0, "all": 0}
    for _ in range(500):
        of_edits = generator.random((500, 10))
        for name, maxima in (("one", of_edits[:, 0]), ("all", of_edits.max(axis=1))):
            choice = choose_threshold(maxima, max_false_fire=RATE, confidence=CONFIDENCE)
            assert choice.threshold is not None
            failures[name] += 1 - choice.threshold**10 > RATE
    assert failures["all"] <= most_failures(500)
    assert failures["one"] > 490


# -- the growing memory ------------------------------------------------------------------------------------------------


class Edits:
    """Edits of unlike reach: edit ``j`` has a probability of ``t`` or more for a share ``reach[j] * (1 - t)``."""

    def __init__(self, generator: np.random.Generator, count: int) -> None:
        self.reach = generator.gamma(2.0, 0.01, size=count).clip(max=1.0)
        self._generator = generator

    def maxima(self, prompts: int) -> np.ndarray:
        """The greatest probability of any edit for each of so many prompts."""
        fires = self._generator.random((prompts, len(self.reach))) < self.reach
        probabilities: np.ndarray = np.where(fires, self._generator.random(fires.shape), 0.0)
        return np.asarray(probabilities.max(axis=1))

    def rate(self, threshold: float) -> float:
        """The share of all prompts for which one of the edits fires."""
        return float(1 - np.prod(1 - self.reach * (1 - threshold)))


@pytest.mark.parametrize("corrected", [True, False])
def test_a_grown_memory_keeps_the_promise_only_with_room(corrected: bool) -> None:
    generator = np.random.default_rng(11)
    draws, edits, room = 400, 60, 240
    rate = rate_with_room(RATE, edits=edits, room_for=room) if corrected else RATE
    failures = 0
    for _ in range(draws):
        grown = Edits(generator, room)
        now = Edits(generator, 0)
        now.reach = grown.reach[:edits]
        choice = choose_threshold(now.maxima(800), max_false_fire=rate, confidence=CONFIDENCE)
        assert choice.threshold is not None
        failures += grown.rate(choice.threshold) > RATE
    if corrected:
        assert failures <= most_failures(draws)
    else:
        assert failures > 0.9 * draws


@given(st.integers(1, 10_000), st.integers(0, 10_000), shares)
def test_the_growth_of_a_rate_and_the_room_for_it_are_inverse(edits: int, more: int, rate: float) -> None:
    room = edits + more
    now = rate_with_room(rate, edits=edits, room_for=room)
    assert now <= rate
    assert grown_rate(now, edits=edits, grown_to=room) == pytest.approx(rate)
    assert grown_rate(rate, edits=room, grown_to=edits) == rate
    assert grown_rate(1.0, edits=edits, grown_to=room) == 1.0


def test_the_union_bound_holds_on_average_over_which_edits_come_first() -> None:
    """The rate of all edits is at most M/N times the mean rate of N of them, whichever way the edits differ."""
    generator = np.random.default_rng(5)
    fires = generator.random((200, 12)) < np.array([0.6, 0.3, *[0.02] * 10])
    whole = fires.any(axis=1).mean()
    orders = [generator.permutation(12) for _ in range(4_000)]
    for first in (1, 3, 6):
        part = np.mean([fires[:, order[:first]].any(axis=1).mean() for order in orders])
        assert whole <= 1.01 * grown_rate(float(part), edits=first, grown_to=12)
