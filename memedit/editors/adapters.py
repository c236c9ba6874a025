"""Low-rank adapters that are put into a model for as long as they are trained, and leave nothing behind.

The adapters are peft's. It puts them in the place of the model's own modules and freezes parameters; here the modules,
the flags and everything else that it writes on the model are put back, whatever happens. What was learnt is merged into
copies of the weights. This file knows nothing of how adapters are trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from memedit.architectures import architecture_of
from memedit.editors.subject import Subject
from memedit.editors.weights import check_changeable
from memedit.errors import UnsupportedCallError

if TYPE_CHECKING:
    import torch

__all__ = ["adapted", "adapted_paths", "check_peft", "merged"]

ADAPTER = "edit"
"""What an adapter is called inside peft."""


def check_peft(method: str) -> None:
    """Refuse a method where peft is not installed.

    Raises:
        UnsupportedCallError: It is not.
    """
    from importlib.util import find_spec

    if find_spec("peft") is None:
        raise UnsupportedCallError(f"{method} needs peft, which is not installed: pip install 'memedit[training]'")


def adapted_paths(subject: Subject) -> tuple[str, ...]:
    """The modules that are adapted: every layer's projections to queries and values, as Hu et al. 2022 have it.

    Raises:
        UnsupportedCallError: The architecture is not supported, or a weight is quantised.
    """
    architecture = architecture_of(subject.model)
    paths = tuple(
        f"{architecture.module_name(layer)}.{inside}"
        for layer in range(architecture.layer_count(subject.model))
        for inside in architecture.queries_and_values
    )
    for path in paths:
        check_changeable(subject, f"{path}.weight")
    return paths


@contextmanager
def adapted(model: Any, paths: Sequence[str], put_in: Callable[[], Any], *, seed: int) -> Iterator[Any]:
    """Have adapters in a model for the length of a ``with`` block.

    Args:
        model: The model.
        paths: The modules that are adapted.
        put_in: Puts the adapters in, and returns what peft makes of it.
        seed: What draws their first values; the global generator is as it was afterwards.
    """
    import torch

    modules = {path: model.get_submodule(path) for path in paths}
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    attributes = dict(vars(model))
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            tuner = put_in()
        yield tuner
    finally:
        for path, module in modules.items():
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, module)
        for name in set(vars(model)) - set(attributes):
            delattr(model, name)
        for name, flag in flags.items():
            model.get_parameter(name).requires_grad_(flag)


def merged(model: Any, paths: Sequence[str]) -> dict[str, torch.Tensor]:
    """What the weights become with what their adapters have learnt; the model's own stay as they are.

    Args:
        model: The model, with its adapters.
        paths: The adapted modules.

    Returns:
        New values by the names that the parameters have without adapters, at least 32-bit.
    """
    import torch

    values = {}
    with torch.no_grad():
        for path in paths:
            layer = model.get_submodule(path)
            weight, change = layer.base_layer.weight, layer.get_delta_weight(ADAPTER)
            values[f"{path}.weight"] = weight.to(torch.promote_types(weight.dtype, torch.float32)) + change
    return values
