"""AlphaEdit: MEMIT whose changes are projected onto what the model's usual keys leave free.

The method is that of Fang et al. 2025, *AlphaEdit: Null-Space Constrained Knowledge Editing for Language Models*. The
directions in which C = E[k k^T] is next to nothing form the null space of preserved knowledge; P projects onto it. A
change Δ P moves no preserved key, so nothing needs to be traded against them, and keys of earlier edits, K_p, are kept
as well as the new ones:

    Δ P = R K^T P (K_p K_p^T P + K K^T P + λ I)^-1.

Values are fitted and spread over layers as MEMIT does it. The paper calls eigenvalues of C below 0.01 zero, for models
of one size; here the limit is a share of the mean eigenvalue, so that it means the same in another model.

This file knows nothing of benchmarks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from memedit.architectures import ARCHITECTURES
from memedit.editors.chosen import chosen_values
from memedit.editors.editor import MethodInfo
from memedit.editors.located import LocatedFact
from memedit.editors.spread import SpreadConfig, SpreadingEditor
from memedit.editors.subject import Subject
from memedit.errors import ConfigError
from memedit.ranges import check_fields

if TYPE_CHECKING:
    import torch

__all__ = [
    "INFO",
    "SEARCH",
    "AlphaEditConfig",
    "AlphaEditor",
    "create",
    "default_config",
    "null_space",
    "null_space_update",
]

INFO = MethodInfo(
    name="alphaedit",
    title="Editing in the null space of preserved knowledge",
    group="editing intrinsic knowledge",
    changes="weights",
    paper="Fang et al. 2025, AlphaEdit: Null-Space Constrained Knowledge Editing for Language Models",
    summary="As MEMIT, with changes projected so that the keys of ordinary text are not moved.",
    models=", ".join(family.title for family in ARCHITECTURES.values()),
)

SEARCH: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {"layers": ((0.1, 0.17), (0.14, 0.28)), "threshold": (0.2, 0.5)}
)
"""What ``memedit tune`` tries (`memedit.evaluation.tuning`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlphaEditConfig(SpreadConfig):
    """How AlphaEdit edits.

    Attributes:
        threshold: Directions count as free whose eigenvalue of C is below this share of the mean one.
        regularisation: λ, which keeps changes small.
    """

    threshold: float
    regularisation: float

    def __post_init__(self) -> None:
        SpreadConfig.__post_init__(self)
        check_fields(self, "threshold", "regularisation", above=0)
        if self.statistics == "identity":
            raise ConfigError(
                "AlphaEdit needs to know which keys are in use; statistics cannot be 'identity'. Give a text file, or "
                "'made-up' for text that the model makes up."
            )


class AlphaEditor(SpreadingEditor):
    """AlphaEdit on one model, whose weights it changes in place.

    Attributes:
        config: How it edits.

    Args:
        subject: The model, unedited.
        config: How to edit; by default as the table has it.

    Raises:
        UnsupportedCallError: The model's architecture is not supported, or a weight cannot be changed.
        ConfigError: The model has no such layer, or no chat template where one is asked for.
        DataFileError: The text of the statistics cannot be read.
    """

    def __init__(self, subject: Subject, config: AlphaEditConfig | None = None) -> None:
        self.config = config if config is not None else default_config(subject.model)
        super().__init__(subject, self.config, info=INFO)
        self._free: dict[int, torch.Tensor] = {}
        self._earlier: dict[int, torch.Tensor] = {}
        self._new: dict[int, torch.Tensor] = {}

    def undo(self) -> None:
        """Copy back every weight as it was before the first edit, and forget the edits' keys."""
        super().undo()
        self._earlier.clear()

    def _changed(self, facts: Sequence[LocatedFact], moments: Mapping[int, torch.Tensor]) -> dict[str, torch.Tensor]:
        self._new.clear()
        return super()._changed(facts, moments)

    def _update(
        self, layer: int, keys: torch.Tensor, residuals: torch.Tensor, moment: torch.Tensor | None
    ) -> torch.Tensor:
        if layer not in self._free:
            if moment is None:
                raise ConfigError("AlphaEdit has no statistics.")
            self._free[layer] = null_space(moment.to(keys), threshold=self.config.threshold)
        together = keys @ keys.mT
        self._new[layer] = together
        if layer in self._earlier:
            together = together + self._earlier[layer]
        return null_space_update(
            keys, residuals, self._free[layer], together, regularisation=self.config.regularisation
        )

    def _written(self) -> int:
        more: int = sum(value.nbytes for layer, value in self._new.items() if layer not in self._earlier)
        for layer, value in self._new.items():
            self._earlier[layer] = self._earlier[layer] + value if layer in self._earlier else value
        self._new.clear()
        return more


def null_space(moment: torch.Tensor, *, threshold: float) -> torch.Tensor:
    """An orthonormal basis of the directions that keys hardly use.

    Args:
        moment: C, ``[k, k]``.
        threshold: Eigenvalues below this share of the mean one count as zero.

    Returns:
        U, ``[k, free directions]``; the projection is P = U U^T.

    Raises:
        ConfigError: No direction is free.
    """
    import torch

    values, vectors = torch.linalg.eigh(moment)
    free = values < threshold * values.mean()
    if not free.any():
        raise ConfigError(
            f"no direction of the keys has less than {threshold} of the mean power, so nothing may be changed; raise "
            "threshold"
        )
    basis: torch.Tensor = vectors[:, free]
    return basis


def null_space_update(
    keys: torch.Tensor, residuals: torch.Tensor, free: torch.Tensor, together: torch.Tensor, *, regularisation: float
) -> torch.Tensor:
    """R K^T P (A P + λ I)^-1, worked out inside the null space.

    With P = U U^T it is R (U^T K)^T (U^T A U + λ I)^-1 U^T: a smaller, symmetric system.

    Args:
        keys: K, one a column, ``[k, facts]``.
        residuals: R, one a column, ``[v, facts]``.
        free: U, ``[k, free directions]``.
        together: A = K K^T + K_p K_p^T, ``[k, k]``.
        regularisation: λ.

    Returns:
        ``[v, k]``.
    """
    import torch

    inside = free.mT @ together @ free + regularisation * torch.eye(free.shape[1], dtype=keys.dtype, device=keys.device)
    solved = torch.cholesky_solve(free.mT @ keys @ residuals.mT, torch.linalg.cholesky(inside))
    return (free @ solved).mT


def create(subject: Subject, config: AlphaEditConfig | None = None) -> AlphaEditor:
    """The method for a model."""
    return AlphaEditor(subject, config)


def default_config(model: Any) -> AlphaEditConfig:
    """How a model is edited where nobody says otherwise: its own entry of the table, or the nearest one's.

    Args:
        model: A model of a supported architecture.

    Raises:
        UnsupportedCallError: Its architecture is not supported.
    """
    return AlphaEditConfig(**chosen_values(model, "alphaedit"))
