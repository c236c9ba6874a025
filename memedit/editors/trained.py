"""What the methods share that train weights of the model on their edits: examples, cost, writing, undoing.

New values are computed on copies and written into the model at the end: it stays as it was until then, and if training
fails. This file knows nothing of how any of them trains.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from memedit.editors.editor import EditCost, MethodInfo
from memedit.editors.examples import Example, ExampleMaker
from memedit.editors.subject import Subject
from memedit.editors.weight_editor import WeightEditor
from memory_store import Edit

if TYPE_CHECKING:
    import torch

__all__ = ["TrainedEditor"]


class TrainedEditor(WeightEditor, ABC):
    """A method that trains weights on edits, and changes them in place.

    Args:
        subject: The model.
        info: What the method is.
        examples: Turns an edit into what is trained.
    """

    def __init__(self, subject: Subject, info: MethodInfo, examples: ExampleMaker) -> None:
        super().__init__(subject, info)
        self._example = examples

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

    @abstractmethod
    def _trained(self, examples: Sequence[Example]) -> Mapping[str, torch.Tensor]:
        """New values of parameters, by name; the model is not changed."""
