"""One forward pass over rows of different lengths: padded on the left, each with positions of its own.

A row's logits are then those that it has by itself, whatever stands beside it. This file works on token ids. It knows
nothing of edits, text or tokenizers, and leaves gradients and precision to its callers.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["folded_head", "logits_of", "max_positions", "pad_left", "positions", "takes"]


def pad_left(
    rows: Sequence[Sequence[int]], *, device: torch.device | str, pad: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring rows to one width.

    Args:
        rows: Token ids, at least one row.
        device: Where the tensors are put.
        pad: The id that stands before the shorter rows.

    Returns:
        The rows padded on the left, and a mask that is 1 for their own tokens and 0 for padding, both
        ``[rows, width]``.
    """
    import torch

    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, width - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask[place, width - len(row) :] = 1
    return ids.to(device), mask.to(device)


def positions(mask: torch.Tensor) -> torch.Tensor:
    """The place of each token among its row's own, from 0, and 0 for padding; ``mask`` is ``[rows, width]``."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def takes(model: Any, argument: str) -> bool:
    """Whether a model's forward pass has an argument of that name."""
    return argument in inspect.signature(model.forward).parameters


@contextmanager
def folded_head(model: Any) -> Iterator[None]:
    """Has a model's head read its rows as one matrix, for the length of a ``with`` block.

    Where logits are wanted for the last tokens alone, a head reads a slice of the hidden states, and PyTorch multiplies
    such a slice row by row; in 16 bits on a processor it copies the head's weights for each row to do so
    (pytorch/pytorch#151934), which can take longer than the rest of the model. The numbers are the same but for
    rounding.

    Args:
        model: The model. One that does not say what its head is, is left as it is.
    """
    get = getattr(model, "get_output_embeddings", None)
    head = get() if callable(get) else None
    if head is None:
        yield
        return
    handle = head.register_forward_pre_hook(_fold)
    try:
        yield
    finally:
        handle.remove()


def _fold(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    import torch

    hidden, *others = inputs
    # copied even where is_contiguous(): of a slice with one row the strides are those of what it was cut from
    return (hidden.clone(memory_format=torch.contiguous_format), *others)


def logits_of(
    model: Any,
    rows: Sequence[Sequence[int]],
    *,
    keep: int | None = None,
    pad: int = 0,
    parameters: dict[str, torch.Tensor] | None = None,
    **options: Any,
) -> torch.Tensor:
    """What a model makes of some rows, in one pass.

    Args:
        model: The model.
        rows: Token ids, at least one row.
        keep: At how many places, counted from the end, logits are wanted; None for all.
        pad: The id that stands before the shorter rows.
        parameters: Values in place of the model's own parameters, by name.
        **options: Passed on to the model.

    Returns:
        Logits, ``[rows, keep, vocabulary]``. The last place of each row is that of its last token.
    """
    ids, mask = pad_left(rows, device=model.device, pad=pad)
    if takes(model, "position_ids"):
        options["position_ids"] = positions(mask)
    if keep is not None and takes(model, "logits_to_keep"):
        options["logits_to_keep"] = keep
    call = model if parameters is None else partial(_with_parameters, model, parameters)
    with folded_head(model):
        logits: torch.Tensor = call(input_ids=ids, attention_mask=mask, use_cache=False, **options).logits
    return logits if keep is None else logits[:, -keep:]


def _with_parameters(model: Any, parameters: dict[str, torch.Tensor], **inputs: Any) -> Any:
    from torch.func import functional_call

    return functional_call(model, parameters, kwargs=inputs)


def max_positions(model: Any) -> int | None:
    """How many tokens a model reads at most; None where its configuration does not say so."""
    longest: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return longest
