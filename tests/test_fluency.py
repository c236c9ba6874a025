"""N-gram entropy against numpy, against values worked out by hand, and what it is meant to tell apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memedit.evaluation.fluency import ngram_entropy, words_of


def independent(tokens: list[str]) -> float:
    """The formula as its authors compute it, with numpy over arrays of n-grams."""
    entropies = []
    for size, weight in ((2, 2 / 3), (3, 4 / 3)):
        ngrams = np.lib.stride_tricks.sliding_window_view(np.unique(tokens, return_inverse=True)[1], size)
        _, counts = np.unique(ngrams, axis=0, return_counts=True)
        shares = counts / counts.sum()
        entropies.append(weight * -(shares * np.log2(shares)).sum())
    return float(np.mean(entropies))


@given(st.lists(st.sampled_from("abcd"), min_size=3, max_size=60))
def test_equals_an_independent_computation(tokens: list[str]) -> None:
    assert ngram_entropy(tokens) == pytest.approx(independent(tokens), abs=1e-12)
    assert ngram_entropy(" ".join(tokens)) == ngram_entropy(tokens)


def test_values_by_hand() -> None:
    # four different bigrams (2 bits), three different trigrams (log2 3 bits)
    assert ngram_entropy("one two three four five") == pytest.approx((2 / 3 * 2 + 4 / 3 * math.log2(3)) / 2)
    assert ngram_entropy("no no no no no no") == 0


def test_repetition_is_less_than_speech_of_the_same_length() -> None:
    speech = ngram_entropy("The headquarters of Acme Rockets is in Lisbon, where it moved in 1998.")
    parrot = ngram_entropy("Lisbon Lisbon Lisbon is in Lisbon Lisbon Lisbon is in Lisbon Lisbon Lisbon is")
    assert speech is not None
    assert parrot is not None
    assert parrot < speech - 1


@pytest.mark.parametrize("short", ["", " \n", "Lisbon", "in Lisbon", "Lisbon."])
def test_too_short_to_say(short: str) -> None:
    assert ngram_entropy(short) is None
    assert ngram_entropy(words_of(short)) is None


def test_words() -> None:
    assert words_of("Don't say “no”: it’s 3.5%!") == [
        *("Don't", "say", "“", "no", "”", ":", "it’s", "3", ".", "5", "%", "!"),
    ]


def test_tokens_of_any_kind() -> None:
    assert ngram_entropy([7, 8, 9, 7, 8, 9]) == ngram_entropy("a b c a b c")
