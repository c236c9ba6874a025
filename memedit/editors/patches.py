"""T-Patcher's patches as a module: extra neurons beside an MLP.

The paper's terms and losses are in `memedit.editors.t_patcher`, which trains them. This file imports torch; it knows
nothing of models or edits.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["Patches"]


class Patches(nn.Module):
    """Neurons whose output is added to that of an MLP.

    Attributes:
        keys: What each neuron answers to, k_p, ``[neurons, width]``.
        biases: b_p, ``[neurons]``.
        values: What it adds, v_p, ``[neurons, width]``.
        queries: What the MLP read where each was needed, q_e, ``[neurons, width]``.

    Args:
        width: The width of what the MLP reads and gives out.
        device: Where they are kept.
    """

    keys: torch.Tensor
    biases: torch.Tensor
    values: torch.Tensor
    queries: torch.Tensor

    def __init__(self, width: int, *, device: torch.device | str = "cpu") -> None:
        super().__init__()
        for name in ("keys", "values", "queries"):
            self.register_buffer(name, torch.zeros(0, width, device=device))
        self.register_buffer("biases", torch.zeros(0, device=device))

    def __len__(self) -> int:
        return len(self.keys)

    def activations(self, queries: torch.Tensor) -> torch.Tensor:
        """How strongly each neuron answers, ReLU(q k_p + b_p), ``[..., neurons]`` for queries ``[..., width]``."""
        return torch.relu(queries.to(self.keys) @ self.keys.T + self.biases)

    def forward(self, queries: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """What the MLP gives out: its own output where no neuron answers, with what those that do add elsewhere.

        Args:
            queries: What the MLP reads, q, ``[..., width]``.
            output: What it gives out by itself, ``[..., width]``.
        """
        active = self.activations(queries)
        answered = (active > 0).any(dim=-1, keepdim=True)
        return torch.where(answered, output + (active @ self.values).to(output.dtype), output)

    def hold(
        self, keys: torch.Tensor, biases: torch.Tensor, values: torch.Tensor, queries: torch.Tensor, *, behind: int
    ) -> None:
        """Put neurons behind the first so many, in place of those that are there."""
        self.keys = torch.cat([self.keys[:behind].detach(), keys])
        self.biases = torch.cat([self.biases[:behind].detach(), biases])
        self.values = torch.cat([self.values[:behind].detach(), values])
        self.queries = torch.cat([self.queries[:behind].detach(), queries])
