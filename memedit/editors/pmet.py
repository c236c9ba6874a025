"""PMET: MEMIT with what attention says told apart from what the MLP says.

The method is that of Li et al. 2024, *PMET: Precise Model Editing in a Transformer*. MEMIT fits one vector to a layer's
output, in which what attention and the MLP write are added up. PMET fits a vector to each of the two outputs together,
and writes only the MLP's into weights, since attention mostly says how to extract knowledge, not what is known. The
residual of the MLP's output is spread over the layers by square roots, 1 / sqrt(L - l + 1), to lose less of it on the
way; the change of each weight is MEMIT's.

This file knows nothing of benchmarks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from memedit.architectures import ARCHITECTURES, architecture_of
from memedit.editors.chosen import chosen_values
from memedit.editors.editor import MethodInfo
from memedit.editors.memit import SEARCH, MemitConfig, MemitEditor
from memedit.editors.subject import Subject

__all__ = ["INFO", "SEARCH", "PmetEditor", "create", "default_config"]

INFO = MethodInfo(
    name="pmet",
    title="Precise model editing in a transformer",
    group="editing intrinsic knowledge",
    changes="weights",
    paper="Li et al. 2024, PMET: Precise Model Editing in a Transformer",
    summary="As MEMIT, with attention's and the MLP's output fitted apart and only the latter written.",
    models=", ".join(family.title for family in ARCHITECTURES.values()),
)


class PmetEditor(MemitEditor):
    """PMET on one model, whose weights it changes in place; `MemitConfig` says how.

    Args:
        subject: The model, unedited.
        config: How to edit; by default as the table has it.

    Raises:
        UnsupportedCallError: The model's architecture is not supported, or a weight cannot be changed.
        ConfigError: The model has no such layer, or no chat template where one is asked for.
        DataFileError: The text of the statistics cannot be read.
    """

    def __init__(self, subject: Subject, config: MemitConfig | None = None) -> None:
        super().__init__(subject, config if config is not None else default_config(subject.model), info=INFO)

    def _fitted_modules(self, layer: int) -> Sequence[str]:
        architecture = architecture_of(self.subject.model)
        return [architecture.module_name(layer, "mlp_out"), architecture.module_name(layer, "attention_out")]

    def _share(self, left: int) -> float:
        return 1 / math.sqrt(left)


def create(subject: Subject, config: MemitConfig | None = None) -> PmetEditor:
    """The method for a model."""
    return PmetEditor(subject, config)


def default_config(model: Any) -> MemitConfig:
    """How a model is edited where nobody says otherwise: its own entry of the table, or the nearest one's.

    Args:
        model: A model of a supported architecture.

    Raises:
        UnsupportedCallError: Its architecture is not supported.
    """
    return MemitConfig(**chosen_values(model, "pmet"))
