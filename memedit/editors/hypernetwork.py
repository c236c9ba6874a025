"""A hypernetwork attached to a model: which weights it changes, and how it is saved and found again.

KE's and MEND's differ in what they make of an edit (`Hypernetwork.changes`) and in the network that makes it. This file
knows nothing of either, of how the changes get into the model, or of training.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import numpy as np

from memedit.architectures import Projection, architecture_of
from memedit.editors.editor import MethodInfo
from memedit.editors.examples import ExampleMaker
from memedit.editors.hypernetwork_files import SavedHypernetwork, find_hypernetwork, load_hypernetwork, packed
from memedit.editors.outer_products import OuterProducts
from memedit.editors.subject import Subject
from memedit.editors.weights import check_changeable, checked_layer, widths_of
from memedit.errors import ConfigError, DataFileError
from memory_store import Edit

if TYPE_CHECKING:
    import torch

__all__ = ["Hypernetwork", "HypernetworkConfig", "edited_layers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HypernetworkConfig:
    """What every hypernetwork has to be told.

    Attributes:
        layers: The layers that are edited, from 0.
        parts: Which of their projections.
        template: Whether edits are worded through the chat template; None for wherever the model has one.
    """

    layers: tuple[int, ...]
    parts: tuple[Projection, ...]
    template: bool | None = None

    def __post_init__(self) -> None:
        if not self.layers or not self.parts:
            raise ConfigError("layers and parts must name at least one each.")


C = TypeVar("C", bound=HypernetworkConfig)
N = TypeVar("N", bound="torch.nn.Module")


class Hypernetwork(ABC, Generic[C, N]):
    """A hypernetwork attached to a model: from edits to changes of weights.

    Attributes:
        info: The method that it belongs to.
        config_type: What its config is made by, from keyword arguments.
        config: Its shape.
        layers: The layers that it edits: for each, by module path, how many numbers it reads and writes.
        network: The network, as it begins until it is trained or loaded.

    Args:
        subject: The model.
        config: The network's shape.
        seed: What a network that is to be trained begins at.

    Raises:
        UnsupportedCallError: The model's architecture is not supported, or a weight cannot be changed.
        ConfigError: The model has no such layer, or no chat template where one is asked for.
    """

    info: ClassVar[MethodInfo]
    config_type: ClassVar[type[HypernetworkConfig]]

    def __init__(self, subject: Subject, config: C, *, seed: int = 0) -> None:
        self.config = config
        self.layers = edited_layers(subject, config.layers, config.parts)
        self._subject = subject
        self._example = ExampleMaker(subject, template=config.template)
        self.network = self._new(seed)
        self.network.to(subject.model.device)

    @abstractmethod
    def _new(self, seed: int) -> N:
        """A network that is still to be trained."""

    @abstractmethod
    def changes(self, edits: Sequence[Edit]) -> dict[str, OuterProducts]:
        """The change of each layer's weight, a group an edit, from the model as it stands.

        Gradients flow into the network's tensors where they are enabled.

        Args:
            edits: At least one; each by itself.

        Raises:
            UnsupportedCallError: One of them is incomplete, or too long for the model.
        """

    def saved(self, *, base: str, base_fingerprint: str, card: dict[str, Any]) -> SavedHypernetwork:
        """The hypernetwork as it is saved.

        Args:
            base: The model's name.
            base_fingerprint: Its fingerprint, unedited.
            card: What the training has to say.
        """
        return packed(
            self.network,
            method=self.info.name,
            base=base,
            base_fingerprint=base_fingerprint,
            config=asdict(self.config),
            card=card,
        )

    @classmethod
    def of(cls, saved: SavedHypernetwork, subject: Subject) -> Self:
        """A trained hypernetwork, attached to the model that it was trained on.

        Args:
            saved: As it was loaded.
            subject: The model.

        Raises:
            DataFileError: It is no such hypernetwork.
        """
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in saved.config.items()
        }
        try:
            config: Any = cls.config_type(**values)
            made = cls(subject, config)
        except (TypeError, ConfigError) as error:
            raise DataFileError(f"{_named(saved)} is described wrongly: {error}") from error
        _fill(made.network, saved)
        return made

    @classmethod
    def found(cls, subject: Subject, folder: str | Path | None = None) -> Self:
        """The trained hypernetwork of a model.

        Args:
            subject: The model.
            folder: Where it was saved; None for one that comes with memedit or lies in its cache.

        Raises:
            UnsupportedCallError: There is none for this model; says how one is trained.
            DataFileError: It is damaged.
        """
        name = cls.info.name
        if folder is None:
            return cls.of(find_hypernetwork(name, subject), subject)
        return cls.of(load_hypernetwork(folder, method=name, subject=subject), subject)


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


def _fill(network: torch.nn.Module, saved: SavedHypernetwork) -> None:
    """Copies saved tensors into a network, all or none.

    Raises:
        DataFileError: The tensors are not those of the network, or not finite.
    """
    import torch

    own = network.state_dict()
    given = {name: torch.from_numpy(np.array(value)) for name, value in saved.tensors.items()}
    differing = set(own.keys() ^ given.keys())
    differing |= {name for name in own.keys() & given.keys() if own[name].shape != given[name].shape}
    if differing:
        raise DataFileError(f"{_named(saved)}: the tensors are not those it describes; {min(differing)} differs.")
    broken = [name for name, value in given.items() if not value.isfinite().all()]
    if broken:
        raise DataFileError(f"{_named(saved)}: {broken[0]} has values that are no finite numbers.")
    network.load_state_dict(given)


def _named(saved: SavedHypernetwork) -> str:
    return f"the hypernetwork of {saved.method} for {saved.base}"
