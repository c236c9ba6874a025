"""What methods do alike whose edits are in the model's weights: prompts stay as they are, undoing copies back.

This file knows nothing of how any of them finds its weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from memedit.editors.editor import MethodInfo, TokenIds, Treatment
from memedit.editors.subject import Subject
from memedit.editors.weights import EditedWeights

__all__ = ["WeightEditor"]


class WeightEditor:
    """A method that writes its edits into the weights of one model.

    Attributes:
        subject: The model.

    Args:
        subject: The model.
        info: What the method is.
    """

    def __init__(self, subject: Subject, info: MethodInfo) -> None:
        self.subject = subject
        self._info = info
        self._weights = EditedWeights(subject.model)

    @property
    def info(self) -> MethodInfo:
        """What the method is."""
        return self._info

    def treat(self, prompts: Sequence[TokenIds]) -> list[Treatment]:
        """Leave every prompt as it is: the edits are in the weights."""
        return [Treatment()] * len(prompts)

    def undo(self) -> None:
        """Copy back every weight as it was before the first edit."""
        self._weights.restore()
