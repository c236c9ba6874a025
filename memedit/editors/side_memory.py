"""WISE's side memory as a module: another value matrix beside a layer's own, and the route between the two.

The paper's terms are in `memedit.editors.wise`, which trains it. The side memory W_v' is kept as its difference from
the main memory, W_v' - W_v: that is what the routing measures, and with it the side memory's output is the layer's own
plus a product. This file imports torch; it knows nothing of models or edits.
"""

from __future__ import annotations

import math

import torch
from torch import nn

__all__ = ["SideMemory", "ties"]


class SideMemory(nn.Module):
    """A side memory, made of shards that were learnt apart and merged.

    Attributes:
        difference: The side memory less the main memory, W_v' - W_v, ``[read, given]``.
        shards: Of each shard the same, before merging, ``[shards, read, given]``.
        read: What the layer reads where an edit's answer is predicted, of every edit, ``[positions, read]``.
        threshold: The activation above which the side memory answers, epsilon, ``[]``.
        edits: How many edits it holds.
        routed: Where the side memory answers in training, ``[rows, positions]``; None for the route by activation.

    Args:
        read: The width of what the layer reads.
        given: The width of what it gives out.
        device: Where it is kept.
    """

    difference: torch.Tensor
    shards: torch.Tensor
    read: torch.Tensor
    threshold: torch.Tensor

    def __init__(self, read: int, given: int, *, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.register_buffer("difference", torch.zeros(read, given, device=device))
        self.register_buffer("shards", torch.zeros(0, read, given, device=device))
        self.register_buffer("read", torch.zeros(0, read, device=device))
        self.register_buffer("threshold", torch.tensor(math.inf, device=device))
        self.edits = 0
        self.routed: torch.Tensor | None = None

    def activation(self, inputs: torch.Tensor) -> torch.Tensor:
        """How far the two memories answer apart, ||A(x) (W_v' - W_v)||_2, ``[...]`` for inputs ``[..., read]``."""
        length: torch.Tensor = (inputs.to(self.difference) @ self.difference).norm(dim=-1)
        return length

    def forward(self, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """The main memory's output, or the side memory's where the activation is above the threshold.

        Args:
            inputs: What the layer reads, A(x), ``[..., read]``.
            output: What it gives out by itself, ``[..., given]``.
        """
        apart = inputs.to(self.difference) @ self.difference
        routed = apart.norm(dim=-1) > self.threshold if self.routed is None else self.routed
        return torch.where(routed[..., None], output + apart.to(output.dtype), output)

    def merge(self, *, density: float, ratio: float) -> None:
        """Merge the shards into the side memory, and set the threshold anew.

        Args:
            density: The share of each shard's entries that is kept (`ties`).
            ratio: The threshold is this share of the smallest activation over the edits.
        """
        self.difference = ties(self.shards, density=density)
        self.threshold = self.activation(self.read).min() * ratio


def ties(differences: torch.Tensor, *, density: float) -> torch.Tensor:
    """Merge several changes of one weight into one.

    Yadav et al. 2023, *TIES-Merging: Resolving Interference When Merging Models*, Algorithm 1 with lambda 1: of each
    change the largest entries are kept (trim); each entry's sign is that of the sum (elect); the changes that have it
    are averaged, zeros left out (disjoint merge).

    Args:
        differences: The changes, ``[changes, ...]``, at least one.
        density: The share of entries that trimming keeps, above 0 to 1.

    Returns:
        The merged change, ``[...]``.
    """
    flat = differences.flatten(1)
    kept = max(1, math.ceil(density * flat.shape[1]))
    smallest = flat.abs().topk(kept, dim=1).values[:, -1:]
    trimmed = torch.where(flat.abs() >= smallest, flat, 0)
    elected = trimmed.sum(dim=0).sign()
    agreeing = (trimmed.sign() == elected) & (trimmed != 0)
    merged = (trimmed * agreeing).sum(dim=0) / agreeing.sum(dim=0).clamp(min=1)
    return merged.reshape(differences.shape[1:])
