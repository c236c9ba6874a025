"""What the parts trained here have in common: low-rank updates over frozen weights, and figures by kind.

The updates are peft's (Hu et al. 2022, LoRA: Low-Rank Adaptation of Large Language Models). It knows nothing of what is
trained, nor on what.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

__all__ = ["add_low_rank", "shares_by_kind"]


def add_low_rank(model: nn.Module, layers: Sequence[str], *, rank: int, alpha: int) -> None:
    """Freezes a model and puts trainable updates beside some of its linear layers, in place.

    Args:
        model: The model.
        layers: The layers, by their names or by the ends of them.
        rank: Rank of the updates.
        alpha: Their scale is ``alpha / rank``.
    """
    from peft import LoraConfig, inject_adapter_in_model

    for parameter in model.parameters():
        parameter.requires_grad_(False)
    adapter: Any = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(layers), lora_dropout=0.0)
    inject_adapter_in_model(adapter, model)


def shares_by_kind(told: Iterable[tuple[str, bool]]) -> dict[str, float]:
    """The share of each kind that was right.

    Args:
        told: For each item its kind, and whether it was right.
    """
    right: dict[str, list[bool]] = {}
    for kind, one in told:
        right.setdefault(kind, []).append(one)
    return {kind: sum(found) / len(found) for kind, found in sorted(right.items())}
