"""Changes of a model that leave no trace once they are taken back.

Adding a delta to a weight and subtracting it again does not restore the weight: floating-point addition rounds. So what
is changed here is cloned before and copied back after, in one ``with`` block, whatever happens inside (`restored`).
What is put beside a module (`Attachment`), or run in its place
(`running_instead`), changes no weight at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["Attachment", "restored", "running_instead"]


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


@contextmanager
def running_instead(modules: Sequence[torch.nn.Module], forward: Callable[..., Any]) -> Iterator[None]:
    """Have modules run something else in place of their forward pass, for the length of a ``with`` block.

    A forward pass that one of them was given by itself before, as `accelerate` does, is there again afterwards.

    Args:
        modules: The modules.
        forward: Called with what the modules are called with.
    """
    own = [vars(module).get("forward") for module in modules]
    try:
        for module in modules:
            vars(module)["forward"] = forward
        yield
    finally:
        for module, before in zip(modules, own, strict=True):
            vars(module).pop("forward", None)
            if before is not None:
                vars(module)["forward"] = before


class Attachment:
    """A module put beside one of a model's own: it is given what that one reads and gives out, and gives out instead.

    It is a submodule of its host, so that it is copied, moved and saved with the model, and its buffers stand in the
    model's ``state_dict``.

    Args:
        model: The model.
        path: The host's path.
        name: What the addition is called in the host.
        addition: Called with the host's first input and its output.

    Raises:
        ValueError: The host has something of that name.
    """

    def __init__(self, model: torch.nn.Module, path: str, name: str, addition: torch.nn.Module) -> None:
        host = model.get_submodule(path)
        if hasattr(host, name):
            raise ValueError(f"{path} has a '{name}' already; undo the method that put it there first")

        def instead(module: torch.nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
            return getattr(module, name)(inputs[0], output)

        self._host, self._name = host, name
        host.add_module(name, addition)
        self._handle = host.register_forward_hook(instead)

    def exchange(self, addition: torch.nn.Module) -> None:
        """Put another module in the addition's place."""
        self._host.add_module(self._name, addition)

    def remove(self) -> None:
        """Leave the host as it was."""
        self._handle.remove()
        delattr(self._host, self._name)
