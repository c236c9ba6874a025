"""Average effects over many facts, by what kind of token the part stands at.

Meng et al. 2022, section 2.2 and figure 2: the average total effect (ATE), and the average indirect effect (AIE) of
each layer at the first, the middle and the last token of the subject, at the first token behind it, at further ones,
and at the last token of the prompt. Each token is of one category; where it could be of two, the later name in this
order holds, but the subject's last token is never anything else. Where a prompt has several tokens of a category, it
counts with their mean. Intervals are 95% bootstrap intervals that draw whole facts.

This file knows traces; nothing of models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memedit.errors import ConfigError
from memedit.evaluation.statistics import bootstrap_interval
from memedit.locate.records import FactTrace

__all__ = ["CATEGORIES", "AverageEffect", "Averages", "Mean", "averages_of", "category_of"]

CATEGORIES = (
    "first subject token",
    "middle subject tokens",
    "last subject token",
    "first token after",
    "further tokens",
    "last token",
)
"""The categories of tokens, in the order of a prompt."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """A mean over facts.

    Attributes:
        value: The mean.
        low: The lower end of its interval; as the value where there are fewer than two facts.
        high: The upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AverageEffect:
    """The average indirect effects of one kind of restoration at one category of tokens.

    Attributes:
        kind: What is put back.
        window: In how many layers around each.
        category: At which tokens.
        facts: How many facts have such a token.
        layers: The mean for each layer.
    """

    kind: str
    window: int
    category: str
    facts: int
    layers: tuple[Mean, ...]

    def best(self) -> int:
        """The layer with the largest mean."""
        return max(range(len(self.layers)), key=lambda layer: self.layers[layer].value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Averages:
    """What tracing many facts comes to.

    Attributes:
        model: What the model is called.
        asked: How many facts the model was asked.
        known: How many of them it knows.
        facts: How many known ones were traced.
        samples: How many noise samples each.
        clean: The mean probability of the answer in the clean run.
        corrupted: In the corrupted runs.
        total_effect: The average total effect (ATE).
        effects: The average indirect effects (AIE), by kind and category.
    """

    model: str
    asked: int
    known: int
    facts: int
    samples: int
    clean: Mean
    corrupted: Mean
    total_effect: Mean
    effects: tuple[AverageEffect, ...]

    def effect(self, kind: str, category: str) -> AverageEffect:
        """The effects of one kind at one category.

        Raises:
            KeyError: There are none.
        """
        for effect in self.effects:
            if (effect.kind, effect.category) == (kind, category):
                return effect
        raise KeyError((kind, category))

    def traced_layer(self) -> int:
        """The layer around which MLPs put back at the subject's last token gain most: where ROME's authors edit.

        Raises:
            KeyError: MLPs were not traced.
        """
        return self.effect("mlp", "last subject token").best()

    def to_json(self) -> dict[str, Any]:
        """The record as JSON has it."""
        return asdict(self)

    @classmethod
    def from_json(cls, mapping: Mapping[str, Any]) -> Averages:
        """The record that `to_json` gave."""
        means = {name: Mean(**mapping[name]) for name in ("clean", "corrupted", "total_effect")}
        effects = tuple(
            AverageEffect(**{**one, "layers": tuple(Mean(**layer) for layer in one["layers"])})
            for one in mapping["effects"]
        )
        return cls(**{**mapping, **means, "effects": effects})


def category_of(token: int, trace: FactTrace) -> str | None:
    """The category of a token; None for one before the subject.

    Args:
        token: The token.
        trace: The trace whose prompt it is of.
    """
    start, end, last = trace.subject_start, trace.subject_end, len(trace.tokens) - 1
    if token < start:
        return None
    if token < end:
        inside = "first subject token" if token == start else "middle subject tokens"
        return "last subject token" if token == end - 1 else inside
    if token == last:
        return "last token"
    return "first token after" if token == end else "further tokens"


def averages_of(traces: Sequence[FactTrace], *, model: str, asked: int, known: int) -> Averages:
    """Average over facts.

    Args:
        traces: Their traces, of one model and with the same settings.
        model: What the model is called.
        asked: How many facts it was asked.
        known: How many of them it knows.

    Raises:
        ConfigError: There is no trace.
    """
    if not traces:
        raise ConfigError(
            f"the model knows none of the {asked:,} facts that it was asked; there is nothing to average."
        )
    effects = []
    for effect in traces[0].effects:
        grids = [(trace, np.array(trace.effect(effect.kind).indirect)) for trace in traces]
        for category in CATEGORIES:
            rows = [row for trace, grid in grids if (row := _row(trace, grid, category)) is not None]
            if rows:
                by_fact = np.stack(rows)
                effects.append(
                    AverageEffect(
                        kind=effect.kind,
                        window=effect.window,
                        category=category,
                        facts=len(rows),
                        layers=tuple(_mean(by_fact[:, layer]) for layer in range(by_fact.shape[1])),
                    )
                )
    return Averages(
        model=model,
        asked=asked,
        known=known,
        facts=len(traces),
        samples=len(traces[0].corrupted_runs),
        clean=_mean(np.array([trace.clean for trace in traces])),
        corrupted=_mean(np.array([trace.corrupted for trace in traces])),
        total_effect=_mean(np.array([trace.total_effect for trace in traces])),
        effects=tuple(effects),
    )


def _row(trace: FactTrace, grid: Floats, category: str) -> Floats | None:
    """A fact's mean over its tokens of a category, ``[layers]``; None where it has none."""
    tokens = [token for token in range(len(trace.tokens)) if category_of(token, trace) == category]
    mean: Floats | None = grid[tokens].mean(axis=0) if tokens else None
    return mean


def _mean(values: Floats) -> Mean:
    interval = bootstrap_interval(lambda drawn: drawn @ values / drawn.sum(axis=1), len(values))
    value = float(values.mean())
    return Mean(value=value, low=interval.low if interval else value, high=interval.high if interval else value)
