"""Bounds of numbers in settings, for their ``__post_init__``: one wording for every setting that is out of range."""

from __future__ import annotations

import math

from memedit.errors import ConfigError

__all__ = ["check_fields", "check_range"]


def check_range(
    name: str,
    value: float,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    error: type[ConfigError] = ConfigError,
) -> None:
    """Checks that a number lies within bounds, and is finite.

    Args:
        name: The setting's name.
        value: Its value.
        least: The least that is allowed.
        most: The most that is allowed.
        above: What it must be greater than.
        below: What it must be less than.
        error: What is raised.

    Raises:
        ConfigError: It does not, or is not finite.
    """
    bounds = (
        (f"at least {least}", least is None or value >= least),
        (f"above {above}", above is None or value > above),
        (f"at most {most}", most is None or value <= most),
        (f"below {below}", below is None or value < below),
    )
    if math.isfinite(value) and all(holds for _, holds in bounds):
        return
    asked = " and ".join(bound for bound, _ in bounds if not bound.endswith(" None")) or "a finite number"
    if asked == "at least 0":
        raise error(f"{name} must not be negative, not {value}.")
    raise error(f"{name} must be {asked}, not {value}.")


def check_fields(
    settings: object,
    *names: str,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> None:
    """As `check_range`, for some fields of a dataclass.

    Args:
        settings: The dataclass.
        *names: The fields.
        least: The least that is allowed.
        most: The most that is allowed.
        above: What they must be greater than.
        below: What they must be less than.

    Raises:
        ConfigError: One is out of bounds, or not finite.
    """
    for name in names:
        check_range(name, getattr(settings, name), least=least, most=most, above=above, below=below)
