"""FT-M: fine-tune the output projection of one MLP layer on the new answers.

The method is FT-M of Zhang et al. 2024, *A Comprehensive Study of Knowledge Editing for Large Language Models*: Adam on
one layer's MLP output projection, by the cross-entropy of the target tokens alone, the prompt masked. For an edit with
prompt x and target y the loss is the mean of -log p(y_t | x, y_<t) over the target's tokens; for several edits, the
mean of theirs.

A model is trained on the prompt as it is asked, through the chat template wherever there is one
(`memedit.editors.examples`).

The change is computed on a copy of the one weight, in 32-bit precision, and written into the model at the end: the
model stays as it was until then, and if training fails. Nothing is drawn at random: the same edits give the same
weight.

Which layer, and how it is trained, is looked up in ``data/ft_m.toml`` (`memedit.editors.chosen`). For a model that is
not there these values were not chosen: pass a `FtConfig` of one's own to do better.

This file knows nothing of benchmarks or of other methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from memedit.architectures import ARCHITECTURES
from memedit.editors.chosen import chosen_values
from memedit.editors.descent import descend, mini_batches
from memedit.editors.editor import MethodInfo
from memedit.editors.examples import Example, ExampleMaker, frozen, target_loss
from memedit.editors.subject import Subject
from memedit.editors.trained import TrainedEditor
from memedit.editors.weights import output_projection
from memedit.frozen_layers import FrozenLayers
from memedit.ranges import check_fields

if TYPE_CHECKING:
    import torch

__all__ = [
    "INFO",
    "SEARCH",
    "Example",
    "ExampleMaker",
    "FtConfig",
    "FtEditor",
    "create",
    "default_config",
    "fine_tuned",
    "target_loss",
]

INFO = MethodInfo(
    name="ft-m",
    title="Fine-tuning one MLP layer, prompt masked",
    group="editing intrinsic knowledge",
    changes="weights",
    paper="Zhang et al. 2024, A Comprehensive Study of Knowledge Editing for Large Language Models",
    summary="Trains the output projection of one MLP layer until the model gives the new answers.",
    models=", ".join(family.title for family in ARCHITECTURES.values()),
)

SEARCH: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {"layer": (0.3, 0.5, 0.75), "learning_rate": (5e-4, 1e-3), "stop_loss": (0.5, 0.1)}
)
"""What ``memedit tune`` tries (`memedit.evaluation.tuning`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FtConfig:
    """How FT-M trains.

    Attributes:
        layer: The layer whose MLP output projection is trained, from 0.
        learning_rate: Adam's.
        steps: The most passes over the edits that are made together.
        stop_loss: A mini-batch whose loss (nats a target token) is below this is passed over; training ends when all
            are.
        batch_size: The most edits of a mini-batch.
        weight_decay: Adam's (added to the gradient).
        template: Whether edits are trained through the chat template; None for wherever the model has one.
    """

    layer: int
    learning_rate: float
    steps: int = 25
    stop_loss: float = 1e-2
    batch_size: int = 8
    weight_decay: float = 0.0
    template: bool | None = None

    def __post_init__(self) -> None:
        check_fields(self, "layer", least=0)
        check_fields(self, "steps", "batch_size", least=1)
        check_fields(self, "learning_rate", above=0)
        check_fields(self, "stop_loss", "weight_decay", least=0)


Loss = Callable[[Any, dict[str, "torch.Tensor"], Sequence[Example]], "torch.Tensor"]
"""A model, parameters in place of its own, and examples, to the loss of each: as `target_loss`."""

Constraint = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""The weight in training and as it was before, to what the weight may be."""


class FtEditor(TrainedEditor):
    """Fine-tuning of one weight of one model, in place: FT-M as it stands.

    Attributes:
        config: How it trains.
        parameter: The name of the one weight that it trains.

    Args:
        subject: The model.
        config: How to train; by default as the table has it.
        info: What the method is.
        ending: Whether the token that ends a turn is trained as part of the target.

    Raises:
        UnsupportedCallError: The model's architecture is not supported, or its weight cannot be changed.
        ConfigError: The model has no such layer, or no chat template where one is asked for.
    """

    def __init__(
        self, subject: Subject, config: FtConfig | None = None, *, info: MethodInfo = INFO, ending: bool = True
    ) -> None:
        self.config = config if config is not None else default_config(subject.model)
        self.parameter = output_projection(subject, self.config.layer).parameter
        super().__init__(subject, info, ExampleMaker(subject, template=self.config.template, ending=ending))

    def _trained(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """The one weight, trained."""
        model, layer = self.subject.model, self.config.layer
        return {self.parameter: fine_tuned(model, self.parameter, examples, self.config, frozen_below=layer)}


def create(subject: Subject, config: FtConfig | None = None) -> FtEditor:
    """The method for a model."""
    return FtEditor(subject, config)


def default_config(model: Any) -> FtConfig:
    """How a model is trained where nobody says otherwise: its own entry of the table, or the nearest one's.

    Args:
        model: A model of a supported architecture.

    Raises:
        UnsupportedCallError: Its architecture is not supported.
    """
    return FtConfig(**chosen_values(model, "ft_m"))


def fine_tuned(
    model: Any,
    name: str,
    examples: Sequence[Example],
    config: FtConfig,
    *,
    loss: Loss | None = None,
    constraint: Constraint | None = None,
    frozen_below: int = 0,
) -> torch.Tensor:
    """One weight, trained on some examples; the model itself is not changed.

    Args:
        model: The model, in evaluation mode.
        name: The weight's name.
        examples: What is to be learnt.
        config: How.
        loss: What is lowered; by default `target_loss`.
        constraint: What the weight is brought back to after each step; None for no constraint.
        frozen_below: The layer that has the weight; those below it are run once a mini-batch.

    Returns:
        The weight, in 32-bit precision or the model's own where that is higher.

    Raises:
        ConfigError: The loss or the weight is no longer finite.
    """
    import torch

    loss = target_loss if loss is None else loss
    fixed = frozen(model)
    before = fixed[name]
    dtype = before.dtype
    trained = before.to(torch.promote_types(dtype, torch.float32), copy=True).requires_grad_(True)

    layers = FrozenLayers(model, frozen_below)

    def loss_of(batch: Sequence[Example]) -> torch.Tensor:
        with layers.of(tuple(batch)):
            return loss(model, {**fixed, name: trained.to(dtype)}, batch).mean()

    def hold() -> None:
        if constraint is not None:
            with torch.no_grad():
                trained.copy_(constraint(trained, before))

    descend(
        torch.optim.Adam([trained], lr=config.learning_rate, weight_decay=config.weight_decay),
        mini_batches(examples, config.batch_size),
        loss_of,
        steps=config.steps,
        stop_loss=config.stop_loss,
        after_step=hold,
    )
    return trained.detach()
