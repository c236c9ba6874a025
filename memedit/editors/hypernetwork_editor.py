"""A trained hypernetwork as a method: it proposes a change of some weights for each edit, and the changes are added.

Edits made together share the gradients of one model, and their changes are summed; those of a later call start from the
weights as the earlier left them. Each change is computed apart and written at the end: on failure the model stays as it
was. This file knows nothing of what a hypernetwork reads, or how it was trained.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from memedit.architectures import architecture_of
from memedit.editors.editor import EditCost
from memedit.editors.hypernetwork import Hypernetwork
from memedit.editors.subject import Subject
from memedit.editors.weight_editor import WeightEditor
from memedit.errors import ConfigError
from memory_store import Edit

if TYPE_CHECKING:
    import torch

__all__ = ["HypernetworkEditor"]

_TOGETHER = 8
"""Edits of one forward and backward pass."""


class HypernetworkEditor(WeightEditor):
    """A hypernetwork as a method on one model, whose weights it changes in place.

    Args:
        subject: The model.
        hypernetwork: The hypernetwork, attached to the same model.
    """

    def __init__(self, subject: Subject, hypernetwork: Hypernetwork[Any, Any]) -> None:
        super().__init__(subject, hypernetwork.info)
        self._hypernetwork = hypernetwork
        self._transposed = architecture_of(subject.model).transposed

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the weights that are changed."""
        return tuple(f"{name}.weight" for name in self._hypernetwork.layers)

    def edit(self, edits: Sequence[Edit]) -> EditCost:
        """Add the changes of some edits to the weights as earlier edits left them.

        Args:
            edits: Drafts. Of those with the same prompt the last one holds.

        Returns:
            What it cost. The weights as they were, which are kept for `undo`, are what the edits take, counted once.

        Raises:
            UnsupportedCallError: One of them is incomplete, or too long for the model. Nothing is changed.
            ConfigError: A change is not finite. Nothing is changed.
        """
        import torch

        started = time.perf_counter()
        holding = list({edit.prompt: edit for edit in edits}.values())
        changed: dict[str, torch.Tensor] = {}
        with torch.no_grad():
            for start in range(0, len(holding), _TOGETHER):
                for name, change in self._hypernetwork.changes(holding[start : start + _TOGETHER]).items():
                    parameter = f"{name}.weight"
                    added = change.total(transposed=self._transposed)
                    changed[parameter] = added + changed.get(
                        parameter, self.subject.model.get_parameter(parameter).detach()
                    )
        for name, weight in changed.items():
            if not weight.isfinite().all():
                raise ConfigError(
                    f"{self.info.name} would make {name} of {self.subject.name} infinite; undo earlier edits, or "
                    "make fewer of them"
                )
        stored = self._weights.write(changed)
        return EditCost(edits=len(edits), seconds=time.perf_counter() - started, stored_bytes=stored)
