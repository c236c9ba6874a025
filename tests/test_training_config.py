"""Settings of training as TOML: what is printed is read back, and what is wrong is told with its place."""

from __future__ import annotations

import importlib
import math
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_training import ToyDropout, ToySettings

from training.cli import TRAINABLE
from training.config import check_range, read_settings, settings_json, settings_toml
from training.errors import TrainingConfigError
from training.settings import LoopSettings


def written(folder: Path, text: str) -> Path:
    file = folder / "toy.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_without_a_file_the_defaults_hold() -> None:
    assert read_settings(ToySettings) == ToySettings()


def test_what_is_printed_holds_every_key_and_its_explanation() -> None:
    text = settings_toml(ToySettings())
    assert tomllib.loads(text)["loop"]["learning_rate"] == 0.02
    lines = text.splitlines()
    assert lines[:4] == [
        '# Where it starts; the toy has nothing shipped, so shipped is all zeros. One of "shipped",',
        '# "scratch".',
        'init = "scratch"',
        "",
    ]
    assert lines[lines.index('names = ["one", "two \\"quoted\\""]') - 1] == "# What is not used, told in two lines."
    assert lines[lines.index("[dropout]") - 1] == "# What is dropped."
    assert "# time_limit_minutes = (not set)" in lines
    assert max(map(len, lines)) <= 100


def test_what_is_printed_is_read_back(tmp_path: Path) -> None:
    assert read_settings(ToySettings, written(tmp_path, settings_toml(ToySettings()))) == ToySettings()


@given(
    names=st.lists(st.text(st.characters(exclude_categories=["Cs"]))),
    pause=st.floats(0, 1e9),
    rate=st.floats(1e-300, 1e300),
    limit=st.none() | st.floats(1e-9, 1e9),
    seed=st.integers(0, 2**62),
)
def test_any_settings_are_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    names: list[str],
    pause: float,
    rate: float,
    limit: float | None,
    seed: int,
) -> None:
    of = ToySettings(
        names=tuple(names), pause=pause, loop=LoopSettings(learning_rate=rate, time_limit_minutes=limit, seed=seed)
    )
    folder = tmp_path_factory.mktemp("any")
    read = read_settings(ToySettings, written(folder, settings_toml(of)))
    assert read == (of if limit is not None else replace(of, loop=replace(of.loop, time_limit_minutes=None)))


def test_a_nested_table_changes_what_it_names_and_no_more(tmp_path: Path) -> None:
    read = read_settings(ToySettings, written(tmp_path, "[loop]\npatience = 3\nweight_decay = 1"))
    assert read == replace(ToySettings(), loop=replace(ToySettings().loop, patience=3, weight_decay=1.0))
    assert isinstance(read.loop.weight_decay, float)
    assert read.loop.learning_rate == 0.02  # the toy's default, not the loop's own


