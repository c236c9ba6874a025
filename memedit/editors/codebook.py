"""GRACE's codebook as a module: keys, values and deferral radii, looked up at every position.

The paper's terms and equation are in `memedit.editors.grace`, which decides what goes into it. This file imports torch;
it knows nothing of models or edits.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["Codebook"]


class Codebook(nn.Module):
    """Entries of a key, a value, a radius and an answer.

    Attributes:
        keys: What the layer reads at the edits, ``[entries, read]``.
        values: What it gives out instead near them, ``[entries, given]``.
        radii: How near, ``[entries]``.
        answers: Of each entry, the token ids that its value was trained for.

    Args:
        read: The width of what the layer reads.
        given: The width of what it gives out.
        device: Where the entries are kept.
    """

    keys: torch.Tensor
    values: torch.Tensor
    radii: torch.Tensor

    def __init__(self, read: int, given: int, *, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(0, read, device=device))
        self.register_buffer("values", torch.zeros(0, given, device=device))
        self.register_buffer("radii", torch.zeros(0, device=device))
        self.answers: list[tuple[int, ...]] = []

    def __len__(self) -> int:
        return len(self.answers)

    def nearest(self, queries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The nearest entry of each query.

        Args:
            queries: ``[..., read]``. There must be an entry.

        Returns:
            Euclidean distances and entries, both ``[...]``. Of several that are as near, the first.
        """
        flat = queries.reshape(-1, queries.shape[-1]).to(self.keys)
        # not by inner products, which would lose the small distances to rounding
        distances = torch.cdist(flat, self.keys, compute_mode="donot_use_mm_for_euclid_dist")
        smallest, entries = distances.min(dim=1)
        return smallest.reshape(queries.shape[:-1]), entries.reshape(queries.shape[:-1])

    def forward(self, queries: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """What the layer gives out: its own output outside every ball, the nearest entry's value inside.

        Args:
            queries: What it reads, ``[..., read]``.
            output: What it gives out by itself, ``[..., given]``.
        """
        if not len(self):
            return output
        distances, entries = self.nearest(queries)
        inside = distances <= self.radii[entries]
        return torch.where(inside[..., None], self.values[entries].to(output.dtype), output)

    def add(self, key: torch.Tensor, value: torch.Tensor, *, radius: float, answer: tuple[int, ...]) -> int:
        """Add an entry.

        Args:
            key: ``[read]``.
            value: ``[given]``.
            radius: How near a query has to be.
            answer: What the value is to make the model say.

        Returns:
            Its place.
        """
        self.keys = torch.cat([self.keys, key[None].to(self.keys)])
        self.values = torch.cat([self.values, value[None].to(self.values)])
        self.radii = torch.cat([self.radii, self.radii.new_tensor([radius])])
        self.answers = [*self.answers, answer]
        return len(self) - 1
