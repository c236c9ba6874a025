"""One training loop for every task, which a kill at any moment only delays.

At each step torch's generators are seeded from the seed and the step, a batch is a function of the seed and its index,
and the learning rate one of the step: none of them has a state that goes from one step to the next. What has is in the
checkpoint: the trained tensors, the moments of AdamW (Loshchilov and Hutter 2019), the best state so far, and what the
task itself has gathered. A run that goes on from a checkpoint therefore makes the same steps, bit for bit, as one that
was never stopped, on the same machine with the same number of threads.

::

    OUT/checkpoint/     see `training.checkpoint`
    OUT/log.jsonl       begin, steps, evaluations, end; one JSON object a line

This file knows nothing of models, of data, or of what is learnt.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from memedit.one_writer import one_writer
from training.checkpoint import Checkpoint, CheckpointFolder, differences
from training.errors import CheckpointError, TrainingConfigError, TrainingError
from training.log import TrainingLog
from training.progress import SILENT, EvaluationReport, Progress, StepReport
from training.settings import LoopSettings, device_for, settled
from training.task import ParameterGroup, StatefulTask, Task

if TYPE_CHECKING:
    import torch

__all__ = ["TrainingResult", "learning_rate_at", "train"]

StopReason = Literal["steps", "patience", "time"]

_WITHOUT_BEARING = ("checkpoint_every", "checkpoint_seconds", "time_limit_minutes", "device")
"""Settings that a resumed run may change: none of them has a part in what a step does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """What came of training.

    Attributes:
        task: What was trained.
        steps: How many steps were made.
        stopped_by: What ended it.
        maximised: The name of the dev figure that chose the best state.
        best_step: The step of the best state, which the task's tensors hold; 0 where the start was never bettered.
        figures: The best state's dev figures.
        figures_at_start: The dev figures before the first step.
        seconds: What it took, all runs together.
        device: Where it was trained: "cpu" or "cuda".
    """

    task: str
    steps: int
    stopped_by: StopReason
    maximised: str
    best_step: int
    figures: Mapping[str, float]
    figures_at_start: Mapping[str, float]
    seconds: float
    device: str

    def to_json(self) -> dict[str, Any]:
        """The result as one JSON object."""
        return asdict(self)


def train(
    task: Task[Any], settings: LoopSettings, out: Path, *, fresh: bool = False, progress: Progress = SILENT
) -> TrainingResult:
    """Trains a task, or goes on with it from the checkpoint in a folder.

    The dev figures are measured before the first step too: what is kept is never worse on them than the start.

    Args:
        task: What is trained. Afterwards its tensors hold the best state by its dev figure.
        settings: How.
        out: The folder of checkpoint and log; made where it is not there.
        fresh: Remove the checkpoint that is there, and begin anew.
        progress: Is told of each step and evaluation.

    Returns:
        What came of it; at once, where training had ended before.

    Raises:
        CheckpointError: The checkpoint is of other settings or data, or damaged; or another process trains into the
            folder.
        TrainingConfigError: The task's tensors are not on the device of the settings, or named twice.
        TrainingError: The loss is no longer finite, or the task does not measure what chooses the best state.
        OSError: The folder cannot be written.
    """
    import torch

    settings = settled(settings)
    device = device_for(settings)
    cuda = [torch.cuda.current_device() if device.index is None else device.index] if device.type == "cuda" else []
    out.mkdir(parents=True, exist_ok=True)
    writer = one_writer(out, doing="training", error=CheckpointError)
    with writer, torch.random.fork_rng(devices=cuda), _deterministic(device):
        folder = CheckpointFolder(out / "checkpoint")
        if fresh:
            folder.clear()
        training = _Training(task, settings, folder, device, progress)
        try:
            return training.run(out / "log.jsonl")
        finally:
            training.close()


def learning_rate_at(settings: LoopSettings, step: int) -> float:
    """The learning rate of a step, before a group's own scale.

    Args:
        settings: How the learning rate rises and falls.
        step: The step, counted from 0.
    """
    rising = round(settings.warmup * settings.steps)
    if step < rising:
        return settings.learning_rate * (step + 1) / rising
    done = (step - rising) / max(1, settings.steps - rising)
    share = {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2, "constant": 1.0}[settings.schedule]
    return settings.learning_rate * share


