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

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from memedit.architectures import ARCHITECTURES, architecture_of
from memedit.editors.adapter_editor import AdapterConfig, AdapterEditor
from memedit.editors.adapters import ADAPTER
from memedit.editors.chosen import chosen_values
from memedit.editors.editor import MethodInfo
from memedit.editors.subject import Subject
from memedit.ranges import check_fields

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
    {"rank": (2, 8), "learning_rate": (5e-4, 2e-3), "stop_loss": (0.5, 0.1)}
)
"""What ``memedit tune`` tries (`memedit.evaluation.tuning`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig(AdapterConfig):
    """How LoRA trains: as `AdapterConfig`, the change being scaled by alpha / r.

    Attributes:
        rank: r.
        stop_loss: A mini-batch whose loss (nats a target token) is below this is passed over; training ends when all
            are.
    """

    rank: int
    stop_loss: float = 1e-2

    def __post_init__(self) -> None:
        AdapterConfig.__post_init__(self)
        check_fields(self, "rank", least=1)
        check_fields(self, "stop_loss", least=0)


class LoraEditor(AdapterEditor):
    """LoRA on one model, whose weights it changes in place; see `AdapterEditor`.

    Attributes:
        config: How it trains.

    Args:
        subject: The model.
        config: By default as the table has it.
    """

    def __init__(self, subject: Subject, config: LoraConfig | None = None) -> None:
        self.config = config if config is not None else default_config(subject.model)
        super().__init__(subject, self.config, info=INFO, stop_loss=self.config.stop_loss)

    def _put_in(self, steps: int) -> Any:  # noqa: ARG002 - the same for any number
        import peft

        config = peft.LoraConfig(
            r=self.config.rank,
            lora_alpha=self.config.alpha,
            target_modules=list(self.paths),
            lora_dropout=0.0,
            fan_in_fan_out=architecture_of(self.subject.model).transposed,
        )
        return peft.inject_adapter_in_model(config, self.subject.model, adapter_name=ADAPTER)


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
