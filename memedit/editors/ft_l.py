"""FT-L: fine-tune one MLP layer under an L-infinity constraint, by what the prompt's last token predicts.

The constraint is that of Zhu et al. 2020, *Modifying Memories in Transformer Models*: the weight may differ from what
it was by at most epsilon in every entry, ||theta - theta_0||_inf <= epsilon. Meng et al. 2022, *Locating and Editing
Factual Associations in GPT*, apply it to one layer's MLP output projection as their baseline FT+L; Zhang et al. 2024,
*A Comprehensive Study of Knowledge Editing for Large Language Models*, call it FT-L and set FT-M against it.

The objective is Meng et al.'s, as their code has it: with the prompt alone in the model, the mean of -log p(y_t | x)
over the target's tokens, every one of them predicted at the prompt's last token. For a target of one token that is its
cross-entropy; for a longer one the best that can be reached is a distribution that is spread over all of its tokens, at
the first place, with nothing learnt of their order. So the loss does not fall below the logarithm of the number of
different tokens, and training ends where the passes are used up. The token that ends a turn is no part of the target
here: it would be taught as the first thing to say.

EasyEdit calls the same objective ``prompt_last``. Its hyperparameter files for FT-L mostly have ``norm_constraint:
false``, so that what it reports as FT-L is often the objective without the constraint that gives the method its name;
and it trains on bare text. Here the constraint always holds, in the model's own precision and without rounding across
the bound, around the weight as it was before the edits that are made together; several calls of `edit` can move it
further. A model is trained on the prompt as it is asked, through the chat template wherever there is one
(`memedit.editors.examples`), like FT-M, with which it shares the rest of its machinery.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from memedit.architectures import ARCHITECTURES
from memedit.editors.chosen import chosen_values
from memedit.editors.editor import MethodInfo
from memedit.editors.examples import Example
from memedit.editors.ft import FtConfig, FtEditor, fine_tuned
from memedit.editors.subject import Subject
from memedit.passes import logits_of
from memedit.ranges import check_fields

if TYPE_CHECKING:
    import torch

__all__ = ["INFO", "SEARCH", "FtLConfig", "FtLEditor", "create", "default_config", "last_token_loss", "within"]

INFO = MethodInfo(
    name="ft-l",
    title="Fine-tuning one MLP layer, constrained, by the prompt's last token",
    group="editing intrinsic knowledge",
    changes="weights",
    paper="Meng et al. 2022, Locating and Editing Factual Associations in GPT; Zhu et al. 2020, Modifying Memories in "
    "Transformer Models",
    summary="Trains the output projection of one MLP layer, no entry of which may move further than a bound.",
    models=", ".join(family.title for family in ARCHITECTURES.values()),
)

SEARCH: Mapping[str, tuple[float, ...]] = MappingProxyType({"layer": (0.3, 0.5), "norm_constraint": (2e-3, 5e-3, 1e-2)})
"""What ``memedit tune`` tries (`memedit.evaluation.tuning`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FtLConfig(FtConfig):
    """How FT-L trains: as `FtConfig`, and how far.

    Attributes:
        norm_constraint: The bound epsilon on the change of each entry of the weight.
    """

    norm_constraint: float = 5e-4

    def __post_init__(self) -> None:
        FtConfig.__post_init__(self)
        check_fields(self, "norm_constraint", above=0)


class FtLEditor(FtEditor):
    """FT-L on one model, whose weight it changes in place.

    Attributes:
        config: How it trains.

    Args:
        subject: The model.
        config: How to train; by default as the table has it.

    Raises:
        UnsupportedCallError: The model's architecture is not supported, or its weight cannot be changed.
        ConfigError: The model has no such layer, or no chat template where one is asked for.
    """

    config: FtLConfig

    def __init__(self, subject: Subject, config: FtLConfig | None = None) -> None:
        config = config if config is not None else default_config(subject.model)
        super().__init__(subject, config, info=INFO, ending=False)

    def _trained(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """The one weight, trained, inside the bound also in the model's own precision."""
        model, bound = self.subject.model, self.config.norm_constraint
        before = model.get_parameter(self.parameter).detach()
        trained = fine_tuned(
            model,
            self.parameter,
            examples,
            self.config,
            loss=last_token_loss,
            constraint=partial(within, bound=bound),
            frozen_below=self.config.layer,
        )
        return {self.parameter: within(trained.to(before.dtype), before, bound=bound)}


def create(subject: Subject, config: FtLConfig | None = None) -> FtLEditor:
    """The method for a model."""
    return FtLEditor(subject, config)


def default_config(model: Any) -> FtLConfig:
    """How a model is trained where nobody says otherwise: its own entry of the table, or the nearest one's.

    Args:
        model: A model of a supported architecture.

    Raises:
        UnsupportedCallError: Its architecture is not supported.
    """
    return FtLConfig(**chosen_values(model, "ft_l"))


def last_token_loss(model: Any, parameters: dict[str, torch.Tensor], examples: Sequence[Example]) -> torch.Tensor:
    """How far what follows each prompt is from being any of its target's tokens.

    Args:
        model: The model; its own parameters are not read.
        parameters: The parameters in their place, by name.
        examples: What is to be said.

    Returns:
        For each example the mean of -log p over its target's tokens, all of them predicted at the prompt's last token,
        in nats, ``[examples]``.
    """
    import torch

    logits = logits_of(model, [example.prompt for example in examples], keep=1, parameters=parameters)[:, -1]
    logs = torch.log_softmax(logits.float(), dim=-1)
    return torch.stack([-row[list(example.target)].mean() for row, example in zip(logs, examples, strict=True)])


def within(weight: torch.Tensor, before: torch.Tensor, *, bound: float) -> torch.Tensor:
    """The nearest weight of which no entry is further than a bound from what it was.

    Args:
        weight: The weight as training has it.
        before: As it was, of the same shape.
        bound: How far an entry may be, epsilon.

    Returns:
        The weight in its own type. The bound holds exactly: where adding it to an entry rounds across it, the next
        number on the near side is taken.
    """
    import torch

    base = before.double()
    held = torch.clamp(weight.double(), base - bound, base + bound).to(weight.dtype)
    across = (held.double() - base).abs() > bound
    return torch.where(across, torch.nextafter(held, before.to(weight.dtype)), held)
