"""The fingerprint of a language model in memory: two models that answer alike have the same one.

Knows parameters and configurations; nothing of where a model came from. The fingerprint of an encoder's folder, which
reads files, is `classifiers.fingerprint`.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

__all__ = ["model_fingerprint"]

_SAMPLED_VALUES = 4_096
"""Values of each parameter that its part of the fingerprint reads."""

_NOT_OF_THE_MODEL = frozenset({"_name_or_path", "architectures", "dtype", "transformers_version"})
"""Entries of a configuration that tell of its loading; the fingerprint reads the type of each parameter itself."""


def model_fingerprint(model: Any) -> str:
    """Digests a model's configuration and a sample of every parameter's values.

    Where the model was loaded from, and with which version of ``transformers``, leaves it as it is; so does the device.

    Args:
        model: A ``transformers`` model.

    Returns:
        The first 16 hexadecimal digits of a SHA-256.
    """
    import torch

    config = {name: value for name, value in model.config.to_dict().items() if name not in _NOT_OF_THE_MODEL}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, value in model.state_dict().items():
        flat = value.detach().reshape(-1)
        step = max(1, flat.numel() // _SAMPLED_VALUES)
        digest.update(f"{name}{list(value.shape)}{value.dtype}".encode())
        digest.update(flat[::step].to("cpu", torch.float32).numpy().tobytes())
    return digest.hexdigest()[:16]
