"""MEMIT: write many facts at once into the MLPs of several layers.

The method is that of Meng et al. 2023, *Mass-Editing Memory in a Transformer*. For each fact a vector is fitted to the
residual stream behind the last of the layers R, at the subject's last token (eq. 16). Layer by layer, from the lowest,
a share of what is still missing is written into the MLP's output projection, by the change that stores the new keys K
with residuals R and keeps old ones (eq. 14):

    Δ = R K^T (λ C + K K^T)^-1, C = E[k k^T] over a text,

with the share 1 / (L - l + 1) for layer l of those up to L (eq. 20).

This file knows nothing of benchmarks or of other methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from memedit.architectures import ARCHITECTURES
from memedit.editors.chosen import chosen_values
from memedit.editors.editor import MethodInfo
from memedit.editors.spread import SpreadConfig, SpreadingEditor
from memedit.editors.subject import Subject
from memedit.errors import ConfigError
from memedit.ranges import check_fields

if TYPE_CHECKING:
    import torch

__all__ = ["INFO", "SEARCH", "MemitConfig", "MemitEditor", "create", "default_config", "least_squares_update"]

INFO = MethodInfo(
    name="memit",
    title="Mass-editing memory in a transformer",
    group="editing intrinsic knowledge",
    changes="weights",
    paper="Meng et al. 2023, Mass-Editing Memory in a Transformer",
    summary="Writes many facts at once into the MLPs of several layers, keeping what these map elsewhere.",
    models=", ".join(family.title for family in ARCHITECTURES.values()),
)

SEARCH: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {"layers": ((0.1, 0.17), (0.14, 0.28)), "covariance_weight": (10.0, 100.0)}
)
"""What ``memedit tune`` tries (`memedit.evaluation.tuning`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemitConfig(SpreadConfig):
    """How MEMIT edits.

    Attributes:
        covariance_weight: λ, how much old keys count against new ones (eq. 15).
    """

    covariance_weight: float

    def __post_init__(self) -> None:
        SpreadConfig.__post_init__(self)
        check_fields(self, "covariance_weight", above=0)


class MemitEditor(SpreadingEditor):
    """MEMIT on one model, whose weights it changes in place.

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

    def __init__(self, subject: Subject, config: MemitConfig | None = None, *, info: MethodInfo = INFO) -> None:
        self.config = config if config is not None else default_config(subject.model)
        super().__init__(subject, self.config, info=info)

    def _update(
        self,
        layer: int,  # noqa: ARG002 - the same in every layer
        keys: torch.Tensor,
        residuals: torch.Tensor,
        moment: torch.Tensor | None,
    ) -> torch.Tensor:
        return least_squares_update(keys, residuals, moment, weight=self.config.covariance_weight)


def least_squares_update(
    keys: torch.Tensor, residuals: torch.Tensor, moment: torch.Tensor | None, *, weight: float
) -> torch.Tensor:
    """Δ = R K^T (λ C + K K^T)^-1: what minimises λ tr(Δ C Δ^T) + |Δ K - R|^2 (Meng et al. 2023, eq. 14).

    Args:
        keys: K, one a column, ``[k, facts]``.
        residuals: R, one a column, ``[v, facts]``.
        moment: C, ``[k, k]``; None for the identity.
        weight: λ.

    Returns:
        ``[v, k]``.

    Raises:
        ConfigError: λ C + K K^T cannot be inverted.
    """
    import torch

    if moment is None:
        moment = torch.eye(len(keys), dtype=keys.dtype, device=keys.device)
    factor, failed = torch.linalg.cholesky_ex(weight * moment.to(keys) + keys @ keys.mT)
    if failed:
        raise ConfigError(
            "the statistics cover fewer directions than a key has; raise statistics_tokens (20 for each of the "
            f"{len(keys)} dimensions of a key are usual)"
        )
    return torch.cholesky_solve(keys @ residuals.mT, factor).mT


def create(subject: Subject, config: MemitConfig | None = None) -> MemitEditor:
    """The method for a model."""
    return MemitEditor(subject, config)


def default_config(model: Any) -> MemitConfig:
    """How a model is edited where nobody says otherwise: its own entry of the table, or the nearest one's.

    Args:
        model: A model of a supported architecture.

    Raises:
        UnsupportedCallError: Its architecture is not supported.
    """
    return MemitConfig(**chosen_values(model, "memit"))
