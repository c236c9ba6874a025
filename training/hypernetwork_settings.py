"""Settings by which hypernetworks are trained: MEND's, and KE's. This file knows nothing of how they are trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from memedit.architectures import Projection
from memedit.known_models import DEFAULT_MODEL
from training.config import check_range
from training.edit_batches import EditSampling
from training.settings import LoopSettings

__all__ = ["KeSettings", "MendSettings"]


def _sampling() -> EditSampling:
    return EditSampling(edits=2000, dev_edits=48, places=2)


def _loop() -> LoopSettings:
    return LoopSettings(steps=1000, learning_rate=1e-3, evaluate_every=200, weight_decay=0.0, precision="auto")


@dataclass(frozen=True, slots=True, kw_only=True)
class MendSettings:
    """How MEND's networks are trained.

    Attributes:
        init: Where training starts: the shipped networks of the model, or the identity.
        base: The model that is to be edited, by a name that memedit resolves.
        layers: The layers that are edited; from 0, or from the last one backwards as -1.
        parts: Which of their projections.
        rank: Rank of the networks.
        edit_learning_rate: What the learned learning rates of edits begin at.
        rate_scale: How much faster these are learnt than the networks.
        c_edit: Weight of the loss on the edit's prompts.
        c_loc: Weight of the divergence elsewhere.
        sampling: What is drawn.
        loop: How long and how fast it trains.
    """

    init: Literal["shipped", "scratch"] = "scratch"
    base: str = DEFAULT_MODEL
    layers: tuple[int, ...] = (-3, -2, -1)
    parts: tuple[Projection, ...] = ("mlp_up", "mlp_out")
    rank: int = 64
    edit_learning_rate: float = 4e-4
    rate_scale: float = 10.0
    c_edit: float = 0.2
    c_loc: float = 1.0
    sampling: EditSampling = field(default_factory=_sampling)
    loop: LoopSettings = field(default_factory=_loop)

    def __post_init__(self) -> None:
        check_range("rank", self.rank, least=1, most=2048)
        for name in ("edit_learning_rate", "rate_scale", "c_edit"):
            check_range(name, getattr(self, name), above=0)
        check_range("c_loc", self.c_loc, least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeSettings:
    """How KE's hypernetwork is trained.

    Attributes:
        init: Where training starts: the shipped hypernetwork of the model, or a new one.
        base: The model that is to be edited, by a name that memedit resolves.
        layers: The layers that are edited; from 0, or from the last one backwards as -1.
        parts: Which of their projections.
        hidden: Hidden numbers of the LSTM in each direction.
        condition: Hidden numbers of the network of each weight.
        scale: The factor of equation 5, which the paper has at 1.
        edit_learning_rate: The step that an edit begins at, along gradients whose rows and columns are of one size.
        margin: How far the edited model may diverge elsewhere at the beginning, in nats a token.
        least_margin: The least that the margin shrinks to.
        shrink_every: After how many batches the margin shrinks by a fifth, where nine edits in ten succeed.
        multiplier_rate: How fast the multiplier follows what the divergence is above or below the margin.
        most_excess: The most of it, in nats a token, that a single batch counts for: a few edits that go astray would
            else decide how all are weighed.
        sampling: What is drawn.
        loop: How long and how fast it trains.
    """

    init: Literal["shipped", "scratch"] = "scratch"
    base: str = DEFAULT_MODEL
    layers: tuple[int, ...] = (-3, -2, -1)
    parts: tuple[Projection, ...] = ("mlp_up", "mlp_out")
    hidden: int = 128
    condition: int = 32
    scale: float = 1000.0
    edit_learning_rate: float = 4e-4
    margin: float = 0.3
    least_margin: float = 0.001
    shrink_every: int = 50
    multiplier_rate: float = 0.1
    most_excess: float = 0.5
    sampling: EditSampling = field(default_factory=_sampling)
    loop: LoopSettings = field(default_factory=_loop)

    def __post_init__(self) -> None:
        for name in ("hidden", "condition"):
            check_range(name, getattr(self, name), least=1, most=4096)
        for name in ("scale", "edit_learning_rate", "margin", "least_margin", "multiplier_rate", "most_excess"):
            check_range(name, getattr(self, name), above=0)
        check_range("shrink_every", self.shrink_every, least=1)
