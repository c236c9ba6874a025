"""Gradients and changes of a linear layer's weight as sums of outer products, which are never multiplied out.

The gradient of a loss by the weight ``W`` of a linear layer is ``sum_t delta_t u_t^T``: for each token what the layer
read (``u``) and the loss's gradient by what it wrote (``delta``). A hypernetwork that reads and writes such pairs has
thousands of numbers a token to deal with instead of the millions of a weight (Mitchell et al. 2022, Fast Model Editing
at Scale, section 3.1), and a change kept as pairs can be tried on a model without a copy of the weight: what the layer
writes moves by ``sum_t delta_t (u_t . x)``.

Works on ``Linear`` and on GPT-2's ``Conv1D`` alike, which differ only in how they keep a weight. This file knows
nothing of edits, of losses, or of what the pairs are made into.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["OuterProducts", "gradient_parts", "shifted"]


@dataclass(frozen=True, slots=True)
class OuterProducts:
    """Sums of outer products, one sum a group: of a batch's rows each has one, or all share one.

    Attributes:
        inputs: What stands on the side of the layer's input, ``[groups, tokens, in]``.
        deltas: What stands on the side of its output, ``[groups, tokens, out]``; zero where a token has no part in it.
    """

    inputs: torch.Tensor
    deltas: torch.Tensor

    def total(self, *, transposed: bool = False) -> torch.Tensor:
        """The sum over all groups and tokens, as the layer keeps its weight.

        Args:
            transposed: Whether that is ``[in, out]`` (``Conv1D``) instead of ``[out, in]``.
        """
        inputs, deltas = self.inputs.flatten(0, 1), self.deltas.flatten(0, 1)
        return inputs.mT @ deltas if transposed else deltas.mT @ inputs

    def together(self, groups: int) -> OuterProducts:
        """The same with so many groups summed at a time, in order: edits that are made together."""
        inputs = self.inputs.reshape(-1, groups * self.inputs.shape[1], self.inputs.shape[2])
        return OuterProducts(inputs, self.deltas.reshape(*inputs.shape[:2], self.deltas.shape[2]))


def gradient_parts(model: Any, layers: Sequence[str], loss: Callable[[], torch.Tensor]) -> dict[str, OuterProducts]:
    """The gradients of a loss by the weights of some layers, as outer products; no weight needs to take gradients.

    Args:
        model: The model.
        layers: Module paths of linear layers that the loss calls once each.
        loss: Calls the model on a batch and returns a scalar.

    Returns:
        For each layer one group a row of the batch. In 32-bit precision or the model's own where that is
        higher, and without gradients of their own.
    """
    import torch

    inputs: dict[str, torch.Tensor] = {}
    probes: dict[str, torch.Tensor] = {}

    def watch(name: str) -> Callable[[Any, Any, torch.Tensor], torch.Tensor]:
        def probe(_module: Any, read: tuple[torch.Tensor, ...], written: torch.Tensor) -> torch.Tensor:
            inputs[name] = read[0].detach()
            # its gradient is that of what the layer wrote, and it takes one also where nothing before it does
            probes[name] = torch.zeros_like(written, requires_grad=True)
            return written + probes[name]

        return probe

    with ExitStack() as hooks, torch.enable_grad():
        for name in layers:
            hooks.callback(model.get_submodule(name).register_forward_hook(watch(name)).remove)
        value = loss()
        deltas = torch.autograd.grad(value, [probes[name] for name in layers])

    def precise(value: torch.Tensor) -> torch.Tensor:
        return value.to(torch.promote_types(value.dtype, torch.float32))

    return {
        name: OuterProducts(precise(inputs[name]), precise(delta)) for name, delta in zip(layers, deltas, strict=True)
    }


@contextmanager
def shifted(model: Any, changes: Mapping[str, OuterProducts]) -> Iterator[None]:
    """Have a model compute as if the weights of some layers were changed, for the length of a block.

    Gradients flow into the changes. With several groups a batch is divided among them, equally many rows each, in
    order.

    Args:
        model: The model.
        changes: What is added to each layer's weight, by module path.
    """

    def move(change: OuterProducts) -> Callable[[Any, Any, torch.Tensor], torch.Tensor]:
        def hook(_module: Any, read: tuple[torch.Tensor, ...], written: torch.Tensor) -> torch.Tensor:
            rows = read[0].reshape(len(change.inputs), -1, read[0].shape[-1]).to(change.inputs.dtype)
            moved = (rows @ change.inputs.mT) @ change.deltas
            return written + moved.reshape(written.shape).to(written.dtype)

        return hook

    with ExitStack() as hooks:
        for name, change in changes.items():
            hooks.callback(model.get_submodule(name).register_forward_hook(move(change)).remove)
        yield
