"""MEND: small trained networks turn the gradient of an edit, a rank-one part a token, into a change of some weights.

Mitchell et al. 2022, *Fast Model Editing at Scale*. For an edit with prompt x and target y the loss is the mean of
-log p(y_t | x, y_<t) over the target's tokens, worded as `memedit.editors.ft` words it. Its gradient by each edited
weight is a sum of outer products ``delta u^T`` (section 3.1); the network (`memedit.editors.mend_network`) makes of
each pair another, and the weight becomes ``W - alpha * sum delta' u'^T`` (algorithm 2) with a learned ``alpha`` a
layer. The changes of edits made together are summed; they start from one model, as the paper has it.

Nothing is drawn at random: the same edits give the same weights. The networks are trained beforehand for one model, by
``memedit train hypernetwork --method mend``. This file knows nothing of training, benchmarks or other methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from memedit.architectures import ARCHITECTURES, Projection
from memedit.editors.editor import MethodInfo
from memedit.editors.examples import frozen, target_loss
from memedit.editors.hypernetwork import Hypernetwork, HypernetworkConfig
from memedit.editors.hypernetwork_editor import HypernetworkEditor
from memedit.editors.outer_products import OuterProducts, gradient_parts
from memedit.editors.subject import Subject
from memedit.ranges import check_fields
from memory_store import Edit

if TYPE_CHECKING:
    from memedit.editors.mend_network import MendNetwork

__all__ = ["INFO", "Mend", "MendConfig", "create"]

INFO = MethodInfo(
    name="mend",
    title="Model Editor Networks with Gradient Decomposition",
    group="editing intrinsic knowledge",
    changes="weights",
    paper="Mitchell et al. 2022, Fast Model Editing at Scale",
    summary="Trained networks turn an edit's gradient, token by token, into a change of some MLP weights.",
    needs_training=True,
    models=", ".join(family.title for family in ARCHITECTURES.values()),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MendConfig(HypernetworkConfig):
    """The shape of MEND's networks for one model: as `HypernetworkConfig`, and how they begin.

    Attributes:
        rank: Rank of the networks (``U V`` in equation 3).
        learning_rate: What the learned learning rates ``alpha`` begin at.
    """

    parts: tuple[Projection, ...] = ("mlp_up", "mlp_out")
    rank: int = 64
    learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        HypernetworkConfig.__post_init__(self)
        check_fields(self, "rank", least=1)
        check_fields(self, "learning_rate", above=0)


class Mend(Hypernetwork["MendConfig", "MendNetwork"]):
    """MEND's networks attached to a model; they begin at the identity."""

    info = INFO
    config_type = MendConfig

    def _new(self, seed: int) -> MendNetwork:
        from memedit.editors.mend_network import MendNetwork

        config = self.config
        return MendNetwork(self.layers, rank=config.rank, learning_rate=config.learning_rate, seed=seed)

    def gradients(self, edits: Sequence[Edit]) -> dict[str, OuterProducts]:
        """The gradient of each edit's loss by each weight, a group an edit.

        Args:
            edits: At least one.

        Raises:
            UnsupportedCallError: One of them is incomplete, or too long for the model.
        """
        model = self._subject.model
        examples = [self._example(edit) for edit in edits]
        weights = frozen(model)
        # the sum over edits, so that none of them has a part in another's gradient
        return gradient_parts(model, list(self.layers), lambda: target_loss(model, weights, examples).sum())

    def changes(self, edits: Sequence[Edit]) -> dict[str, OuterProducts]:
        """The change of each layer's weight, a group an edit; see `Hypernetwork`."""
        changes: dict[str, OuterProducts] = self.network(self.gradients(edits))
        return changes


def create(subject: Subject, folder: str | Path | None = None) -> HypernetworkEditor:
    """The method for a model.

    Args:
        subject: The model.
        folder: Where its trained networks are; None for those that come with memedit or lie in its cache.

    Raises:
        UnsupportedCallError: There are none for this model; says how they are trained.
        DataFileError: They are damaged.
    """
    return HypernetworkEditor(subject, Mend.found(subject, folder))
