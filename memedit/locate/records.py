"""What causal tracing finds for one fact, as records that go to JSON and back.

Probabilities are those of the answer. This file knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from memedit.errors import DataFileError

__all__ = ["Effect", "Fact", "FactTrace"]

Grid = tuple[tuple[float, ...], ...]
"""Numbers by token and layer, ``[tokens][layers]``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What a model may know.

    Attributes:
        prompt: The text that the answer continues.
        subject: What it is about, as it is spelt in the prompt.
        answer: What is expected; None for whatever the model itself says next.
    """

    prompt: str
    subject: str
    answer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """The indirect effects of one kind of restoration.

    Attributes:
        kind: What is put back: ``hidden``, ``mlp``, ``attention``, or a hidden state with one of these cut behind it.
        window: In how many layers around each it is put back.
        indirect: P*, clean h - P*: the probability with it put back less the corrupted one, the mean over the noise
            samples, ``[tokens][layers]``. 0 before the subject, where both runs are the same.
        errors: The standard error of that mean over the noise samples; the same shape.
    """

    kind: str
    window: int
    indirect: Grid
    errors: Grid

    def best(self) -> tuple[int, int]:
        """The token and the layer at which the effect is largest."""
        return max(
            ((token, layer) for token, row in enumerate(self.indirect) for layer in range(len(row))),
            key=lambda place: self.indirect[place[0]][place[1]],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FactTrace:
    """What causal tracing finds for one fact.

    Attributes:
        prompt: The prompt.
        subject: The subject.
        answer: The answer whose probability is measured, as it is tokenised.
        known: Whether the model itself says this answer, choosing the likeliest token each time.
        says: What the model itself says next: as many tokens as the answer has.
        tokens: The prompt's tokens, each as the characters that it stands for.
        subject_start: The subject's first token.
        subject_end: The place behind its last token.
        clean: P: the probability of the answer in the clean run.
        corrupted: P*: its mean over the corrupted runs.
        corrupted_runs: The probability in each corrupted run.
        effects: The indirect effects, one record a kind.
        deviation: The standard deviation of the noise.
        score: ``first`` where the answer's first token is measured, ``whole`` where all of them together are.
        layers: How many layers the model has.
        seconds: How long it took.
        notes: What a reader should know, such as that the subject stands in the prompt twice.
    """

    prompt: str
    subject: str
    answer: str
    known: bool
    says: str
    tokens: tuple[str, ...]
    subject_start: int
    subject_end: int
    clean: float
    corrupted: float
    corrupted_runs: tuple[float, ...]
    effects: tuple[Effect, ...]
    deviation: float
    score: str
    layers: int
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def total_effect(self) -> float:
        """P - P*: what corrupting the subject costs (section 2.1)."""
        return self.clean - self.corrupted

    def effect(self, kind: str) -> Effect:
        """The effects of one kind; of several windows the first.

        Raises:
            KeyError: It was not traced.
        """
        for effect in self.effects:
            if effect.kind == kind:
                return effect
        raise KeyError(kind)

    def to_json(self) -> dict[str, Any]:
        """The record as JSON has it."""
        return {**asdict(self), "total_effect": self.total_effect}

    @classmethod
    def from_json(cls, mapping: Mapping[str, Any]) -> FactTrace:
        """The record that `to_json` gave.

        Raises:
            DataFileError: It is not one; names the field.
        """
        try:
            given = {name: mapping[name] for name in cls.__slots__}
            effects = tuple(
                Effect(
                    kind=one["kind"], window=one["window"], indirect=_grid(one["indirect"]), errors=_grid(one["errors"])
                )
                for one in given["effects"]
            )
            tuples = {name: tuple(given[name]) for name in ("tokens", "corrupted_runs", "notes")}
        except KeyError as error:
            raise DataFileError(f"the trace has no field {error}; trace the fact again") from error
        except TypeError as error:
            raise DataFileError(f"this is not a trace: {error}") from error
        return cls(**{**given, **tuples, "effects": effects})


def _grid(rows: Any) -> Grid:
    return tuple(tuple(float(value) for value in row) for row in rows)
