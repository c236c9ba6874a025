"""A trained hypernetwork as a method: it proposes a change of some weights for each edit, and the changes are added.

Edits made together share the gradients of one model, and their changes are summed; those of a later call start from the
weights as the earlier left them. Each change is computed apart and written at the end: on failure the model stays as it
was. This file knows nothing of what a hypernetwork reads, or how it was trained.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from memedit.architectures import Projection, architecture_of
from memedit.editors.editor import EditCost, MethodInfo, TokenIds, Treatment
from memedit.editors.hypernetwork_files import SavedHypernetwork
from memedit.editors.outer_products import OuterProducts
from memedit.editors.subject import Subject
from memedit.editors.weights import EditedWeights, check_changeable, checked_layer, widths_of
from memedit.errors import ConfigError, DataFileError
from memory_store import Edit

if TYPE_CHECKING:
    import torch

__all__ = ["ChangePredictor", "HypernetworkEditor", "config_of", "edited_layers", "filled"]

Made = TypeVar("Made")

_TOGETHER = 8
"""Edits of one forward and backward pass."""


class ChangePredictor(Protocol):
    """A hypernetwork attached to a model."""

    @property
    def layers(self) -> Mapping[str, tuple[int, int]]:
        """For each layer that it edits, by module path, how many numbers it reads and writes."""

    def changes(self, edits: Sequence[Edit]) -> dict[str, OuterProducts]:
        """The change of each layer's weight, a group an edit, from the model as it stands.

        Gradients flow into the hypernetwork's tensors where they are enabled.

        Args:
            edits: At least one; each by itself.

        Raises:
            UnsupportedCallError: One of them is incomplete, or too long for the model.
        """


class HypernetworkEditor:
    """A hypernetwork as a method on one model, whose weights it changes in place.

    Args:
        info: What the method is.
        subject: The model.
        predictor: The hypernetwork, attached to the same model.
    """

    def __init__(self, info: MethodInfo, subject: Subject, predictor: ChangePredictor) -> None:
        self._info = info
        self._subject = subject
        self._predictor = predictor
        self._transposed = architecture_of(subject.model).transposed
        self._weights = EditedWeights(subject.model)

    @property
    def info(self) -> MethodInfo:
        """What the method is."""
        return self._info

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the weights that are changed."""
        return tuple(f"{name}.weight" for name in self._predictor.layers)

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
                for name, change in self._predictor.changes(holding[start : start + _TOGETHER]).items():
                    parameter = f"{name}.weight"
                    added = change.total(transposed=self._transposed)
                    changed[parameter] = added + changed.get(
                        parameter, self._subject.model.get_parameter(parameter).detach()
                    )
        for name, weight in changed.items():
            if not weight.isfinite().all():
                raise ConfigError(
                    f"{self._info.name} would make {name} of {self._subject.name} infinite; undo earlier edits, or "
                    "make fewer of them"
                )
        stored = self._weights.write(changed)
        return EditCost(edits=len(edits), seconds=time.perf_counter() - started, stored_bytes=stored)

    def treat(self, prompts: Sequence[TokenIds]) -> list[Treatment]:
        """Leave every prompt as it is: the edits are in the weights."""
        return [Treatment()] * len(prompts)

    def undo(self) -> None:
        """Copy back the weights as they were before the first edit."""
        self._weights.restore()


def edited_layers(subject: Subject, layers: Sequence[int], parts: Sequence[Projection]) -> dict[str, tuple[int, int]]:
    """Module paths of the layers that a hypernetwork edits, each with how many numbers it reads and writes.

    Args:
        subject: The model.
        layers: Which layers, from 0.
        parts: Which of their projections; a gate is left out where the family has none.

    Raises:
        UnsupportedCallError: The architecture is not supported, or a weight cannot be changed.
        ConfigError: The model has no such layer.
    """
    architecture = architecture_of(subject.model)
    found: dict[str, tuple[int, int]] = {}
    for layer in layers:
        for part in parts:
            if part == "mlp_gate" and architecture.mlp_gate is None:
                continue
            name = architecture.module_name(checked_layer(subject, layer), part)
            check_changeable(subject, f"{name}.weight")
            found[name] = widths_of(subject, name)
    return found


def config_of(saved: SavedHypernetwork, make: Callable[[dict[str, Any]], Made]) -> Made:
    """What a method makes of a saved hypernetwork's shape.

    Args:
        saved: The hypernetwork.
        make: Makes it of the values of the method's config.

    Raises:
        DataFileError: The values are not those of the method's config, or do not fit the model.
    """
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in saved.config.items()}
    try:
        return make(values)
    except (TypeError, ConfigError) as error:
        raise DataFileError(f"{_named(saved)} is described wrongly: {error}") from error


def filled(module: torch.nn.Module, saved: SavedHypernetwork) -> None:
    """Copies saved tensors into a hypernetwork, all or none.

    Args:
        module: The hypernetwork.
        saved: What was saved of it.

    Raises:
        DataFileError: The tensors are not those of the hypernetwork, or not finite.
    """
    import torch

    own = module.state_dict()
    given = {name: torch.from_numpy(np.array(value)) for name, value in saved.tensors.items()}
    differing = set(own.keys() ^ given.keys())
    differing |= {name for name in own.keys() & given.keys() if own[name].shape != given[name].shape}
    if differing:
        raise DataFileError(f"{_named(saved)}: the tensors are not those it describes; {min(differing)} differs.")
    broken = [name for name, value in given.items() if not value.isfinite().all()]
    if broken:
        raise DataFileError(f"{_named(saved)}: {broken[0]} has values that are no finite numbers.")
    module.load_state_dict(given)


def _named(saved: SavedHypernetwork) -> str:
    return f"the hypernetwork of {saved.method} for {saved.base}"
