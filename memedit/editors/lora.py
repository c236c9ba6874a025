"""LoRA: low-rank changes of the attention's query and value projections, trained on the edits and merged.

Hu et al. 2022, *LoRA: Low-Rank Adaptation of Large Language Models*: W_0 + (alpha / r) B A (section 4.1), with B of r
columns, which begins as 0, and A of r rows, which begins at random; on W_q and W_v of every layer, as in section 4.2.
In families that have one matrix for queries, keys and values it is that one. The adapters are peft's, are in the model
for as long as they are trained, and are merged into copies of the weights (`memedit.editors.adapters`).

Trained by Adam on the cross-entropy of the target tokens, through the chat template wherever there is one
(`memedit.editors.examples`), as FT-M is; several edits together, and one call after the other on the weights as they
are. The same edits and the same seed give the same weights.

This file knows nothing of benchmarks or of other methods.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from memedit.architectures import ARCHITECTURES, architecture_of
from memedit.editors.adapters import ADAPTER, adapted, adapted_paths, check_peft, merged
from memedit.editors.chosen import chosen_values
from memedit.editors.descent import descend, mini_batches
from memedit.editors.editor import MethodInfo
from memedit.editors.examples import Example, ExampleMaker, target_loss
from memedit.editors.subject import Subject
from memedit.editors.trained import TrainedEditor
from memedit.errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = ["INFO", "SEARCH", "LoraConfig", "LoraEditor", "create", "default_config"]

INFO = MethodInfo(
    name="lora",
    title="Low-rank adaptation of queries and values",
    group="editing intrinsic knowledge",
    changes="weights",
    paper="Hu et al. 2022, LoRA: Low-Rank Adaptation of Large Language Models",
    summary="Trains low-rank changes of the attention's query and value projections, and merges them.",
    models=", ".join(family.title for family in ARCHITECTURES.values()),
)

SEARCH: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {"rank": (2, 8), "learning_rate": (1e-3, 5e-3), "stop_loss": (0.5, 0.1)}
)
"""What ``memedit tune`` tries (`memedit.evaluation.tuning`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """How LoRA trains.

    Attributes:
        rank: r.
        alpha: The change is scaled by alpha / r.
        learning_rate: Adam's.
        steps: The most passes over the edits that are made together.
        stop_loss: A mini-batch whose loss (nats a target token) is below this is passed over; training ends when all
            are.
        batch_size: The most edits of a mini-batch.
        seed: What draws the first A.
        template: Whether edits are trained through the chat template; None for wherever the model has one.
    """

    rank: int
    alpha: int
    learning_rate: float
    steps: int = 50
    stop_loss: float = 1e-2
    batch_size: int = 8
    seed: int = 0
    template: bool | None = None

    def __post_init__(self) -> None:
        for name in ("rank", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for name in ("alpha", "learning_rate"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ConfigError(f"{name} must be above 0, not {getattr(self, name)}.")
        if not self.stop_loss >= 0:
            raise ConfigError(f"stop_loss must not be negative, not {self.stop_loss}.")


class LoraEditor(TrainedEditor):
    """LoRA on one model, whose weights it changes in place.

    Attributes:
        config: How it trains.
        paths: The modules that it adapts.

    Args:
        subject: The model.
        config: By default as the table has it.

    Raises:
        UnsupportedCallError: The model's architecture is not supported, its weights cannot be changed, or peft is not
            installed.
        ConfigError: The model has no chat template where one is asked for.
    """

    def __init__(self, subject: Subject, config: LoraConfig | None = None) -> None:
        check_peft(INFO.name)
        self.config = config if config is not None else default_config(subject.model)
        self.paths = adapted_paths(subject)
        super().__init__(subject, INFO, ExampleMaker(subject, template=self.config.template))

    def _trained(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """The adapted weights, with what the adapters have learnt."""
        import torch

        model = self._subject.model
        with adapted(model, self.paths, self._put_in, seed=self.config.seed):
            descend(
                torch.optim.Adam(
                    [one for one in model.parameters() if one.requires_grad], lr=self.config.learning_rate
                ),
                mini_batches(examples, self.config.batch_size),
                lambda batch: target_loss(model, {}, batch).mean(),
                steps=self.config.steps,
                stop_loss=self.config.stop_loss,
            )
            return merged(model, self.paths)

    def _put_in(self) -> Any:
        import peft

        config = peft.LoraConfig(
            r=self.config.rank,
            lora_alpha=self.config.alpha,
            target_modules=list(self.paths),
            lora_dropout=0.0,
            fan_in_fan_out=architecture_of(self._subject.model).transposed,
        )
        return peft.inject_adapter_in_model(config, self._subject.model, adapter_name=ADAPTER)


def create(subject: Subject, config: LoraConfig | None = None) -> LoraEditor:
    """The method for a model."""
    return LoraEditor(subject, config)


def default_config(model: Any) -> LoraConfig:
    """How a model is trained where nobody says otherwise: its own entry of the table, or the nearest one's.

    Args:
        model: A model of a supported architecture.

    Raises:
        UnsupportedCallError: Its architecture is not supported.
    """
    return LoraConfig(**chosen_values(model, "lora"))
