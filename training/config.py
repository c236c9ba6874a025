"""Settings of training as TOML: nested frozen dataclasses, whose fields all have a default and an explanation.

A table of TOML stands for a nested dataclass. What a file does not name keeps the default, which for a nested table is
that of the dataclass it stands in. The explanations are the ``Attributes`` of the dataclass's docstring. TOML has no
word for "none": a value that is not set is a key that is not there.

Fields are strings, booleans, numbers, a choice of strings (`Literal`), tuples of one of these, or None besides. This
file knows nothing of what any setting means.
"""

from __future__ import annotations

import difflib
import inspect
import json
import re
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from memedit import ranges
from training.errors import TrainingConfigError

__all__ = ["check_range", "read_settings", "settings_json", "settings_toml"]

Settings = TypeVar("Settings")

_TYPE_NAMES = {str: "a string", bool: "true or false", int: "a whole number", float: "a number"}
_WIDTH = 100
_ENTRY = re.compile(r" {4}(\w+): (.*)")


def read_settings(
    schema: type[Settings],
    file: Path | None = None,
    *,
    overrides: Mapping[str, Any] = MappingProxyType({}),
) -> Settings:
    """Reads a TOML file over a dataclass's defaults, and a caller's own values over both.

    Args:
        schema: The dataclass; it can be made without arguments.
        file: The file; None for the defaults.
        overrides: Values by key, that of a nested table with dots ("loop.seed"). None: leave the key as it is.

    Returns:
        The settings.

    Raises:
        TrainingConfigError: The file cannot be read or is not TOML, a key is unknown, a value of the wrong type or out
            of range; says which, and what would do.
    """
    settings = schema()
    if file is not None:
        settings = _laid_over(settings, _parse(file), where=str(file), prefix="")
    given: dict[str, Any] = {}
    for key, value in overrides.items():
        if value is not None:
            *tables, last = key.split(".")
            table = given
            for name in tables:
                table = table.setdefault(name, {})
            table[last] = value
    laid: Settings = _laid_over(settings, given, where="the values given", prefix="")
    return laid


def settings_toml(settings: Any) -> str:
    """Settings as commented TOML, every key with its value; `read_settings` reads it back.

    Args:
        settings: An instance of a dataclass whose docstring tells of its fields.
    """
    return "\n".join(_toml_lines(settings, prefix="")).strip() + "\n"


def settings_json(settings: Any) -> dict[str, Any]:
    """Settings as nested JSON objects, to be compared and kept with results.

    Args:
        settings: An instance of a dataclass of which only JSON's own values and tuples are fields.
    """
    whole: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return whole


check_range = partial(ranges.check_range, error=TrainingConfigError)
"""As `memedit.ranges.check_range`; raises TrainingConfigError."""


def _parse(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise TrainingConfigError(
            f"The configuration file {file} cannot be read: {error.strerror or error}."
        ) from error
    except UnicodeDecodeError as error:
        raise TrainingConfigError(f"{file} is not UTF-8 text (byte {error.start}).") from error
    except tomllib.TOMLDecodeError as error:
        raise TrainingConfigError(f"{file} is not valid TOML: {error}.") from error


def _laid_over(settings: Any, table: Mapping[str, Any], *, where: str, prefix: str) -> Any:
    """The settings with the values of a table, which is checked against their fields."""
    hints = get_type_hints(type(settings))
    known = [one.name for one in fields(settings)]
    values = {}
    for key, value in table.items():
        if key not in known:
            raise TrainingConfigError(f"{where}: unknown key '{prefix}{key}'. {_nearest(key, known)}")
        now = getattr(settings, key)
        if not is_dataclass(now):
            values[key] = _read_value(hints[key], value, where=where, key=prefix + key)
        elif isinstance(value, Mapping):
            values[key] = _laid_over(now, value, where=where, prefix=f"{prefix}{key}.")
        else:
            raise TrainingConfigError(f"{where}: '{prefix}{key}' must be a table ([{prefix}{key}]), not {value!r}.")
    try:
        return replace(settings, **values)
    except ValueError as error:  # every ConfigError is one
        place = f"{where}, [{prefix.rstrip('.')}]" if prefix else where
        raise TrainingConfigError(f"{place}: {error}") from error


def _read_value(hint: Any, value: Any, *, where: str, key: str) -> Any:
    kind = _without_none(hint)
    if get_origin(kind) is Literal:
        if value in get_args(kind):
            return value
        raise TrainingConfigError(f"{where}: '{key}' must be one of {_choices(kind)}, not {value!r}.")
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise TrainingConfigError(f"{where}: '{key}' must be a list, not {value!r}.")
        return tuple(_read_value(get_args(kind)[0], one, where=where, key=key) for one in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TrainingConfigError(f"{where}: '{key}' must be {_TYPE_NAMES[kind]}, not {value!r}.")
    return value


def _without_none(hint: Any) -> Any:
    """The type itself of one that may be None besides."""
    if get_origin(hint) not in (Union, UnionType):
        return hint
    (kind,) = (one for one in get_args(hint) if one is not NoneType)
    return kind


def _choices(kind: Any) -> str:
    return ", ".join(json.dumps(choice) for choice in get_args(kind))


def _nearest(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"Did you mean '{near[0]}'?" if near else f"Known keys: {', '.join(known)}."


def _toml_lines(settings: Any, *, prefix: str) -> Iterator[str]:
    """A table's own keys, then the tables in it, as TOML has it."""
    told = _told_of_fields(type(settings))
    hints = get_type_hints(type(settings))
    tables = [one.name for one in fields(settings) if is_dataclass(getattr(settings, one.name))]
    for name in (one.name for one in fields(settings) if one.name not in tables):
        value, kind = getattr(settings, name), _without_none(hints[name])
        yield from _comment(f"{told[name]} One of {_choices(kind)}." if get_origin(kind) is Literal else told[name])
        yield f"# {name} = (not set)" if value is None else f"{name} = {_toml_value(value)}"
        yield ""
    for name in tables:
        yield from _comment(told[name])
        yield f"[{prefix}{name}]"
        yield from _toml_lines(getattr(settings, name), prefix=f"{prefix}{name}.")


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ")


def _toml_value(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml_value, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _told_of_fields(schema: type) -> dict[str, str]:
    """What a dataclass's docstring says of each field.

    Raises:
        TypeError: It says nothing of one: the dataclass is unfinished.
    """
    told: dict[str, str] = {}
    name = ""
    for line in (inspect.getdoc(schema) or "").partition("Attributes:\n")[2].splitlines():
        if entry := _ENTRY.fullmatch(line):
            name = entry[1]
            told[name] = entry[2]
        elif line.startswith(" ") and name:
            told[name] += f" {line.strip()}"
        elif line:
            break
    missing = [one.name for one in fields(schema) if one.name not in told]
    if missing:
        raise TypeError(f"the docstring of {schema.__name__} says nothing of {', '.join(missing)}")
    return {field: text.replace("`", "") for field, text in told.items()}
