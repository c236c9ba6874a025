"""MEND's editor networks: small MLPs that turn the outer products of a gradient into those of an edit.

Mitchell et al. 2022, Fast Model Editing at Scale, section 3. Layers whose weights have one shape share a network and
have scales and offsets of their own (equation 3); with ``z = concat(norm(u), norm(delta))``::

    h = z + relu(s1 * (U1 V1 z + b) + o1)          (3a)
    g(z) = h + s2 * (U2 V2 h) + o2                 (3b)

where ``U`` begins at zero, so that ``g(z) = z`` and the first edit is a step of gradient descent along normalised
gradients. Equation 3b has another relu, through which no coordinate could ever become smaller; as in the networks that
its authors published, there is none here. Each coordinate of ``u`` and ``delta`` is normalised by its mean and
deviation over training edits, since the two differ by orders of magnitude.

This file knows nothing of models, edits or training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from memedit.editors.outer_products import OuterProducts

__all__ = ["MendNetwork", "ShapeNetwork"]

_LEAST_DEVIATION = 1e-3
"""Coordinates that hardly vary are divided by this share of the mean deviation instead of their own."""


class ShapeNetwork(nn.Module):
    """The editor network of all layers whose weights have one shape.

    Args:
        inputs: Numbers that such a layer reads.
        outputs: Numbers that it writes.
        layers: How many layers share the network.
        rank: Rank of ``U V``.
        learning_rate: What the learned learning rates of the layers begin at.
        generator: What ``V`` is drawn by.
    """

    input_mean: torch.Tensor
    input_deviation: torch.Tensor
    delta_mean: torch.Tensor
    delta_deviation: torch.Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        layers: int,
        rank: int,
        learning_rate: float,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        width = inputs + outputs
        for name, size in (("input", inputs), ("delta", outputs)):
            self.register_buffer(f"{name}_mean", torch.zeros(layers, size))
            self.register_buffer(f"{name}_deviation", torch.ones(layers, size))
        self.u1, self.u2 = (nn.Parameter(torch.zeros(width, rank)) for _ in range(2))
        self.v1, self.v2 = (
            nn.Parameter(nn.init.xavier_uniform_(torch.empty(rank, width), generator=generator)) for _ in range(2)
        )
        self.bias = nn.Parameter(torch.zeros(width))
        self.scale1, self.scale2 = (nn.Parameter(torch.ones(layers, width)) for _ in range(2))
        self.offset1, self.offset2 = (nn.Parameter(torch.zeros(layers, width)) for _ in range(2))
        self.log_rate = nn.Parameter(torch.full((layers,), math.log(learning_rate)))

    def forward(self, gradient: OuterProducts, layer: int) -> OuterProducts:
        """The change of a weight.

        Args:
            gradient: The gradient by that weight.
            layer: Which of the layers it is.

        Returns:
            ``-alpha delta' u'^T`` for each token on which the loss depends, zero for the others.
        """
        active = (gradient.deltas != 0).any(dim=-1, keepdim=True)
        inputs = (gradient.inputs.to(self.bias.dtype) - self.input_mean[layer]) / self.input_deviation[layer]
        deltas = (gradient.deltas.to(self.bias.dtype) - self.delta_mean[layer]) / self.delta_deviation[layer]
        z = torch.cat([inputs, deltas], dim=-1)
        # clamp and not relu, whose gradient at 0, where every coordinate begins, is 0
        h = z + (self.scale1[layer] * (z @ self.v1.mT @ self.u1.mT + self.bias) + self.offset1[layer]).clamp(min=0)
        g = h + self.scale2[layer] * (h @ self.v2.mT @ self.u2.mT) + self.offset2[layer]
        read = inputs.shape[-1]
        return OuterProducts(g[..., :read], -self.log_rate[layer].exp() * g[..., read:] * active)

    @torch.no_grad()
    def normalise_by(self, gradients: Sequence[OuterProducts], layer: int) -> None:
        """Takes means and deviations of a layer from gradients, of the tokens that have a part in them."""
        active = [(one.deltas != 0).any(dim=-1) for one in gradients]
        for name, rows in (
            ("input", torch.cat([one.inputs[tokens] for one, tokens in zip(gradients, active, strict=True)])),
            ("delta", torch.cat([one.deltas[tokens] for one, tokens in zip(gradients, active, strict=True)])),
        ):
            deviation, mean = torch.std_mean(rows, dim=0, correction=0)
            getattr(self, f"{name}_mean")[layer] = mean
            getattr(self, f"{name}_deviation")[layer] = deviation.clamp(min=_LEAST_DEVIATION * float(deviation.mean()))


class MendNetwork(nn.Module):
    """The editor networks of all edited layers of a model.

    Args:
        shapes: For each layer, by module path, how many numbers it reads and writes.
        rank: Rank of the networks.
        learning_rate: What the learned learning rates begin at.
        seed: What the networks' beginning is drawn by.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, int]], *, rank: int, learning_rate: float, seed: int = 0
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        of_shape: dict[tuple[int, int], list[str]] = {}
        for name, shape in shapes.items():
            of_shape.setdefault(shape, []).append(name)
        self._place = {name: (_key(shapes[name]), of_shape[shapes[name]].index(name)) for name in shapes}
        self.shapes = nn.ModuleDict(
            {
                _key(shape): ShapeNetwork(
                    *shape, layers=len(names), rank=rank, learning_rate=learning_rate, generator=generator
                )
                for shape, names in of_shape.items()
            }
        )

    def forward(self, gradients: Mapping[str, OuterProducts]) -> dict[str, OuterProducts]:
        """The changes of the layers' weights; for each layer, by module path, from the gradient by its weight."""
        changes: dict[str, OuterProducts] = {}
        for name, gradient in gradients.items():
            shape, layer = self._place[name]
            changes[name] = self.shapes[shape](gradient, layer)
        return changes

    def normalise_by(self, gradients: Sequence[Mapping[str, OuterProducts]]) -> None:
        """Takes the statistics of normalisation from gradients of some edits."""
        for name, (shape, layer) in self._place.items():
            network = self.shapes[shape]
            if isinstance(network, ShapeNetwork):
                network.normalise_by([one[name] for one in gradients], layer)


def _key(shape: tuple[int, int]) -> str:
    return f"{shape[0]}x{shape[1]}"
