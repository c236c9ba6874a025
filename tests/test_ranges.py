"""Bounds of settings: what is refused, and in which words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest

from memedit.errors import ConfigError
from memedit.ranges import check_fields, check_range


@pytest.mark.parametrize(
    ("bounds", "value", "said"),
    [
        ({"least": 1}, 0, "x must be at least 1, not 0."),
        ({"least": 0}, -2, "x must not be negative, not -2."),
        ({"above": 0, "most": 1}, 0.0, "x must be above 0 and at most 1, not 0.0."),
        ({"above": 0, "below": 1}, 1, "x must be above 0 and below 1, not 1."),
        ({"above": 0}, math.inf, "x must be above 0, not inf."),
        ({"least": 0}, math.nan, "x must not be negative, not nan."),
        ({}, math.nan, "x must be a finite number, not nan."),
    ],
)
def test_what_is_out_of_range_is_said(bounds: dict[str, Any], value: float, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_range("x", value, **bounds)
    assert str(caught.value) == said


@pytest.mark.parametrize("value", [0.1, 1])
def test_what_is_in_range_passes(value: float) -> None:
    check_range("x", value, above=0, most=1)


def test_of_several_fields_the_one_that_is_wrong_is_named() -> None:
    @dataclass(frozen=True)
    class Settings:
        steps: int = 3
        rank: int = 0

        def __post_init__(self) -> None:
            check_fields(self, "steps", "rank", least=1)

    with pytest.raises(ConfigError, match="rank must be at least 1, not 0"):
        Settings()
    assert Settings(rank=1).rank == 1