def test_values_given_come_last_and_none_is_not_given(tmp_path: Path) -> None:
    file = written(tmp_path, 'init = "shipped"\n[loop]\nseed = 3\nsteps = 7')
    read = read_settings(ToySettings, file, overrides={"init": None, "loop.seed": 5, "dropout.inner": 0.5})
    assert (read.init, read.loop.seed, read.loop.steps, read.dropout) == ("shipped", 5, 7, ToyDropout(inner=0.5))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("widht = 3", ["unknown key 'widht'", "Did you mean 'width'?"]),
        ("zzz = 1", ["unknown key 'zzz'", "Known keys: init, width"]),
        ("[loop]\nlearning_rte = 3", ["'loop.learning_rte'", "Did you mean 'learning_rate'?"]),
        ('width = "3"', ["'width' must be a whole number, not '3'"]),
        ("width = 3.0", ["'width' must be a whole number, not 3.0"]),
        ("width = true", ["'width' must be a whole number, not True"]),
        ('pause = "x"', ["'pause' must be a number, not 'x'"]),
        ("pause = true", ["'pause' must be a number, not True"]),
        ('names = "one"', ["'names' must be a list, not 'one'"]),
        ('names = ["one", 2]', ["'names' must be a string, not 2"]),
        ("loop = 3", ["'loop' must be a table ([loop]), not 3"]),
        ('init = "elsewhere"', ["'init' must be one of \"shipped\", \"scratch\", not 'elsewhere'"]),
        ('[loop]\nschedule = "step"', ["'loop.schedule' must be one of"]),
        ("[loop]\ntime_limit_minutes = 0", ["[loop]: time_limit_minutes must be above 0, not 0.0"]),
        ("[loop]\nsteps = 0", ["[loop]: steps must be at least 1, not 0"]),
        ("[loop]\nwarmup = 1.5", ["warmup must be at least 0 and at most 1, not 1.5"]),
        ("[loop]\nlearning_rate = nan", ["learning_rate must be above 0, not nan"]),
        ('[loop]\ndevice = "tpu"', ["device must be", "'tpu'"]),
        ("[dropout]\ninner = 1", ["[dropout]: inner must be at least 0 and below 1, not 1.0"]),
        ("width = 0", ["toy.toml: width must be at least 1, not 0"]),
        ("width = ]", ["is not valid TOML", "line 1"]),
    ],
)
def test_a_wrong_file_is_told_with_its_name_and_key(tmp_path: Path, text: str, said: list[str]) -> None:
    file = written(tmp_path, text)
    with pytest.raises(TrainingConfigError) as caught:
        read_settings(ToySettings, file)
    for part in (str(file), *said):
        assert part in str(caught.value)


def test_a_value_that_is_given_is_checked_too() -> None:
    with pytest.raises(TrainingConfigError, match=r"the values given, \[loop\]: seed must not be negative, not -1"):
        read_settings(ToySettings, overrides={"loop.seed": -1})


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(TrainingConfigError, match=r"absent\.toml cannot be read: No such file"):
        read_settings(ToySettings, tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes('init = "caf\xe9"'.encode("latin-1"))
    with pytest.raises(TrainingConfigError, match=r"not UTF-8 text \(byte 11\)"):
        read_settings(ToySettings, tmp_path / "latin.toml")


def test_json_has_no_tuples_and_keeps_the_tables() -> None:
    whole = settings_json(ToySettings())
    assert whole["names"] == ["one", 'two "quoted"']
    assert whole["dropout"] == {"inner": 0.2}
    assert whole["loop"]["time_limit_minutes"] is None


@pytest.mark.parametrize(
    ("bounds", "inside", "outside"),
    [
        ({"least": 1}, [1, 2], [0.99, -math.inf]),
        ({"most": 1}, [1, -5], [1.01]),
        ({"above": 0}, [1e-9], [0, -1]),
        ({"below": 1}, [0.99], [1, 2]),
        ({}, [0], [math.nan, math.inf]),
    ],
)
def test_ranges(bounds: dict[str, Any], inside: list[float], outside: list[float]) -> None:
    for value in inside:
        check_range("x", value, **bounds)
    for value in outside:
        with pytest.raises(TrainingConfigError, match="x must be"):
            check_range("x", value, **bounds)


def test_a_field_without_a_word_is_a_mistake_of_whoever_wrote_it() -> None:
    @dataclass(frozen=True)
    class Half:
        """Two fields.

        Attributes:
            told: Is told of.

        Untold is not.
        """

        told: int = 1
        untold: int = 2

    with pytest.raises(TypeError, match="docstring of Half says nothing of untold"):
        settings_toml(Half())


@pytest.mark.parametrize("part", TRAINABLE, ids=lambda part: part.name)
def test_the_settings_that_are_shipped_are_printed_and_read_back(tmp_path: Path, part: Any) -> None:
    module, _, name = part.settings.partition(":")
    schema = getattr(importlib.import_module(module), name)
    assert read_settings(schema, written(tmp_path, settings_toml(schema()))) == schema()
    assert {"init", "loop"} <= set(settings_json(schema()))
