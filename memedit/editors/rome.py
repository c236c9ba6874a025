"""ROME: write one fact into one MLP layer by a rank-one change of its output projection.

The method is that of Meng et al. 2022, *Locating and Editing Factual Associations in GPT*. A layer's MLP is read as a
memory: its output projection W maps a key k, which tells what the subject is, to a value v, which tells what is known
of it. For an edit

- the key k* is the mean over contexts of what goes into W at the subject's last token (eq. 3);
- the value v* is fitted so that the model says the target (eq. 4, `memedit.editors.target_values`);
- W becomes the matrix nearest to it, over the keys of a text, that maps k* to v* (eq. 2):
  W + Λ (C^-1 k*)^T with Λ = (v* - W k*) / ((C^-1 k*)^T k*), where C = E[k k^T].

The authors' own code, by which all published figures were made, mixes two keys in this formula: k* in the direction
C^-1 k*, but the key of the bare prompt wherever else it stands. Gupta et al. 2024, *Rebuilding ROME*, found this to be
what makes a model collapse after one edit or another. ``rome`` is here as published, mixed; ``r-rome`` (`r_rome`) is
the formula as the paper has it. With no contexts they are the same.

A subject's key is another one inside a chat template than in plain text. Where an edit is worded both ways, each
wording has keys of its own, and the change is the least one that serves both: eq. 2 with a column for each, of rank
two.

Several edits are made one after the other, each on the weights that the one before left. Nothing is drawn at random
except the contexts and, where no text is given, the text of the statistics: both by seeds of their own.

This file knows nothing of benchmarks or of other methods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from memedit.architectures import ARCHITECTURES
from memedit.editors.activations import activations
from memedit.editors.chosen import chosen_values
from memedit.editors.editor import MethodInfo
from memedit.editors.locate_then_edit import LocateThenEdit
from memedit.editors.located import LocateConfig, LocatedFact
from memedit.editors.subject import Subject
from memedit.editors.target_values import target_values
from memedit.errors import ConfigError
from memedit.ranges import check_fields

if TYPE_CHECKING:
    import torch

__all__ = ["INFO", "SEARCH", "RomeConfig", "RomeEditor", "create", "default_config", "direction_of", "least_update"]

INFO = MethodInfo(
    name="rome",
    title="Rank-one model editing",
    group="editing intrinsic knowledge",
    changes="weights",
    paper="Meng et al. 2022, Locating and Editing Factual Associations in GPT",
    summary="Writes a fact into one MLP layer by a rank-one change, as the authors' code does.",
    batch=False,
    models=", ".join(family.title for family in ARCHITECTURES.values()),
)

SEARCH: Mapping[str, tuple[float, ...]] = MappingProxyType({"layer": (0.17, 0.28), "learning_rate": (1.0, 2.0)})
"""What ``memedit tune`` tries (`memedit.evaluation.tuning`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RomeConfig(LocateConfig):
    """How ROME edits.

    Attributes:
        layer: The layer whose MLP output projection is changed, from 0.
        ridge: This share of C's mean diagonal is added to its diagonal.
        mixed_keys: Whether the bare prompt's key stands in the formula beside k*, as in the authors' code.
    """

    layer: int
    ridge: float = 0.0
    mixed_keys: bool = True

    def __post_init__(self) -> None:
        LocateConfig.__post_init__(self)
        check_fields(self, "ridge", least=0)


class RomeEditor(LocateThenEdit):
    """ROME on one model, whose weight it changes in place. Several edits are made one after the other.

    Attributes:
        config: How it edits.

    Args:
        subject: The model, unedited.
        config: How to edit; by default as the table has it.
        info: What it is called; a variant says so.

    Raises:
        UnsupportedCallError: The model's architecture is not supported, or its weight cannot be changed.
        ConfigError: The model has no such layer, or no chat template where one is asked for.
        DataFileError: The text of the statistics cannot be read.
    """

    def __init__(self, subject: Subject, config: RomeConfig | None = None, *, info: MethodInfo = INFO) -> None:
        self.config = config if config is not None else default_config(subject.model)
        super().__init__(subject, self.config, info=info, layers=[self.config.layer])

    def _changed(self, facts: Sequence[LocatedFact], moments: Mapping[int, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The weight with the facts in it; ``moments`` is empty where C is the identity."""
        (projection,) = self.projections
        weight = self.subject.model.get_parameter(projection.parameter).detach().clone()
        for fact in facts:
            weight += projection.turned(self._change(fact, weight, moments.get(projection.layer))).to(weight.dtype)
        return {projection.parameter: weight}

    def _change(self, fact: LocatedFact, weight: torch.Tensor, moment: torch.Tensor | None) -> torch.Tensor:
        """The change for one fact, ``[output, input]``, 64-bit."""
        import torch

        (projection,) = self.projections
        parameters = {projection.parameter: weight}
        value = target_values(
            self.subject.model,
            [fact],
            self.config,
            layer=projection.layer,
            modules=[projection.module],
            parameters=parameters,
        )[0]
        key_side, value_side = (projection.module, False), (projection.module, True)
        read = activations(
            self.subject.model,
            [row.prompt for row in fact.rows],
            [row.place for row in fact.rows],
            [key_side, value_side],
            parameters=parameters,
        )
        keys, values = read[key_side].double(), read[value_side].double()
        lift = value.double() - values[0]
        chosen, residuals, directions = [], [], []
        for rows in fact.by_wording():
            mean = keys[rows].mean(dim=0)
            chosen.append(keys[rows][0] if self.config.mixed_keys else mean)
            now = values[rows][0] if self.config.mixed_keys else values[rows].mean(dim=0)
            residuals.append(values[rows][0] + lift - now)
            directions.append(direction_of(mean, moment, ridge=self.config.ridge))
        stacked = (torch.stack(columns, dim=1) for columns in (chosen, residuals, directions))
        return least_update(*stacked)


def direction_of(key: torch.Tensor, moment: torch.Tensor | None, *, ridge: float = 0.0) -> torch.Tensor:
    """C^-1 k, along which a weight is changed.

    Args:
        key: k, ``[k]``.
        moment: C, ``[k, k]``; None for the identity.
        ridge: This share of C's mean diagonal is added to its diagonal.

    Returns:
        ``[k]``; its length means nothing.

    Raises:
        ConfigError: C cannot be inverted: it was taken over too few tokens.
    """
    import torch

    if moment is None:
        return key
    moment = moment.to(key)
    damped = moment + ridge * moment.diagonal().mean() * torch.eye(len(moment), dtype=key.dtype, device=key.device)
    factor, failed = torch.linalg.cholesky_ex(damped)
    if failed:
        raise ConfigError(
            "the statistics cover fewer directions than a key has; raise statistics_tokens (20 for each of the "
            f"{len(moment)} dimensions of a key are usual), or set a ridge such as 1e-3"
        )
    return torch.cholesky_solve(key[:, None], factor)[:, 0]


def least_update(keys: torch.Tensor, residuals: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """R (U^T K)^-1 U^T: the change along U = C^-1 K that adds residuals to what keys are mapped to.

    With one key it is the rank-one change Λ u^T of Meng et al. 2022, eq. 2.

    Args:
        keys: K, one a column, ``[k, keys]``.
        residuals: R, what their values lack, v* - W k, ``[v, keys]``.
        directions: U, ``[k, keys]``.

    Returns:
        The change of W, ``[v, k]``. With U = C^-1 K it is the one of least size, measured by C.
    """
    import torch

    inverse: torch.Tensor = torch.linalg.pinv(directions.mT @ keys)
    return residuals @ inverse @ directions.mT


def create(subject: Subject, config: RomeConfig | None = None) -> RomeEditor:
    """The method for a model."""
    return RomeEditor(subject, config)


def default_config(model: Any) -> RomeConfig:
    """How a model is edited where nobody says otherwise: its own entry of the table, or the nearest one's.

    Args:
        model: A model of a supported architecture.

    Raises:
        UnsupportedCallError: Its architecture is not supported.
    """
    return RomeConfig(**chosen_values(model, "rome"))
