"""Text that a model makes itself, by random numbers of its own.

Some methods want texts such as the model meets: a few words to put before a prompt, or many tokens to take statistics
over. This file works on token ids and knows nothing of what they are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from memedit.passes import folded_head, pad_left, positions, takes

if TYPE_CHECKING:
    import torch

__all__ = ["sampled"]


def sampled(
    model: Any,
    beginnings: Sequence[Sequence[int]],
    *,
    tokens: int,
    generator: torch.Generator,
    top: int | None = None,
    forbidden: Sequence[int] = (),
) -> list[tuple[int, ...]]:
    """Goes on from some beginnings, one token after the other, each drawn from the model's own distribution.

    Args:
        model: The model.
        beginnings: Token ids, at least one a row.
        tokens: How many are drawn.
        generator: Random numbers, on the CPU.
        top: Of how many of the likeliest tokens one is drawn; None for all.
        forbidden: Tokens that are never drawn.

    Returns:
        For each beginning the tokens that follow.
    """
    import torch

    ids, mask = pad_left(beginnings, device=model.device)
    cache, drawn = None, []
    with torch.no_grad(), folded_head(model):
        for _ in range(tokens):
            options: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "past_key_values": cache}
            if takes(model, "position_ids"):
                options["position_ids"] = positions(mask)[:, -ids.shape[1] :]
            if takes(model, "logits_to_keep"):
                options["logits_to_keep"] = 1
            output = model(**options, use_cache=True)
            cache, logits = output.past_key_values, output.logits[:, -1].to("cpu", torch.float32)
            logits[:, list(forbidden)] = -torch.inf
            if top is not None:
                least = logits.topk(min(top, logits.shape[1]), dim=1).values[:, -1:]
                logits = logits.masked_fill(logits < least, -torch.inf)
            new = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)
            drawn.append(new)
            ids = new.to(ids.device)
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
    rows: list[list[int]] = torch.cat(drawn, dim=1).tolist() if drawn else [[] for _ in beginnings]
    return [tuple(row) for row in rows]
