"""Training of what memedit serves: a loop that survives being killed, settings as TOML, model cards, ``memedit train``.

A trainable part is a `Task`, which `train` brings to its best state::

    from training import LoopSettings, train

    result = train(task, LoopSettings(steps=500, seed=1), Path("runs/scope"))

The tasks themselves have files of their own; so has the command line. Importing this package loads no torch.
"""

from __future__ import annotations

from training.card import CardData, ModelCard, data_of, write_card
from training.config import check_range, read_settings, settings_json, settings_toml
from training.errors import CheckpointError, TrainingConfigError, TrainingDataError, TrainingError
from training.loop import TrainingResult, train
from training.progress import SILENT, EvaluationReport, Progress, StepReport
from training.settings import LoopSettings, device_for, settled
from training.task import ParameterGroup, StatefulTask, Task

__all__ = [
    "SILENT",
    "CardData",
    "CheckpointError",
    "EvaluationReport",
    "LoopSettings",
    "ModelCard",
    "ParameterGroup",
    "Progress",
    "StatefulTask",
    "StepReport",
    "Task",
    "TrainingConfigError",
    "TrainingDataError",
    "TrainingError",
    "TrainingResult",
    "check_range",
    "data_of",
    "device_for",
    "read_settings",
    "settings_json",
    "settings_toml",
    "settled",
    "train",
    "write_card",
]
