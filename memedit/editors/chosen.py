"""Hyperparameters that were chosen for models: a table a method, ``data/<table>.toml``, looked up by family and size.

An entry of a table has ``name``, ``model_type``, ``layers`` and ``hidden_size`` of the model; ``values``, the fields of
the method's own config; and ``chosen``, for people: the figures by which the values were chosen. A model that has no
entry takes the values of the nearest one (of its own family if there is one, then of the most similar width, then of
the most similar depth), its layers at the same relative depth. They were not chosen for it.

This file knows nothing of any method: of the values it knows ``layer``, one, and ``layers``, a list.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any

from memedit.architectures import architecture_of

__all__ = ["chosen_values"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A model of a table, and what was chosen for it."""

    model_type: str
    layers: int
    hidden_size: int
    values: dict[str, Any]


def chosen_values(model: Any, table: str) -> dict[str, Any]:
    """What is known to serve a model, or the nearest one that is known.

    Args:
        model: A model of a supported architecture.
        table: The method's table: the name of its file, such as ``"ft_m"``.

    Returns:
        Fields of the method's config; ``layer`` and ``layers`` are those of this model.

    Raises:
        UnsupportedCallError: The model's architecture is not supported.
    """
    architecture = architecture_of(model)
    layers, width = architecture.layer_count(model), model.config.get_text_config().hidden_size

    def distance(entry: _Entry) -> tuple[bool, float, int]:
        return (
            entry.model_type != architecture.model_type,
            abs(math.log(width / entry.hidden_size)),
            abs(layers - entry.layers),
        )

    entry = min(_entries(table), key=distance)

    def here(layer: int) -> int:
        return round(layer / max(1, entry.layers - 1) * (layers - 1))

    values = dict(entry.values)
    if "layer" in values:
        values["layer"] = here(values["layer"])
    if "layers" in values:  # in a shallower model several may become one
        values["layers"] = tuple(dict.fromkeys(map(here, values["layers"])))
    return values


def _entries(table: str) -> list[_Entry]:
    source = resources.files("memedit").joinpath("data", f"{table}.toml").read_text(encoding="utf-8")
    named = ("model_type", "layers", "hidden_size", "values")
    return [_Entry(**{name: row[name] for name in named}) for row in tomllib.loads(source)["models"]]
