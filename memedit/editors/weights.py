"""Weights that edits change: which they are, whether they can be changed, and what they were before the first edit.

Adding a change and subtracting it again does not restore a weight, since floating-point addition rounds: what is
changed is cloned before and copied back at `restore`. This file knows nothing of methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memedit.architectures import architecture_of
from memedit.editors.subject import Subject
from memedit.errors import ConfigError, UnsupportedCallError

if TYPE_CHECKING:
    import torch

__all__ = ["EditedWeights", "OutputProjection", "check_changeable", "checked_layer", "output_projection", "widths_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputProjection:
    """The output projection of one layer's MLP, the map from keys to values of Meng et al. 2022.

    Attributes:
        layer: The layer, from 0.
        module: The module's name.
        parameter: The name of its weight.
        transposed: Whether the weight is ``[input, output]``.
    """

    layer: int
    module: str
    parameter: str
    transposed: bool

    def turned(self, matrix: torch.Tensor) -> torch.Tensor:
        """The weight as ``[output, input]``, or such a matrix as the weight is kept."""
        return matrix.mT if self.transposed else matrix


def output_projection(subject: Subject, layer: int) -> OutputProjection:
    """The output projection of a layer, if it can be changed.

    Args:
        subject: The model.
        layer: The layer, from 0.

    Raises:
        UnsupportedCallError: The model's architecture is not supported, or the weight is quantised.
        ConfigError: The model has no such layer.
    """
    architecture = architecture_of(subject.model)
    parameter = architecture.parameter_name(checked_layer(subject, layer), "mlp_out")
    check_changeable(subject, parameter)
    return OutputProjection(
        layer=layer,
        module=architecture.module_name(layer, "mlp_out"),
        parameter=parameter,
        transposed=architecture.transposed,
    )


def checked_layer(subject: Subject, layer: int) -> int:
    """The layer, if the model has it.

    Raises:
        UnsupportedCallError: The model's architecture is not supported.
        ConfigError: It has no such layer.
    """
    layers = architecture_of(subject.model).layer_count(subject.model)
    if not 0 <= layer < layers:
        raise ConfigError(f"{subject.name} has no layer {layer}; it has 0 to {layers - 1}.")
    return layer


def check_changeable(subject: Subject, parameter: str) -> None:
    """Refuse a weight that nothing can be added to.

    Raises:
        UnsupportedCallError: It is quantised.
    """
    weight = subject.model.get_parameter(parameter)
    if not weight.is_floating_point():
        raise UnsupportedCallError(
            f"{parameter} of {subject.name} is quantised ({weight.dtype}) and cannot be changed; load the model in "
            "float32, bfloat16 or float16"
        )


def widths_of(subject: Subject, path: str) -> tuple[int, int]:
    """How many numbers a projection inside a layer reads, and how many it gives out."""
    rows, columns = subject.model.get_submodule(path).weight.shape
    return (rows, columns) if architecture_of(subject.model).transposed else (columns, rows)


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
