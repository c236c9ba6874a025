"""What a processor is good at. This file knows nothing of models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["IMITATION", "multiplies_in_bfloat16"]

IMITATION = "this processor does not multiply in bfloat16 and imitates it, several times as slowly as float32"
"""What to tell whoever asks for bfloat16 where it does not pay."""


def multiplies_in_bfloat16(device: torch.device | str | None = None) -> bool:
    """Whether a device has instructions for bfloat16. One that has none imitates it.

    Args:
        device: The device; None for the CPU.
    """
    import torch

    if device is not None and torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # PyTorch's own list of what a processor can do is newer than the oldest PyTorch that is supported
    known: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(bool(known.get(name)) for name in ("avx512_bf16", "amx_bf16"))
