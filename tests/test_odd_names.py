"""Made-up names: the same for a seed, hardly ever alike, and in many scripts."""

from __future__ import annotations

import random
import unicodedata

from training.odd_names import odd_name

NAMES = tuple(
    f"{first} {last}" for first in ("Lyon", "Ada", "Oslo", "Kurt") for last in ("Hansen", "Bay", "Hill", "Noether")
)


def drawn(seed: int, count: int = 600) -> list[str]:
    rng = random.Random(seed)
    return [odd_name(rng, NAMES) for _ in range(count)]


def test_a_seed_names_them():
    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_they_are_tidy_and_hardly_ever_alike():
    made = drawn(3)
    assert all(name and name == " ".join(name.split()) for name in made)
    assert "{" not in "".join(made)
    assert len(set(made)) > 0.9 * len(made)


def test_they_are_in_many_scripts_and_hold_what_is_hard_to_copy():
    text = "".join(drawn(4))
    scripts = {unicodedata.name(letter).split()[0] for letter in text if letter.isalpha()}
    assert {"LATIN", "CYRILLIC", "GREEK", "ARABIC", "HEBREW", "HANGUL", "CJK", "DEVANAGARI", "HIRAGANA"} <= scripts
    assert all(mark in text for mark in "–'().&\"/")
