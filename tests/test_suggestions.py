"""What is said of a name that is none."""

from __future__ import annotations

import pytest

from memedit.suggestions import nearest, suggestion

KNOWN = ("reliability", "locality", "portability")


@pytest.mark.parametrize(
    ("given", "meant"), [("localty", "locality"), ("realiability", "reliability"), ("zzz", None), ("", None), (7, None)]
)
def test_the_nearest_name_is_the_one_that_was_meant(given: object, meant: str | None) -> None:
    assert nearest(given, KNOWN) == meant


def test_a_likely_name_is_suggested() -> None:
    assert suggestion("portabilty", KNOWN) == "Did you mean 'portability'?"
    assert suggestion("portabilty", dict.fromkeys(KNOWN)) == "Did you mean 'portability'?"
    assert suggestion("portabilty", iter(KNOWN)) == "Did you mean 'portability'?"


def test_all_names_are_listed_where_none_is_likely() -> None:
    assert suggestion("zzz", KNOWN) == "Known: reliability, locality, portability."
    assert suggestion("zzz", iter(KNOWN), listing="There are") == "There are reliability, locality, portability."
