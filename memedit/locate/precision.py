"""In what precision matrix products are worked out while a model is looked into.

On CPUs PyTorch hands 32-bit products to MKL, which on processors of other makers reaches half of what oneDNN does. So
within `computing` large ones go to oneDNN, in full 32-bit precision. ``bfloat16`` is PyTorch's own autocast.

This file knows nothing of what is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

__all__ = ["Precision", "computing"]

Precision = Literal["float32", "bfloat16"]
"""``float32``: the model's own precision. ``bfloat16``: 16-bit matrix products."""


@contextmanager
def computing(precision: Precision, device: torch.device) -> Iterator[None]:
    """Work out the matrix products of a block in some precision.

    Args:
        precision: Which.
        device: Where the model is.
    """
    import torch

    if precision == "bfloat16":
        with torch.autocast(device.type, torch.bfloat16):
            yield
    elif device.type == "cpu" and _has_one_dnn():
        with _linear_by_one_dnn():
            yield
    else:
        yield


def _has_one_dnn() -> bool:
    import torch

    backend: Any = torch.backends.mkldnn
    return bool(backend.is_available()) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _linear_by_one_dnn() -> Any:
    """A mode in which linear maps of 32-bit values are oneDNN's."""
    import torch
    from torch.overrides import TorchFunctionMode

    linear = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001 - the operator that torch.compile calls for one

    class LinearByOneDnn(TorchFunctionMode):
        def __torch_function__(
            self,
            func: Callable[..., Any],
            types: Any,
            args: tuple[Any, ...] = (),
            kwargs: Mapping[str, Any] | None = None,
        ) -> Any:
            if func is torch.nn.functional.linear and not kwargs and args[0].dtype == torch.float32:
                bias = args[2] if len(args) > 2 else None
                return linear(args[0], args[1], bias, "none", [], "")
            return func(*args, **(kwargs or {}))

    return LinearByOneDnn()
