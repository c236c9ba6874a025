"""Names in names: which hold which, word by word, and when the shorter may be of the same thing."""

from __future__ import annotations

import pytest

from training.names_in_names import called_for_short, names_in_names


def test_names_hold_others_word_by_word_and_are_held():
    found = names_in_names(["Wii", "Wii U", "Wiimote", "Egypt", "Bank of Egypt", "Bank of Egypt Tower"])
    assert {name: set(others) for name, others in found.items()} == {
        "Wii": {"Wii U"},
        "Wii U": {"Wii"},
        "Egypt": {"Bank of Egypt", "Bank of Egypt Tower"},
        "Bank of Egypt": {"Egypt", "Bank of Egypt Tower"},
        "Bank of Egypt Tower": {"Egypt", "Bank of Egypt"},
    }


def test_common_nouns_and_spellings_of_one_name_are_no_others():
    assert names_in_names(["film", "Victoria Film Festival", "Bern", "BERN"]) == {}


@pytest.mark.parametrize(
    ("longer", "shorter", "kinds", "expected"),
    [
        ("Paul McCandless", "Paul", ("politician", "person"), True),
        ("Erasmus Darwin", "Darwin", ("person",), True),
        ("George Washington Julian", "George Washington", ("person",), False),
        ("Tesco Ltd.", "Tesco", ("company", "organisation"), True),
        ("Google Calendar", "Google", ("software", "product"), False),
        ("Wii U", "Wii", ("product",), False),
    ],
)
def test_a_part_may_be_what_a_thing_is_called(longer: str, shorter: str, kinds: tuple[str, ...], expected: bool):
    assert called_for_short(longer, shorter, kinds) is expected
