"""Weights that edits change in place, with what they were before the first edit.

Adding a change and subtracting it again does not restore a weight, since floating-point addition rounds: what is
changed is cloned before and copied back at `restore`. This file knows nothing of methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["EditedWeights"]


class EditedWeights:
    """The weights of one model that edits have changed.

    Args:
        model: The model.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._before: dict[str, torch.Tensor] = {}

    def write(self, values: Mapping[str, torch.Tensor]) -> int:
        """Put values into the model, all of them or, if anything goes wrong, none.

        Args:
            values: New values by the names of their parameters, of any precision.

        Returns:
            How many bytes more are kept from now on, to restore what was there before.
        """
        import torch

        parameters = {name: self._model.get_parameter(name) for name in values}
        now = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        with torch.no_grad():
            try:
                for name, value in values.items():
                    parameters[name].copy_(value)
            except BaseException:
                for name, value in now.items():
                    parameters[name].copy_(value)
                raise
        new = {name: value for name, value in now.items() if name not in self._before}
        self._before.update(new)
        return sum(value.nbytes for value in new.values())

    def restore(self) -> None:
        """Copy back every weight as it was before it was first written to."""
        import torch

        with torch.no_grad():
            for name, value in self._before.items():
                self._model.get_parameter(name).copy_(value)
        self._before.clear()
