"""The seam between the loop and what is trained: tensors, batches, a loss, and figures that say how good it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    import torch

__all__ = ["ParameterGroup", "StatefulTask", "Task"]

Batch = TypeVar("Batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterGroup:
    """Tensors that are trained in the same way.

    Attributes:
        tensors: The tensors, by names that are the same in every run and in no other group.
        learning_rate_scale: What the learning rate is multiplied by.
        weight_decay: Whether the weights decay.
    """

    tensors: Mapping[str, torch.nn.Parameter]
    learning_rate_scale: float = 1.0
    weight_decay: bool = True


class Task(Protocol[Batch]):
    """What is trained: its tensors, its data, its loss, and how good it is.

    A task puts its modules into training or evaluation mode itself, in `loss` and `evaluate`. Where it draws outside
    torch, it makes a generator from the seed and the batch's index.
    """

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def maximised(self) -> str:
        """The name of the dev figure that chooses the best state; more is better."""
        ...

    def identity(self) -> Mapping[str, Any]:
        """All that the result depends on besides `LoopSettings`: settings, hashes of data and base model; as JSON."""
        ...

    def parameters(self) -> Sequence[ParameterGroup]:
        """The tensors, on `device_for` of the settings; asked for once. They are changed in place."""
        ...

    def batch(self, index: int) -> Batch:
        """The batch of an index, counted from 0: the same whenever it is asked for with the same seed and state."""
        ...

    def loss(self, batch: Batch) -> tuple[torch.Tensor, Mapping[str, float | torch.Tensor]]:
        """The loss of a batch, a scalar to be minimised, and the losses it is made of by name, for the log."""
        ...

    def evaluate(self) -> Mapping[str, float]:
        """The figures on dev records, `maximised` among them; called without gradients."""
        ...


@runtime_checkable
class StatefulTask(Protocol):
    """A task whose batches depend on something it gathers while it trains, such as mined pairs."""

    def state(self) -> dict[str, Any]:
        """What it has gathered, as JSON."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state` gave."""
        ...
