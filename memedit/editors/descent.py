"""Gradient descent on a few tensors until some edits are learnt: the loop that every trained method shares.

A mini-batch whose loss is low enough is passed over, and descent ends with the first pass in which all were. What is
descended on, by which optimiser and what a step has to keep to is its caller's. This file knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from memedit.errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = ["descend", "mini_batches"]

T = TypeVar("T")


def mini_batches(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """The items in their order, so many at a time."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def descend(
    optimizer: torch.optim.Optimizer,
    batches: Sequence[T],
    loss: Callable[[T], torch.Tensor],
    *,
    steps: int,
    stop_loss: float,
    before_step: Callable[[], None] | None = None,
    after_step: Callable[[], None] | None = None,
) -> int:
    """Lower the loss of each mini-batch until it is low enough, or the passes are used up.

    Gradients are those of the optimiser's own tensors alone; no other tensor's ``grad`` is touched.

    Args:
        optimizer: Has the tensors.
        batches: The mini-batches.
        loss: The loss of one, a scalar.
        steps: The most passes over the mini-batches.
        stop_loss: A mini-batch whose loss is below this is passed over.
        before_step: Called where the gradients are there and no step has been made, such as to mask them.
        after_step: Called after each step, such as to hold a constraint.

    Returns:
        How many steps were made.

    Raises:
        ConfigError: The loss or a tensor is no longer finite.
    """
    import torch

    tensors: list[torch.Tensor] = [one for group in optimizer.param_groups for one in group["params"]]
    made = 0
    for _ in range(steps):
        earlier = made
        for batch in batches:
            with torch.enable_grad():
                value = loss(batch)
            if value.item() < stop_loss:
                continue
            for tensor, gradient in zip(tensors, torch.autograd.grad(value, tensors), strict=True):
                tensor.grad = gradient
            if before_step is not None:
                before_step()
            optimizer.step()
            if after_step is not None:
                after_step()
            made += 1
            if not (value.isfinite() and all(tensor.isfinite().all() for tensor in tensors)):
                rate = optimizer.param_groups[0]["lr"]
                raise ConfigError(f"training diverged at learning_rate {rate}; take a smaller one.")
        if made == earlier:
            break
    return made
