"""WISE: a side memory beside one MLP layer, which answers where it and the layer's own weights part far enough.

Wang et al. 2024, *WISE: Rethinking the Knowledge Memory for Lifelong Model Editing of Large Language Models*, section
2.3. W_v is a layer's MLP output projection, A(x) what it reads, and the side memory W_v' a copy of it that is edited.

**Routing.** The activation is Delta(x) = ||A(x) (W_v' - W_v)||_2. The side memory answers where it is above epsilon,
the main memory, bit for bit, where it is not. With an edit x_e and texts x_i that are none of its business, W_v' learns
the edit (the cross-entropy of its target) together with

    L_a = max(0, Delta(x_i) - alpha) + max(0, beta - Delta(x_e)) + max(0, gamma - (Delta(x_e) - Delta(x_i))),

and epsilon is the smallest Delta over the edits so far, times a ratio (0.88 in the authors' code).

**Sharding and merging.** Edits come one after the other. So many at a time share a shard: a change of W_v inside a
random subspace, a mask that lets through a share rho of the entries. The side memory is W_v + Ties(all shards); the
authors' other variant, which keeps several side memories and retrieves one of them, is not here.

Where this goes its own way:

- **Each position is routed for itself**, by its own A(x), so that a row gives the same with others beside it, with
  padding before it, with a key-value cache, and with its answer given. The authors' code averages Delta over the tokens
  of one prompt at a time. So here Delta(x_e) is taken where the answer is predicted (from the prompt's last token on),
  the hinges are averaged over the positions that violate them, and the third one compares the smallest Delta(x_e) with
  the largest Delta(x_i). The positions of x_i are those of 48 ordinary prompts (`ordinary_inputs`), and the rest of the
  edit's own prompt: with a chat template they begin with the very tokens that all prompts begin with.
- Adam takes the steps, as for every other trained method here; the authors take SGD. alpha, beta and gamma depend on
  how large a model's activations are, and are chosen for it.
- A model is trained on the prompt as it is asked, through the chat template wherever there is one
  (`memedit.editors.examples`).

This file knows nothing of benchmarks or of other methods.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from memedit.architectures import ARCHITECTURES, architecture_of
from memedit.editors.activations import inputs_of
from memedit.editors.attached import AttachedEditor
from memedit.editors.chosen import chosen_values
from memedit.editors.descent import descend
from memedit.editors.editor import MethodInfo
from memedit.editors.examples import Example, frozen, target_loss
from memedit.editors.subject import Subject
from memedit.editors.weights import checked_layer, widths_of
from memedit.errors import ConfigError
from memedit.frozen_layers import FrozenLayers
from memedit.ranges import check_fields

if TYPE_CHECKING:
    import torch

    from memedit.editors.side_memory import SideMemory

__all__ = ["INFO", "SEARCH", "WiseConfig", "WiseEditor", "create", "default_config", "margin_loss"]

INFO = MethodInfo(
    name="wise",
    title="WISE, a side memory beside an MLP layer",
    group="merging knowledge into the model",
    changes="weights",
    paper="Wang et al. 2024, WISE: Rethinking the Knowledge Memory for Lifelong Model Editing of Large Language Models",
    summary="Edits a copy of one weight, and answers with it where the two part far enough.",
    batch=False,
    models=", ".join(family.title for family in ARCHITECTURES.values()),
)

SEARCH: Mapping[str, tuple[float, ...]] = MappingProxyType({"layer": (0.6, 0.9), "learning_rate": (1e-2, 3e-2)})
"""What ``memedit tune`` tries (`memedit.evaluation.tuning`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WiseConfig:
    """Where the side memory stands, and how it is trained.

    Attributes:
        layer: The layer beside whose MLP output projection it stands, from 0.
        learning_rate: Adam's.
        alpha: What the activation of other texts is to stay below.
        beta: What that of an edit is to rise above; more than alpha.
        gamma: By how much the two are to part.
        rho: The share of entries that a shard may change.
        shard_edits: How many edits share a shard.
        density: The share of a shard's entries that merging keeps.
        threshold_ratio: epsilon as a share of the smallest activation over the edits.
        steps: The most steps for an edit.
        stop_loss: Training ends where the whole loss is below this.
        seed: What draws the masks.
        template: Whether edits are trained through the chat template; None for wherever the model has one.
    """

    layer: int
    learning_rate: float
    alpha: float
    beta: float
    gamma: float
    rho: float = 0.2
    shard_edits: int = 20
    density: float = 0.53
    threshold_ratio: float = 0.88
    steps: int = 70
    stop_loss: float = 1e-2
    seed: int = 0
    template: bool | None = None

    def __post_init__(self) -> None:
        check_fields(self, "layer", least=0)
        check_fields(self, "shard_edits", "steps", least=1)
        check_fields(self, "learning_rate", above=0)
        if not (0 <= self.alpha < self.beta < math.inf and self.gamma >= 0):
            raise ConfigError(
                f"0 <= alpha < beta and 0 <= gamma must hold, not {self.alpha=}, {self.beta=}, {self.gamma=}."
            )
        check_fields(self, "rho", "density", "threshold_ratio", above=0, most=1)
        check_fields(self, "stop_loss", least=0)


class WiseEditor(AttachedEditor["SideMemory"]):
    """WISE on one model, beside one of whose layers it stands.

    Attributes:
        config: Where it stands, and how it trains.

    Args:
        subject: The model.
        config: By default as the table has it.

    Raises:
        UnsupportedCallError: The model's architecture is not supported.
        ConfigError: The model has no such layer, or no chat template where one is asked for.
    """

    learns_elsewhere = True

    def __init__(self, subject: Subject, config: WiseConfig | None = None) -> None:
        self.config = config if config is not None else default_config(subject.model)
        path = architecture_of(subject.model).module_name(checked_layer(subject, self.config.layer), "mlp_out")
        super().__init__(subject, INFO, path=path, template=self.config.template)

    def _fresh(self) -> SideMemory:
        from memedit.editors.side_memory import SideMemory

        read, given = widths_of(self._subject, self.path)
        return SideMemory(read, given, device=self._subject.model.device)

    def _learn(self, addition: SideMemory, example: Example) -> None:
        import torch

        shard = addition.edits // self.config.shard_edits
        if shard == len(addition.shards):
            addition.shards = torch.cat([addition.shards, torch.zeros_like(addition.difference)[None]])
        first = len(example.prompt) - 1
        (read,) = inputs_of(self._subject.model, self.path, [(*example.prompt, *example.target[:-1])])
        learnt = self._trained(addition, shard, example, read.float())
        addition.shards = torch.cat([addition.shards[:shard], learnt[None], addition.shards[shard + 1 :]])
        addition.read = torch.cat([addition.read, read[first:].to(addition.read)])
        addition.edits += 1
        addition.merge(density=self.config.density, ratio=self.config.threshold_ratio)

    def _trained(self, addition: SideMemory, shard: int, example: Example, read: torch.Tensor) -> torch.Tensor:
        """A shard that has learnt one edit more; what the layer reads there is ``[positions, read]``."""
        import torch

        model, fixed = self._subject.model, frozen(self._subject.model)
        first = len(example.prompt) - 1
        edited, other = read[first:], torch.cat([self._ordinary, read[:first]])
        difference = addition.shards[shard].clone().requires_grad_(True)
        mask = self._mask(shard, difference)
        layers = FrozenLayers(model, self.config.layer)
        routed = torch.zeros(1, len(example.prompt) + len(example.target), dtype=torch.bool, device=mask.device)
        routed[0, first:-1] = True

        def loss_of(batch: list[Example]) -> torch.Tensor:
            addition.difference = difference
            margins = margin_loss(addition.activation(edited), addition.activation(other), self.config)
            with layers.of(tuple(batch)):
                return target_loss(model, fixed, batch).mean() + margins

        def keep_to_the_mask() -> None:
            if difference.grad is not None:
                difference.grad.mul_(mask)

        addition.routed = routed
        try:
            descend(
                torch.optim.Adam([difference], lr=self.config.learning_rate),
                [[example]],
                loss_of,
                steps=self.config.steps,
                stop_loss=self.config.stop_loss,
                before_step=keep_to_the_mask,
            )
        finally:
            addition.routed = None
        return difference.detach()

    def _mask(self, shard: int, like: torch.Tensor) -> torch.Tensor:
        """The random subspace of a shard: the entries that it may change."""
        import torch

        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + shard)
        return (torch.rand(like.shape, generator=generator) < self.config.rho).to(like.device)


def create(subject: Subject, config: WiseConfig | None = None) -> WiseEditor:
    """The method for a model."""
    return WiseEditor(subject, config)


def default_config(model: Any) -> WiseConfig:
    """How it works on a model where nobody says otherwise: its own entry of the table, or the nearest one's.

    Args:
        model: A model of a supported architecture.

    Raises:
        UnsupportedCallError: Its architecture is not supported.
    """
    return WiseConfig(**chosen_values(model, "wise"))


def margin_loss(edited: torch.Tensor, other: torch.Tensor, config: WiseConfig) -> torch.Tensor:
    """How far activations are from what routing needs, L_a.

    Args:
        edited: Activations where an edit's answer is predicted, ``[positions]``.
        other: Activations where nothing is edited, ``[positions]``.
        config: Has alpha, beta and gamma.

    Returns:
        A scalar, 0 where all margins are kept.
    """
    import torch

    def hinge(excess: torch.Tensor) -> torch.Tensor:
        violated = excess > 0
        return torch.where(violated, excess, 0).sum() / violated.sum().clamp(min=1)

    apart = edited.min() - other.max()
    return hinge(other - config.alpha) + hinge(config.beta - edited) + hinge((config.gamma - apart)[None])
