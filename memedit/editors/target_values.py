"""The values that make a model say new facts: what one of its modules should write at a fact's token.

A vector is added to what the module writes there, and Adam fits it (Meng et al. 2022, eq. 4): the mean of
-log p(target | x_j + prompt) over contexts x_j, plus a divergence KL(p' || p) of the next-token distributions on the
essence prompt, plus a decay of its length. No weight changes. Several facts are fitted in one batch, each by its own
loss, so that each comes out as it would alone; one that is learnt leaves the batch.

This file knows nothing of how a value is then written into weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from memedit.editors.activations import SplitPass, activations
from memedit.editors.located import FactRow, LocateConfig, LocatedFact
from memedit.errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = ["TargetLoss", "target_values"]

_IGNORED = -100
_MOST_ROWS = 96
"""Rows that are fitted together: enough for full matrix products, few enough for the memory that logits take."""


def target_values(
    model: Any,
    facts: Sequence[LocatedFact],
    config: LocateConfig,
    *,
    layer: int,
    modules: Sequence[str],
    parameters: Mapping[str, torch.Tensor] | None = None,
) -> torch.Tensor:
    """The values that one module should write at the facts' tokens.

    Args:
        model: The model.
        facts: The facts.
        config: How to fit.
        layer: The layer that the modules belong to.
        modules: What the vectors are added to: the module in question, then any that are fitted along with it.
        parameters: Values in place of the model's own parameters, by name.

    Returns:
        For each fact what the module writes at the token of its first row, and the fitted vector, added; 32-bit,
        ``[facts, width]``.

    Raises:
        ConfigError: The optimisation diverged.
    """
    import torch

    found = [
        _fitted(model, batch, config, layer=layer, modules=modules, parameters=parameters) for batch in _batches(facts)
    ]
    return torch.cat(found)


def _batches(facts: Sequence[LocatedFact]) -> Iterator[Sequence[LocatedFact]]:
    size = max(1, _MOST_ROWS // (len(facts[0].rows) + 1))
    for begin in range(0, len(facts), size):
        yield facts[begin : begin + size]


def _fitted(
    model: Any,
    facts: Sequence[LocatedFact],
    config: LocateConfig,
    *,
    layer: int,
    modules: Sequence[str],
    parameters: Mapping[str, torch.Tensor] | None,
) -> torch.Tensor:
    import torch

    firsts = [fact.rows[0] for fact in facts]
    sides = [(name, True) for name in modules]
    initial = activations(
        model, [row.prompt for row in firsts], [row.place for row in firsts], sides, parameters=parameters
    )
    starts = [initial[side].float() for side in sides]
    # a parameter a fact and module, so that one that is learnt is no longer stepped
    vectors = [[torch.zeros_like(start[place]).requires_grad_(True) for start in starts] for place in range(len(facts))]
    adam = torch.optim.Adam([one for several in vectors for one in several], lr=config.learning_rate)
    longest = [[config.clamp * start[place].norm() for start in starts] for place in range(len(facts))]
    loss_of = TargetLoss(model, facts, config, layer=layer, modules=modules, starts=starts, parameters=parameters)
    active = list(range(len(facts)))
    for step in range(config.steps):
        with torch.enable_grad():
            added = [torch.stack([vectors[fact][place] for fact in active]) for place in range(len(modules))]
            losses = loss_of(added)
            total = losses.sum()
        if not losses.isfinite().all():
            worst = facts[active[int(losses.isfinite().logical_not().nonzero()[0])]].name
            raise ConfigError(
                f"the edit {worst!r} diverged at learning_rate {config.learning_rate}; take a smaller one"
            )
        kept = [place for place, loss in enumerate(losses.tolist()) if loss >= config.stop_loss]
        if step == config.steps - 1 or not kept:
            break
        gradients = torch.autograd.grad(total, added)
        adam.zero_grad(set_to_none=True)
        for place in kept:
            for vector, gradient in zip(vectors[active[place]], gradients, strict=True):
                vector.grad = gradient[place].to(vector.dtype)
        adam.step()
        with torch.no_grad():
            for place in kept:
                for vector, limit in zip(vectors[active[place]], longest[active[place]], strict=True):
                    vector.mul_((limit / vector.norm().clamp(min=1e-30)).clamp(max=1.0))
        if len(kept) < len(active):
            loss_of.narrow(kept)
            active = [active[place] for place in kept]
    return torch.stack([start + several[0].detach() for start, several in zip(starts[0], vectors, strict=True)])


class TargetLoss:
    """How far a model is from saying some facts while vectors are added at their tokens.

    The first call must be with vectors of 0: it says what the model answers to the essence prompts unedited.

    Args:
        model: The model.
        facts: The facts.
        config: The weights of the terms.
        layer: The layer that the modules belong to.
        modules: What the vectors are added to.
        starts: For each module what it writes at the facts' tokens, ``[facts, width]``.
        parameters: Values in place of the model's own parameters, by name.
    """

    def __init__(
        self,
        model: Any,
        facts: Sequence[LocatedFact],
        config: LocateConfig,
        *,
        layer: int,
        modules: Sequence[str],
        starts: Sequence[torch.Tensor],
        parameters: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        import torch

        rows = [row for fact in facts for row in (*fact.rows, fact.essence)]
        self._config = config
        self._modules = modules
        self._device = starts[0].device
        self._lengths = [start.norm(dim=1) for start in starts]
        # a target's last token is predicted, not read
        read = [(*row.prompt, *row.target[:-1]) for row in rows]
        places = [row.place for row in rows]
        self._pass = SplitPass(model, read, places, layer, parameters=parameters, bfloat16=config.bfloat16)
        owners = [place for place, fact in enumerate(facts) for _ in (*fact.rows, fact.essence)]
        self._owners = torch.tensor(owners, device=self._device)
        self._labels = _labels(rows).to(self._device)
        self._essence: torch.Tensor | None = None

    def __call__(self, added: Sequence[torch.Tensor]) -> torch.Tensor:
        """The loss of each fact, ``[facts]``, in nats; ``added`` is ``[facts, width]`` for each module."""
        import torch
        from torch.nn.functional import cross_entropy, kl_div, log_softmax

        spread = {name: vectors[self._owners] for name, vectors in zip(self._modules, added, strict=True)}
        logits = self._pass(spread, keep=self._labels.shape[1])
        learning = (self._labels != _IGNORED).any(dim=1)
        labels = self._labels[learning]
        told = cross_entropy(logits[learning].float().mT, labels, ignore_index=_IGNORED, reduction="none")
        told = told.sum(dim=1) / (labels != _IGNORED).sum(dim=1)
        essence = log_softmax(logits[~learning, -1].float(), dim=1)
        if self._essence is None:
            self._essence = essence.detach()
        drift = kl_div(self._essence, essence, log_target=True, reduction="none").sum(dim=1)
        owners = self._owners[learning]
        sums = torch.zeros(len(added[0]), device=self._device).index_add(0, owners, told)
        nll = sums / torch.bincount(owners, minlength=len(added[0]))
        decay = sum(vectors.norm(dim=1) / length**2 for vectors, length in zip(added, self._lengths, strict=True))
        losses: torch.Tensor = nll + self._config.kl_factor * drift + self._config.weight_decay * decay
        return losses

    def narrow(self, kept: Sequence[int]) -> None:
        """Goes on with some of the facts alone; ``kept`` are their indices."""
        import torch

        place_of = {fact: place for place, fact in enumerate(kept)}
        owners = self._owners.tolist()
        rows = [row for row, owner in enumerate(owners) if owner in place_of]
        self._pass.narrow(rows)
        self._labels = self._labels[rows]
        self._owners = torch.tensor([place_of[owners[row]] for row in rows], device=self._device)
        self._lengths = [length[list(kept)] for length in self._lengths]
        if self._essence is not None:
            self._essence = self._essence[list(kept)]


def _labels(rows: Sequence[FactRow]) -> torch.Tensor:
    """The target tokens, right-aligned, ``[rows, longest target]``; what is no target is ignored."""
    import torch

    labels = torch.full((len(rows), max(len(row.target) for row in rows)), _IGNORED)
    for place, row in enumerate(rows):
        if row.target:
            labels[place, -len(row.target) :] = torch.tensor(row.target)
    return labels