@dataclass(frozen=True, slots=True, kw_only=True)
class _Position:
    """Where training stands: what of it goes into a checkpoint as JSON."""

    step: int = 0
    best_step: int = 0
    best: float = -math.inf
    figures: Mapping[str, float] = field(default_factory=dict)
    figures_at_start: Mapping[str, float] = field(default_factory=dict)
    without_better: int = 0
    seconds: float = 0.0
    log_bytes: int = 0
    stopped_by: StopReason | None = None


class _Training:
    """One run of a task's training."""

    def __init__(
        self,
        task: Task[Any],
        settings: LoopSettings,
        folder: CheckpointFolder,
        device: torch.device,
        progress: Progress,
    ) -> None:
        import torch

        self._task = task
        self._settings = settings
        self._folder = folder
        self._device = device
        self._progress = progress
        groups = task.parameters()
        self._tensors = _named(groups, device)
        self._optimizer = torch.optim.AdamW(
            [
                {
                    "params": list(group.tensors.values()),
                    "weight_decay": settings.weight_decay if group.weight_decay else 0.0,
                    "scale": group.learning_rate_scale,
                }
                for group in groups
            ],
            lr=settings.learning_rate,
        )
        self._identity = _identity(task, settings)
        self._at = _Position()
        self._best: Mapping[str, torch.Tensor] = {}
        self._log: TrainingLog | None = None
        self._started = self._saved = time.perf_counter()
        self._seconds_before = 0.0
        self._first_step = 0

    def run(self, log: Path) -> TrainingResult:
        """Trains to the end, from where the checkpoint left off."""
        saved = self._folder.load()
        if saved is not None:
            self._resume(saved)
        if self._at.stopped_by is not None and not self._has_time_again():
            return self._end()
        self._log = TrainingLog(log, length=self._at.log_bytes)
        begun = {"event": "begin" if saved is None else "resume", "step": self._at.step, "device": self._device.type}
        self._write({**begun, "settings": asdict(self._settings)})
        self._at = replace(self._at, stopped_by=None)
        if saved is None:
            self._evaluate()
            self._save()
        why = self._why_to_stop()
        while why is None:
            self._step()
            why = self._why_to_stop()
            if why is not None or self._at.step % self._settings.evaluate_every == 0:
                self._evaluate()
                why = why or self._why_to_stop()
            if why is None and self._is_checkpoint_due():
                self._save()
        self._write({"event": "end", "step": self._at.step, "stopped_by": why, "best_step": self._at.best_step})
        self._at = replace(self._at, stopped_by=why)
        self._save()
        return self._end()

    def close(self) -> None:
        """Closes the log."""
        if self._log is not None:
            self._log.close()

    def _step(self) -> None:
        """One step of the optimiser."""
        import torch

        step, settings = self._at.step, self._settings
        torch.manual_seed(_seed_of(settings.seed, step))
        rate = learning_rate_at(settings, step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        self._optimizer.zero_grad(set_to_none=True)
        loss, losses = self._backward(step)
        limit = settings.gradient_clip or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self._tensors.values(), limit))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingError(
                f"Training diverged at step {step + 1}: the loss is {loss}, the gradient's norm {norm}. Take a smaller "
                f"learning_rate than {settings.learning_rate}, or a longer warmup, and begin anew (--fresh)."
            )
        self._optimizer.step()
        self._at = replace(self._at, step=step + 1)
        self._tell(loss, losses, rate, norm)

    def _backward(self, step: int) -> tuple[float, dict[str, float]]:
        """The gradient of a step's batches, and their mean losses."""
        import torch

        count = self._settings.accumulate
        half = self._settings.precision == "bfloat16"
        whole, parts = 0.0, dict[str, float]()
        for index in range(step * count, (step + 1) * count):
            with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=half):
                loss, named = self._task.loss(self._task.batch(index))
            loss = loss / count
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            whole += float(loss.detach())
            for name, value in named.items():
                parts[name] = parts.get(name, 0.0) + _number(value) / count
        return whole, parts

    def _tell(self, loss: float, losses: Mapping[str, float], rate: float, norm: float) -> None:
        """Writes a step into the log, and reports it."""
        step, seconds = self._at.step, self._seconds()
        record = {"event": "step", "step": step, "loss": loss, "losses": losses, "learning_rate": rate}
        self._write({**record, "gradient_norm": norm, "seconds": round(seconds, 3)})
        pace = (seconds - self._seconds_before) / (step - self._first_step)
        self._progress.step(
            StepReport(
                step=step,
                steps=self._settings.steps,
                loss=loss,
                losses=losses,
                learning_rate=rate,
                seconds=seconds,
                seconds_left=pace * (self._settings.steps - step),
            )
        )

    def _evaluate(self) -> None:
        """Measures the dev figures; the state becomes the best one where they are better than all before."""
        import torch

        stage, name = "measuring on dev records", self._task.maximised
        self._progress.stage(stage, 0, 1)
        torch.manual_seed(_seed_of(self._settings.seed, "evaluation"))
        with torch.no_grad():
            figures = {key: float(value) for key, value in self._task.evaluate().items()}
        self._progress.stage(stage, 1, 1)
        if not math.isfinite(figures.get(name, math.nan)):
            raise TrainingError(
                f"The dev figure {name!r} is to choose the best state of {self._task.name!r}, and it is "
                f"{figures.get(name, 'not measured')}; measured: {', '.join(figures) or 'nothing'}."
            )
        at = self._at
        if at.step == 0:
            at = replace(at, figures_at_start=figures)
        if figures[name] > at.best:
            at = replace(at, best_step=at.step, best=figures[name], figures=figures, without_better=0)
            self._best = _copies(self._tensors)
        else:
            at = replace(at, without_better=at.without_better + 1)
        self._at = at
        self._write({"event": "evaluation", "step": at.step, "figures": figures, "best_step": at.best_step})
        self._progress.evaluation(
            EvaluationReport(step=at.step, figures=figures, maximised=name, best_step=at.best_step, best=at.best)
        )

    def _why_to_stop(self) -> StopReason | None:
        if self._at.step >= self._settings.steps:
            return "steps"
        if 0 < self._settings.patience <= self._at.without_better:
            return "patience"
        return None if self._has_time() else "time"

    def _has_time(self) -> bool:
        limit = self._settings.time_limit_minutes
        return limit is None or self._seconds() < 60 * limit

    def _has_time_again(self) -> bool:
        """Whether only the time limit ended training, and it is longer now."""
        return self._at.stopped_by == "time" and self._has_time()

    def _seconds(self) -> float:
        """What training took so far, all runs together."""
        return self._seconds_before + time.perf_counter() - self._started

    def _is_checkpoint_due(self) -> bool:
        return (
            self._at.step % self._settings.checkpoint_every == 0
            and time.perf_counter() - self._saved >= self._settings.checkpoint_seconds
        )

    def _save(self) -> None:
        """Writes a checkpoint; of training that has come to its end, only the best state."""
        at = replace(self._at, seconds=self._seconds(), log_bytes=self._log.sync() if self._log else 0)
        self._at = at
        tensors = {"best": self._best}
        if at.stopped_by in (None, "time"):
            tensors["state"] = {**_copies(self._tensors, "trained/"), **self._moments()}
        facts = {
            "identity": self._identity,
            "position": asdict(at),
            "task": self._task.state() if isinstance(self._task, StatefulTask) else None,
        }
        self._folder.save(Checkpoint(facts, tensors))
        self._saved = time.perf_counter()

    def _moments(self) -> dict[str, torch.Tensor]:
        """AdamW's moments and step counts by the tensors' names."""
        return {
            f"optimizer/{key}/{name}": value.detach().to("cpu", copy=True)
            for name, tensor in self._tensors.items()
            for key, value in self._optimizer.state.get(tensor, {}).items()
        }

    def _resume(self, saved: Checkpoint) -> None:
        """Takes everything back from a checkpoint."""
        told = differences(saved.facts.get("identity", {}), self._identity)
        if told:
            raise CheckpointError(
                f"{self._folder.path} holds a checkpoint of another training; it differs in {told}. Train into another "
                "folder, or begin anew with --fresh."
            )
        self._at = _Position(**saved.facts["position"])
        self._seconds_before = self._at.seconds
        self._first_step = self._at.step
        self._best = saved.tensors["best"]
        state = saved.tensors.get("state", {})
        if state:
            self._fill(state, "trained/")
        for key, value in state.items():
            kind, _, rest = key.partition("/")
            if kind == "optimizer":
                moment, _, name = rest.partition("/")
                tensor = self._tensors[name]
                self._optimizer.state[tensor][moment] = value if moment == "step" else value.to(tensor.device)
        if isinstance(self._task, StatefulTask) and saved.facts["task"] is not None:
            self._task.load_state(saved.facts["task"])

    def _end(self) -> TrainingResult:
        """Puts the best state into the task's tensors and says what came of it."""
        self._fill(self._best)
        at = self._at
        return TrainingResult(
            task=self._task.name,
            steps=at.step,
            stopped_by=at.stopped_by or "steps",
            maximised=self._task.maximised,
            best_step=at.best_step,
            figures=at.figures,
            figures_at_start=at.figures_at_start,
            seconds=at.seconds,
            device=self._device.type,
        )

    def _fill(self, values: Mapping[str, torch.Tensor], prefix: str = "") -> None:
        """Copies values into the trained tensors, all or none."""
        import torch

        for name, tensor in self._tensors.items():
            value = values.get(prefix + name)
            if value is None or value.shape != tensor.shape or value.dtype != tensor.dtype:
                found = "nothing" if value is None else f"{value.dtype} of shape {tuple(value.shape)}"
                raise CheckpointError(
                    f"{self._folder.path} does not fit: for {name!r}, {tensor.dtype} of shape {tuple(tensor.shape)}, "
                    f"it holds {found}. Train into another folder, or begin anew with --fresh."
                )
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                tensor.copy_(values[prefix + name])

    def _write(self, record: Mapping[str, Any]) -> None:
        if self._log is not None:
            self._log.write(record)


