"""Language models and their tokenizers by name, without edits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from classifiers import quiet_transformers
from memedit.pulling import resolve

if TYPE_CHECKING:
    import torch

__all__ = ["load_model"]


def load_model(
    name_or_path: str | Path, *, dtype: torch.dtype | str = "auto", device: torch.device | str | None = None
) -> tuple[Any, Any]:
    """Load a model and its tokenizer by name, without an edit memory.

    Args:
        name_or_path: A folder, or a name that :func:`memedit.resolve` finds.
        dtype: The weights' type; ``"auto"`` for the one they were saved in.
        device: Where the model is put; None for the CPU.

    Returns:
        The model, in evaluation mode, and its tokenizer, which pads on the left.

    Raises:
        ModelNotFoundError: Nothing is known under that name.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = resolve(str(name_or_path))
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True).eval()
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if device is not None:
        model = model.to(device)
    return model, tokenizer
