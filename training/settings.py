"""How the loop trains, whatever it trains; the table ``[loop]`` of every training's settings."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from training.config import check_range
from training.errors import TrainingConfigError

if TYPE_CHECKING:
    import torch

__all__ = ["LoopSettings", "device_for", "settled"]

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """How long, how fast and where it is trained.

    Attributes:
        steps: Steps of the optimiser (AdamW), at the most.
        learning_rate: The highest learning rate of the course.
        warmup: The share of the steps in which the learning rate rises to its highest.
        schedule: How the learning rate falls after that.
        weight_decay: AdamW's weight decay.
        gradient_clip: The greatest norm of a step's gradient; 0 for any.
        accumulate: How many batches make a step.
        evaluate_every: After how many steps the dev figures are measured.
        patience: After how many of these measurings without a better one training ends; 0 for never.
        checkpoint_every: After how many steps a checkpoint is written.
        checkpoint_seconds: The least time between two checkpoints.
        time_limit_minutes: When training ends at the latest; what earlier runs took counts.
        seed: What everything random is drawn by.
        device: auto (a GPU where there is one), cpu, cuda, or cuda:1 and so on.
        precision: What the loss is computed in: float32, bfloat16, or auto, which is bfloat16 where the device
            multiplies in it. The trained weights are kept in their own precision.
    """

    steps: int = 1000
    learning_rate: float = 2e-4
    warmup: float = 0.06
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    accumulate: int = 1
    evaluate_every: int = 200
    patience: int = 0
    checkpoint_every: int = 50
    checkpoint_seconds: float = 30.0
    time_limit_minutes: float | None = None
    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "evaluate_every", "checkpoint_every"):
            check_range(name, getattr(self, name), least=1)
        for name in ("weight_decay", "gradient_clip", "patience", "checkpoint_seconds", "seed"):
            check_range(name, getattr(self, name), least=0)
        check_range("learning_rate", self.learning_rate, above=0)
        check_range("warmup", self.warmup, least=0, most=1)
        if self.time_limit_minutes is not None:
            check_range("time_limit_minutes", self.time_limit_minutes, above=0)
        if not _DEVICE.fullmatch(self.device):
            raise TrainingConfigError(f'device must be "auto", "cpu", "cuda" or "cuda:N", not {self.device!r}.')


def device_for(settings: LoopSettings) -> torch.device:
    """The device to train on.

    Args:
        settings: Of which `device` is looked at.

    Raises:
        TrainingConfigError: There is no such device on this machine.
    """
    import torch

    if settings.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(settings.device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TrainingConfigError(
            f"device is {settings.device!r}, and this machine has {torch.cuda.device_count()} CUDA devices; take "
            '"auto" or "cpu".'
        )
    return device


def settled(settings: LoopSettings) -> LoopSettings:
    """The settings with their precision decided.

    A processor that does not multiply in bfloat16 imitates it, at an eighth of the speed of float32 or less.

    Args:
        settings: Of which `precision` is auto, or decided already.

    Raises:
        TrainingConfigError: There is no such device on this machine.
    """
    if settings.precision != "auto":
        return settings
    from memedit.processors import multiplies_in_bfloat16

    return replace(settings, precision="bfloat16" if multiplies_in_bfloat16(device_for(settings)) else "float32")
