"""KE: a hypernetwork reads an edit in words, and turns its gradient into a change of some weights.

De Cao et al. 2021, *Editing Factual Knowledge in Language Models*. The loss of an edit is the mean of
-log p(y_t | x, y_<t) over the target's tokens, worded as `memedit.editors.ft` words it; its gradient by each edited
weight is gated and bent by what `memedit.editors.ke_network` makes of the prompt, the answer now and the new one
(equations 5 and 6), and the result added to the weight. The answer now is read off the pass that gives the gradient:
the likeliest token at each place of the new answer. (The paper has the model generate it, which takes a pass a token.)

The paper edits every weight matrix; here it is one or a few of the MLPs, as MEND's authors compare it. Edits made
together start from one model and their changes are summed. Nothing is drawn at random. The network is trained
beforehand for one model, by ``memedit train hypernetwork --method ke``. This file knows nothing of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from memedit.architectures import ARCHITECTURES, Projection
from memedit.editors.editor import MethodInfo
from memedit.editors.examples import IGNORED, ExampleMaker, frozen, mean_losses, target_logits
from memedit.editors.hypernetwork import Hypernetwork, HypernetworkConfig
from memedit.editors.hypernetwork_editor import HypernetworkEditor
from memedit.editors.outer_products import OuterProducts, gradient_parts
from memedit.editors.subject import Subject
from memedit.ranges import check_fields
from memory_store import Edit

if TYPE_CHECKING:
    import torch

    from memedit.editors.ke_network import KeNetwork

__all__ = ["INFO", "Ke", "KeConfig", "create"]

INFO = MethodInfo(
    name="ke",
    title="KnowledgeEditor",
    group="editing intrinsic knowledge",
    changes="weights",
    paper="De Cao et al. 2021, Editing Factual Knowledge in Language Models",
    summary="A trained network reads an edit and turns its gradient into a change of some MLP weights.",
    needs_training=True,
    models=", ".join(family.title for family in ARCHITECTURES.values()),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeConfig(HypernetworkConfig):
    """The shape of KE's hypernetwork for one model: as `HypernetworkConfig`, and how large it is.

    Attributes:
        hidden: Hidden numbers of the LSTM in each direction.
        condition: Hidden numbers of the network of each weight.
        scale: The factor of equation 5, which the paper has at 1.
    """

    parts: tuple[Projection, ...] = ("mlp_up", "mlp_out")
    hidden: int = 128
    condition: int = 32
    scale: float = 1000.0

    def __post_init__(self) -> None:
        HypernetworkConfig.__post_init__(self)
        check_fields(self, "hidden", "condition", least=1)
        check_fields(self, "scale", above=0)


class Ke(Hypernetwork["KeConfig", "KeNetwork"]):
    """KE's hypernetwork attached to a model."""

    info = INFO
    config_type = KeConfig

    def __init__(self, subject: Subject, config: KeConfig, *, seed: int = 0) -> None:
        super().__init__(subject, config, seed=seed)
        self._plain = ExampleMaker(subject, template=False)

    def _new(self, seed: int) -> KeNetwork:
        from memedit.editors.ke_network import KeNetwork

        return KeNetwork(
            self.layers,
            width=self._subject.model.get_input_embeddings().weight.shape[1],
            hidden=self.config.hidden,
            condition=self.config.condition,
            scale=self.config.scale,
            seed=seed,
        )

    def gradients(self, edits: Sequence[Edit]) -> dict[str, OuterProducts]:
        """The gradient of each edit's loss by each weight, a group an edit.

        Args:
            edits: At least one.

        Raises:
            UnsupportedCallError: One of them is incomplete, or too long for the model.
        """
        return self._gradients_and_answers(edits)[0]

    def changes(self, edits: Sequence[Edit]) -> dict[str, OuterProducts]:
        """The change of each layer's weight, a group an edit; see `Hypernetwork`."""
        gradients, answers = self._gradients_and_answers(edits)
        texts = [self._plain(edit) for edit in edits]
        changes: dict[str, OuterProducts] = self.network(
            gradients,
            [
                (self._embedded(text.prompt), self._embedded(now), self._embedded(text.target))
                for text, now in zip(texts, answers, strict=True)
            ],
        )
        return changes

    def _gradients_and_answers(self, edits: Sequence[Edit]) -> tuple[dict[str, OuterProducts], list[tuple[int, ...]]]:
        """The gradients, and what the model says now in each target's place; both off one pass."""
        model = self._subject.model
        examples = [self._example(edit) for edit in edits]
        weights = frozen(model)
        answers: list[tuple[int, ...]] = []

        def loss() -> torch.Tensor:
            logits, wanted = target_logits(model, weights, examples)
            for row, due in zip(logits.argmax(-1), wanted, strict=True):
                answers.append(tuple(row[due != IGNORED].tolist()))
            # the sum over edits, so that none of them has a part in another's gradient
            return mean_losses(logits, wanted).sum()

        return gradient_parts(model, list(self.layers), loss), answers

    def _embedded(self, ids: Sequence[int]) -> torch.Tensor:
        """The model's embeddings of tokens, ``[tokens, width]``."""
        import torch

        embeddings = self._subject.model.get_input_embeddings()
        with torch.no_grad():
            found: torch.Tensor = embeddings(torch.tensor(ids, dtype=torch.long, device=self._subject.model.device))
        return found.to(self.network.separators.dtype)


def create(subject: Subject, folder: str | Path | None = None) -> HypernetworkEditor:
    """The method for a model.

    Args:
        subject: The model.
        folder: Where its trained hypernetwork is; None for one that comes with memedit or lies in its cache.

    Raises:
        UnsupportedCallError: There is none for this model; says how one is trained.
        DataFileError: It is damaged.
    """
    return HypernetworkEditor(subject, Ke.found(subject, folder))
