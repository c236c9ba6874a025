"""Temporary changes of a model that leave no trace.

Adding a delta to a weight and subtracting it again does not restore the weight: floating-point addition rounds. So what
is changed here is cloned before and copied back after, in one ``with`` block, whatever happens inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["restored"]


@contextmanager
def restored(module: torch.nn.Module, names: Iterable[str] | None = None) -> Iterator[None]:
    """Put parameters and buffers back, bit for bit, at the end of a ``with`` block; also after an exception.

    Args:
        module: The model.
        names: Names in its ``state_dict`` of what the block may change; None for everything, which takes as much memory
            again as the model.

    Raises:
        KeyError: A name is none of the module's; nothing is changed then.
    """
    import torch

    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    chosen = list(state) if names is None else list(names)
    unknown = [name for name in chosen if name not in state]
    if unknown:
        raise KeyError(f"{unknown[0]!r} is no parameter or buffer of {type(module).__name__}")
    before = {name: state[name].detach().clone() for name in chosen}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in before.items():
                state[name].copy_(value)
