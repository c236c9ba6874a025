"""KE's hypernetwork: an LSTM reads an edit, and what it makes of it gates and bends the gradient.

De Cao et al. 2021, Editing Factual Knowledge in Language Models, section 4.2. A bidirectional LSTM reads the prompt x,
the answer y that the model gives now, and the answer a that it is to give, with separators between them; its last
states ``h`` go through a feed-forward network for each edited weight ``W``. That gives vectors ``alpha, beta`` (as many
numbers as the layer writes), ``gamma, delta`` (as many as it reads) and a number ``eta``. With the softmax ``s``::

    A = s(alpha) gamma^T    B = s(beta) delta^T                          (6)
    dW = scale * sigmoid(eta) * (A * grad_W L(W; x, a) + B)              (5)

``A * grad`` is taken element by element; the gradient being a sum of outer products, so is ``dW``. The factor ``scale``
is 1 in the paper and a setting in its authors' program: a softmax over hundreds of outputs makes everything behind it
as many times smaller.

A new network is a step of gradient descent, nearly: ``gamma`` begins near -1, ``delta`` near 0, the softmaxes near
uniform. Such a step is a bad place to begin at, since a few of the numbers that a layer reads are hundreds of times as
large as the others and get nearly all of the change. `KeNetwork.begin_at` has ``gamma`` and ``alpha`` begin where each
number that is read or written has a like part in it. This file knows nothing of models, edits or training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from memedit.editors.outer_products import OuterProducts

__all__ = ["KeNetwork"]

_SMALL = 0.01
"""What the last layers' weights are multiplied by at the beginning."""

_LEAST = 1e-2
"""The least size of a number that is read or written, over the median of all."""


class _Head(nn.Module):
    """The feed-forward network of one weight."""

    def __init__(self, inputs: int, outputs: int, *, states: int, condition: int, scale: float) -> None:
        super().__init__()
        self.inputs, self.outputs, self.scale = inputs, outputs, scale
        self.first = nn.Linear(states, condition)
        self.last = nn.Linear(condition, 2 * (inputs + outputs) + 1)
        with torch.no_grad():
            self.last.weight.mul_(_SMALL)
            self.last.bias.zero_()
            self.last.bias[2 * outputs : 2 * outputs + inputs] = -1.0  # gamma

    def begin_at(self, inputs: torch.Tensor, deltas: torch.Tensor, *, rate: float) -> None:
        """Has the change begin as ``-rate`` times the gradient, each of its rows and columns over their usual size.

        Args:
            inputs: How large what the layer reads is as a rule, ``[in]``.
            deltas: The same of the loss's gradient by what it writes, ``[out]``.
            rate: The step.
        """
        with torch.no_grad():
            total = (1 / deltas).sum()
            self.last.bias[: self.outputs] = -deltas.log()  # alpha: its softmax is 1 / (deltas * total)
            gate = self.scale / 2  # eta is 0
            self.last.bias[2 * self.outputs : 2 * self.outputs + self.inputs] = -rate * total / gate / inputs

    def forward(self, states: torch.Tensor, gradient: OuterProducts) -> OuterProducts:
        """The change ``dW``, a group an edit: the gradient's tokens, bent, and one more for ``B``."""
        made = self.last(torch.tanh(self.first(states)))
        ends = (self.outputs, 2 * self.outputs, 2 * self.outputs + self.inputs, 2 * (self.outputs + self.inputs))
        alpha, beta, gamma, delta, eta = torch.tensor_split(made[:, None], ends, dim=-1)
        gate = self.scale * torch.sigmoid(eta)
        inputs = torch.cat([gradient.inputs.to(made.dtype) * gamma, delta], dim=1)
        deltas = torch.cat([gradient.deltas.to(made.dtype) * alpha.softmax(-1), beta.softmax(-1)], dim=1)
        return OuterProducts(inputs, gate * deltas)


class KeNetwork(nn.Module):
    """The hypernetwork for all edited layers of a model.

    Args:
        shapes: For each layer, by module path, how many numbers it reads and writes.
        width: Numbers of a token's embedding.
        hidden: Hidden numbers of the LSTM in each direction.
        condition: Hidden numbers of the network of each weight.
        scale: The factor of equation 5.
        seed: What the beginning is drawn by.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, int]],
        *,
        width: int,
        hidden: int,
        condition: int,
        scale: float,
        seed: int = 0,
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.separators = nn.Parameter(torch.randn(2, width) * 0.1)
            self.lstm = nn.LSTM(width, hidden, batch_first=True, bidirectional=True)
            heads = [_Head(*shape, states=2 * hidden, condition=condition, scale=scale) for shape in shapes.values()]
        self._heads: tuple[_Head, ...] = tuple(heads)
        self.heads = nn.ModuleList(heads)
        self._names = tuple(shapes)

    def forward(
        self, gradients: Mapping[str, OuterProducts], texts: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
    ) -> dict[str, OuterProducts]:
        """The changes of the layers' weights.

        Args:
            gradients: For each layer, by module path, the gradient by its weight, a group an edit.
            texts: For each edit the embeddings of its prompt, of the answer now, and of the answer that is to be, each
                ``[tokens, width]``.
        """
        # an LSTM has no half-precision form on every device, and this one is small
        with torch.autocast(self.separators.device.type, enabled=False):
            states = self._read(texts)
            return {name: head(states, gradients[name]) for name, head in zip(self._names, self.heads, strict=True)}

    def begin_at(self, gradients: Sequence[Mapping[str, OuterProducts]], *, rate: float) -> None:
        """Has a new network begin at a step along gradients whose rows and columns are brought to one size.

        Args:
            gradients: Of some edits, as `forward` is given them; tokens without a part in the gradient do not count.
            rate: The step.
        """
        for name, head in zip(self._names, self._heads, strict=True):
            inputs = torch.cat([one[name].inputs.flatten(0, 1) for one in gradients])
            deltas = torch.cat([one[name].deltas.flatten(0, 1) for one in gradients])
            counting = deltas.ne(0).any(dim=-1)
            head.begin_at(_size(inputs[counting]), _size(deltas[counting]), rate=rate)

    def _read(self, texts: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        """The last states of both directions for each edit, ``[edits, 2 * hidden]``."""
        first, second = self.separators[:1], self.separators[1:]
        rows = [torch.cat([prompt, first, now, second, target]) for prompt, now, target in texts]
        packed = nn.utils.rnn.pack_sequence(rows, enforce_sorted=False)
        _, (last, _) = self.lstm(packed)
        states: torch.Tensor = torch.cat([last[0], last[1]], dim=-1)
        return states


def _size(rows: torch.Tensor) -> torch.Tensor:
    """The root mean square of each column of ``[rows, columns]``; one that is next to nothing counts as a little."""
    sizes = rows.float().square().mean(dim=0).sqrt()
    return sizes.clamp(min=max(_LEAST * float(sizes.median()), math.ulp(0.0)))
