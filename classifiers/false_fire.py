"""A threshold that keeps false fires rare, chosen from unlabelled traffic with a stated confidence.

An edit fires for a prompt where its probability reaches the threshold. What counts for one prompt is the *maximum* of
the probabilities of all edits in the memory: if that stays under the threshold, none fires. Let ``R(t)`` be the rate of
prompts whose maximum is ``t`` or more. Given the maxima of ``n`` prompts of ordinary traffic, `choose_threshold` gives
a ``t`` with

    P(R(t) <= max_false_fire) >= confidence,

the probability being over the draw of those ``n`` prompts. It holds for every distribution of maxima and every ``n``,
under one assumption: the prompts are independent draws of the traffic for which the threshold is then used. It is said
of the memory as it is. Prompts among them that an edit governs rightly make it only stricter.

Hypotheses ``R(t) > max_false_fire`` are tested one after the other from the strictest threshold down, each with the
exact binomial p-value, until the first that cannot be rejected (Angelopoulos et al. 2021, Learn then Test:
fixed-sequence testing). With a rate that only falls as the threshold rises, that is also the upper confidence bound of
Bates et al. 2021, Distribution-Free, Risk-Controlling Prediction Sets, and Wilks's tolerance limit of 1941. Between two
neighbouring maxima no count changes, so it comes to this: `allowed_fires` prompts may fire, and the threshold lies just
above the maximum of the next one. The plain quantile of the maxima would exceed the rate in about half of all draws.

A memory grows, and each edit brings false fires of its own: `rate_with_room` and `grown_rate` say what that means for
the rate. This file knows nothing of edits, prompts or where a threshold is kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "ThresholdChoice",
    "allowed_fires",
    "choose_threshold",
    "grown_rate",
    "prompts_needed",
    "rate_bound",
    "rate_with_room",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdChoice:
    """What a threshold was chosen from, and what came of it.

    Attributes:
        threshold: The probability from which on an edit may govern; None where no threshold keeps the promise.
        prompts: How many prompts there were.
        allowed: How many of them may fire for the rate to be shown; None where there are too few prompts for any.
        fires: How many of them fire at the threshold; all of those with a maximum of 1, where there is no threshold.
    """

    threshold: float | None
    prompts: int
    allowed: int | None
    fires: int


def choose_threshold(
    maxima: ArrayLike, *, max_false_fire: float, confidence: float, least: float = 0.0
) -> ThresholdChoice:
    """Chooses the lowest threshold of which the prompts show that few others fire.

    Args:
        maxima: For each prompt the greatest probability of any edit, 0 where no edit was read; ``[prompts]``.
        max_false_fire: The rate that is to be kept, between 0 and 1.
        confidence: With what confidence, between 0 and 1.
        least: The threshold is not set lower than this.

    Returns:
        The choice. It has no threshold where there are too few prompts (`prompts_needed` says how many would do), or
        where more prompts than allowed have a maximum of 1.

    Raises:
        ValueError: A rate, the confidence or a maximum is out of range.
    """
    _check_share("max_false_fire", max_false_fire)
    _check_share("confidence", confidence)
    values = np.asarray(maxima, dtype=np.float64)
    if values.ndim != 1 or not ((values >= 0.0) & (values <= 1.0)).all():
        raise ValueError(f"maxima are probabilities, 0 to 1, one a prompt; given an array of shape {values.shape}")
    allowed = allowed_fires(len(values), max_false_fire=max_false_fire, confidence=confidence)
    threshold = None if allowed is None else _lowest_threshold(values, allowed, least)
    at = 1.0 if threshold is None else threshold
    return ThresholdChoice(threshold=threshold, prompts=len(values), allowed=allowed, fires=int((values >= at).sum()))


def _lowest_threshold(maxima: NDArray[np.float64], allowed: int, least: float) -> float | None:
    """The lowest threshold, ``least`` or more, that at most ``allowed`` maxima reach; None where that is over 1."""
    if allowed >= len(maxima):
        return least
    next_highest = np.partition(maxima, len(maxima) - 1 - allowed)[len(maxima) - 1 - allowed]
    # in single precision, in which classifiers give probabilities: a larger step than rounding on another machine
    above = float(np.nextafter(np.float32(next_highest), np.float32(2.0)))
    return None if above > 1.0 else max(above, least)


def allowed_fires(prompts: int, *, max_false_fire: float, confidence: float) -> int | None:
    """Gives the largest number of fires among so many prompts that still shows the rate to be kept.

    The largest ``k`` with ``P(Binomial(prompts, max_false_fire) <= k) <= 1 - confidence``.

    Args:
        prompts: How many prompts there are.
        max_false_fire: The rate that is to be shown, between 0 and 1.
        confidence: With what confidence, between 0 and 1.

    Returns:
        The number; None where even no fire at all would not show it.
    """
    from scipy.special import bdtr

    risk = 1.0 - confidence
    if prompts < 1 or bdtr(0, prompts, max_false_fire) > risk:
        return None
    fewest, most = 0, prompts  # P(<= prompts) is 1, more than any risk
    while most - fewest > 1:
        middle = (fewest + most) // 2
        if bdtr(middle, prompts, max_false_fire) <= risk:
            fewest = middle
        else:
            most = middle
    return fewest


def rate_bound(fires: int, prompts: int, *, confidence: float) -> float:
    """Gives the upper confidence bound of a rate (Clopper and Pearson 1934, one-sided).

    Args:
        fires: How many prompts fired, at a threshold that was fixed beforehand.
        prompts: Of how many.
        confidence: With what confidence the rate is under the bound, between 0 and 1.

    Raises:
        ValueError: There are no prompts, or more fires than prompts.
    """
    from scipy.special import betaincinv

    if not 0 <= fires <= prompts or prompts < 1:
        raise ValueError(f"fires are counted among at least one prompt; given {fires} of {prompts}")
    return 1.0 if fires == prompts else float(betaincinv(fires + 1, prompts - fires, confidence))


def prompts_needed(*, max_false_fire: float, confidence: float) -> int:
    """Gives the fewest prompts that show a rate to be kept, if none of them fires.

    Args:
        max_false_fire: The rate, between 0 and 1.
        confidence: With what confidence, between 0 and 1.

    Raises:
        ValueError: The rate or the confidence is out of range.
    """
    _check_share("max_false_fire", max_false_fire)
    _check_share("confidence", confidence)
    needed = math.ceil(math.log1p(-confidence) / math.log1p(-max_false_fire))
    # rounding may put an exact tie on the wrong side
    return needed if allowed_fires(needed, max_false_fire=max_false_fire, confidence=confidence) == 0 else needed + 1


def rate_with_room(max_false_fire: float, *, edits: int, room_for: int) -> float:
    """Gives the rate to be shown now, so that a memory grown to ``room_for`` edits keeps ``max_false_fire``.

    A prompt fires where any edit does. If later edits are like the present ones (exchangeable with them), an edit that
    fires in the grown memory is among the first ``edits`` with a chance of ``edits / room_for``, so the expected rate
    grows at most in proportion to the number of edits: the union bound. It is a statement on the average over which
    edits come; edits of another kind void it.

    Args:
        max_false_fire: The rate that is to be kept until then.
        edits: How many edits there are.
        room_for: How many there may be.

    Raises:
        ValueError: There are no edits, or less room than edits.
    """
    if edits < 1 or room_for < edits:
        raise ValueError(f"there must be an edit, and room for those there are; given {edits} and {room_for}")
    # in this order: times a share of at most 1, so that rounding never makes it more
    return max_false_fire * (edits / room_for)


def grown_rate(rate: float, *, edits: int, grown_to: int) -> float:
    """Gives what a rate of false fires may come to when a memory grows; the inverse of `rate_with_room`.

    Args:
        rate: The rate with ``edits`` edits.
        edits: How many there were; at least 1.
        grown_to: How many there are. Fewer do not fire more often.
    """
    return min(1.0, rate * max(1.0, grown_to / edits))


def _check_share(name: str, value: float) -> None:
    if not 0.0 < value < 1.0:
        raise ValueError(f"{name} lies between 0 and 1, both excluded; given {value!r}")
