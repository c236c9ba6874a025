"""What the methods share that train weights of the model on their edits: examples, cost, writing, undoing.

New values are computed on copies and written into the model at the end: it stays as it was until then, and if training
fails. This file knows nothing of how any of them trains.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from memedit.editors.editor import EditCost, MethodInfo, TokenIds, Treatment
from memedit.editors.examples import Example, ExampleMaker
from memedit.editors.subject import Subject
from memedit.editors.weights import EditedWeights
from memory_store import Edit

if TYPE_CHECKING:
    import torch

__all__ = ["TrainedEditor"]


class TrainedEditor(ABC):
    """A method that trains weights on edits, and changes them in place.

    Args:
        subject: The model.
        info: What the method is.
        examples: Turns an edit into what is trained.
    """

    def __init__(self, subject: Subject, info: MethodInfo, examples: ExampleMaker) -> None:
        self._subject = subject
        self._info = info
        self._example = examples
        self._weights = EditedWeights(subject.model)

    @property
    def info(self) -> MethodInfo:
        """What the method is."""
        return self._info

    def edit(self, edits: Sequence[Edit]) -> EditCost:
        """Train the weights, as earlier edits left them, on some edits together.

        Args:
            edits: Drafts. Of those with the same prompt the last one holds.

        Returns:
            What it cost. The weights as they were, which are kept for `undo`, are what the edits take; they are counted
            once.

        Raises:
            UnsupportedCallError: One of them is incomplete, or too long for the model. Nothing is changed.
            ConfigError: Training diverged. Nothing is changed.
        """
        started = time.perf_counter()
        holding = {edit.prompt: edit for edit in edits}
        examples = [self._example(edit) for edit in holding.values()]
        stored = self._weights.write(self._trained(examples)) if examples else 0
        return EditCost(edits=len(edits), seconds=time.perf_counter() - started, stored_bytes=stored)

    def treat(self, prompts: Sequence[TokenIds]) -> list[Treatment]:
        """Leave every prompt as it is: the edits are in the weights."""
        return [Treatment()] * len(prompts)

    def undo(self) -> None:
        """Copy back the weights as they were before the first edit."""
        self._weights.restore()

    @abstractmethod
    def _trained(self, examples: Sequence[Example]) -> Mapping[str, torch.Tensor]:
        """New values of parameters, by name; the model is not changed."""