def _named(groups: Sequence[ParameterGroup], device: torch.device) -> dict[str, torch.nn.Parameter]:
    """The tensors of all groups by name, checked to be distinct, trainable and on the device."""
    named: dict[str, torch.nn.Parameter] = {}
    for group in groups:
        for name, tensor in group.tensors.items():
            if name in named or any(tensor is other for other in named.values()):
                raise TrainingConfigError(f"The tensor {name!r} is to be trained twice; give each once, by one name.")
            if tensor.device.type != device.type:
                raise TrainingConfigError(f"{name!r} is on {tensor.device}, and training on {device}; move it there.")
            if not tensor.requires_grad:
                raise TrainingConfigError(f"{name!r} is to be trained, and takes no gradient (requires_grad).")
            named[name] = tensor
    if not named:
        raise TrainingConfigError("There is no tensor to be trained.")
    return named


def _identity(task: Task[Any], settings: LoopSettings) -> dict[str, Any]:
    """What a checkpoint must share with the run that goes on from it; as JSON gives it back."""
    loop = {name: value for name, value in asdict(settings).items() if name not in _WITHOUT_BEARING}
    whole: dict[str, Any] = json.loads(
        json.dumps({"task": task.name, "maximised": task.maximised, "loop": loop, **task.identity()})
    )
    return whole


def _copies(tensors: Mapping[str, torch.Tensor], prefix: str = "") -> dict[str, torch.Tensor]:
    """Copies on the CPU."""
    return {prefix + name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def _number(value: float | torch.Tensor) -> float:
    return value if isinstance(value, float | int) else float(value.detach())


def _seed_of(seed: int, what: int | str) -> int:
    """The seed of a step, or of something else: 63 bits of a digest, so that no two of them are alike."""
    return int.from_bytes(hashlib.sha256(f"{seed} {what}".encode()).digest()[:8], "big") >> 1


@contextlib.contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """Has torch compute the same each time, or say that it cannot."""
    import torch

    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
