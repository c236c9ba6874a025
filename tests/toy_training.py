"""A training task that costs nothing: a small network with dropout says on which side of a curve a point lies."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save_file

from training.card import ModelCard, data_of, write_card
from training.config import check_range, settings_json
from training.errors import TrainingDataError
from training.loop import TrainingResult, train
from training.progress import SILENT, Progress
from training.settings import LoopSettings, device_for
from training.task import ParameterGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyDropout:
    """How much is dropped.

    Attributes:
        inner: Of the hidden layer.
    """

    inner: float = 0.2

    def __post_init__(self) -> None:
        check_range("inner", self.inner, least=0, below=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToySettings:
    """How the toy is trained.

    Attributes:
        init: Where it starts; the toy has nothing shipped, so ``shipped`` is all zeros.
        width: Of the hidden layer.
        names: What is not used,
            told in two lines.
        pause: Seconds that each batch waits.
        dropout: What is dropped.
        loop: How long it is trained.
    """

    init: Literal["shipped", "scratch"] = "scratch"
    width: int = 16
    names: tuple[str, ...] = ("one", 'two "quoted"')
    pause: float = 0.0
    dropout: ToyDropout = field(default_factory=ToyDropout)
    loop: LoopSettings = field(
        default_factory=lambda: LoopSettings(steps=40, learning_rate=0.02, evaluate_every=10, checkpoint_every=3)
    )

    def __post_init__(self) -> None:
        check_range("width", self.width, least=1)


class ToyTask:
    """Its batches also hold a point that it got wrong earlier, as mined pairs would be."""

    name = "toy"
    maximised = "accuracy"

    def __init__(self, settings: ToySettings, data: Mapping[str, str] | None = None) -> None:
        torch.manual_seed(settings.loop.seed)
        self.settings = settings
        self.net = torch.nn.Sequential(
            torch.nn.Linear(2, settings.width),
            torch.nn.Tanh(),
            torch.nn.Dropout(settings.dropout.inner),
            torch.nn.Linear(settings.width, 1),
        ).to(device_for(settings.loop))
        if settings.init == "shipped":
            for parameter in self.net.parameters():
                torch.nn.init.zeros_(parameter)
        self.data = dict(data or {})
        self.hard: list[list[float]] = []
        self.asked: list[int] = []
        self.dev = points(np.random.default_rng(99), 200)

    def identity(self) -> dict[str, Any]:
        described = {name: value for name, value in settings_json(self.settings).items() if name != "loop"}
        return {"settings": {**described, "pause": None}, "data": self.data}

    def parameters(self) -> Sequence[ParameterGroup]:
        weights = {name: tensor for name, tensor in self.net.named_parameters() if name.endswith("weight")}
        biases = {name: tensor for name, tensor in self.net.named_parameters() if name.endswith("bias")}
        return [
            ParameterGroup(tensors=weights),
            ParameterGroup(tensors=biases, learning_rate_scale=0.5, weight_decay=False),
        ]

    def batch(self, index: int) -> torch.Tensor:
        time.sleep(self.settings.pause)
        self.asked.append(index)
        drawn = points(np.random.default_rng([self.settings.loop.seed, index]), 8)
        if self.hard:
            drawn = torch.cat([drawn, torch.tensor([self.hard[index % len(self.hard)]])])
        self.net.eval()
        with torch.no_grad():
            worst = int(side_losses(self.net, drawn).argmax())
        self.hard.append(drawn[worst].tolist())
        return drawn

    def loss(self, batch: torch.Tensor) -> tuple[torch.Tensor, Mapping[str, float | torch.Tensor]]:
        self.net.train()
        sides = side_losses(self.net, batch).mean()
        size = sum(tensor.pow(2).sum() for tensor in self.net.parameters())
        return sides + 1e-4 * size, {"sides": sides, "points": float(len(batch))}

    def evaluate(self) -> dict[str, float]:
        self.net.eval()
        logits = self.net(self.dev).squeeze(1)
        right = (logits > 0) == (sides_of(self.dev) > 0.5)
        return {"accuracy": float(right.float().mean()), "drawn": float(torch.rand(()))}

    def state(self) -> dict[str, Any]:
        return {"hard": self.hard}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.hard = [list(point) for point in state["hard"]]


def points(draw: np.random.Generator, count: int) -> torch.Tensor:
    return torch.from_numpy(draw.uniform(-1, 1, size=(count, 2)).astype(np.float32))


def sides_of(drawn: torch.Tensor) -> torch.Tensor:
    """1.0 above a parabola, else 0.0."""
    return (drawn[:, 1] > drawn[:, 0] ** 2 - 0.3).float()


def side_losses(net: torch.nn.Module, drawn: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.binary_cross_entropy_with_logits(
        net(drawn).squeeze(1), sides_of(drawn), reduction="none"
    )


def run(
    settings: ToySettings,
    *,
    out: Path,
    data: Sequence[Path] = (),
    data_folder: Path | None = None,
    fresh: bool = False,
    progress: Progress = SILENT,
) -> TrainingResult:
    """Trains the toy and writes its weights and card, as a real part does."""
    for file in data:
        if "interrupted" in file.read_text():
            raise KeyboardInterrupt
        if "needs" in file.read_text():
            importlib.import_module("no_such_package")
        if "bad" in file.read_text():
            raise TrainingDataError(f"{file.name}:1: 'x' must be a number.")
    files = [data_of(file, name=file.name, records=len(file.read_text().splitlines()), licence="mine") for file in data]
    progress.stage("reading", 1, 1)
    task = ToyTask(settings, {one.name: one.sha256 for one in files})
    result = train(task, settings.loop, out, fresh=fresh, progress=progress)
    save_file(dict(task.net.state_dict()), out / "toy.safetensors")
    card = ModelCard(
        title="Toy",
        summary="Says on which side of a curve a point lies.",
        base_model="none",
        data=files,
        settings=settings,
        result=result,
        licence="MIT",
        figures={"data folders": float(data_folder is not None)},
        notes=("It is of no use.",),
    )
    write_card(out, card)
    return result
