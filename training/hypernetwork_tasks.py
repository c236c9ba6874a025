"""What hypernetworks learn from, as the loop trains them: MEND's loss, and KE's.

Both are trained alike. An edit is made as if (`memedit.editors.outer_products.shifted`), so that no copy of a weight is
needed and no gradient flows through the model further down than the edited layers; then the edited model is asked the
edit's prompt and a paraphrase, and, elsewhere, whether it still says what the base model says. They differ in how the
two losses are weighed.

- MEND (Mitchell et al. 2022, Fast Model Editing at Scale, equation 4): ``c_edit * L_edit + c_loc * KL``.
- KE (De Cao et al. 2021, Editing Factual Knowledge in Language Models, equations 3 and 4): ``L_edit`` subject to
  ``KL <= m``, as a Lagrangian whose multiplier is raised and lowered by gradient ascent, and whose margin ``m`` shrinks
  while the edits succeed.

This file knows nothing of files, and of where a hypernetwork begins.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from training.card import CardData
from training.config import settings_json
from training.edit_batches import EditBatch, EditDrawer
from training.hypernetwork_settings import KeSettings, MendSettings
from training.lower_layers import LowerLayers
from training.task import ParameterGroup

if TYPE_CHECKING:
    import torch

    from memedit.editors.examples import Example
    from memedit.editors.hypernetwork import Hypernetwork
    from memedit.editors.ke import Ke
    from memedit.editors.mend import Mend
    from memedit.editors.outer_products import OuterProducts
    from memedit.editors.subject import Subject
    from memory_store import Edit

__all__ = ["EditTask", "KeTask", "MendTask", "Prepared"]

_STATISTICS_EDITS = 64
"""Edits by whose gradients a new network begins."""

_SUCCESS = 0.9
"""The share of edits that succeed from which on KE's margin shrinks, and what it is multiplied by then."""

_SHRINK = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A model, and what a hypernetwork for it is trained on.

    Attributes:
        subject: The model.
        fingerprint: The model's fingerprint.
        lower: What its lower layers make of every text.
        training: Draws edits to learn from.
        held_out: Draws edits about other subjects.
        files: The files read, by name.
    """

    subject: Subject
    fingerprint: str
    lower: LowerLayers
    training: EditDrawer
    held_out: EditDrawer
    files: Mapping[str, CardData]


class EditTask(ABC):
    """What both hypernetworks have in common as the loop trains them."""

    name = "hypernetwork"
    maximised = "mean of the three"

    def __init__(
        self, settings: MendSettings | KeSettings, prepared: Prepared, hypernetwork: Hypernetwork[Any, Any]
    ) -> None:
        from memedit.editors.examples import frozen

        self._settings = settings
        self._prepared = prepared
        self._hypernetwork = hypernetwork
        self._model = prepared.subject.model
        self._weights = frozen(self._model)

    def identity(self) -> Mapping[str, Any]:
        """What the result depends on."""
        described = {name: value for name, value in settings_json(self._settings).items() if name != "loop"}
        data = {name: file.sha256 for name, file in self._prepared.files.items()}
        return {**described, "base_fingerprint": self._prepared.fingerprint, "data": data}

    @abstractmethod
    def parameters(self) -> Sequence[ParameterGroup]:
        """What is trained."""

    @abstractmethod
    def loss(self, batch: EditBatch) -> tuple[torch.Tensor, Mapping[str, float | torch.Tensor]]:
        """The loss of a batch, and the figures that the log keeps of it."""

    def batch(self, index: int) -> EditBatch:
        """The edits of a batch."""
        return self._prepared.training.batch(index)

    def gradients(self, of: Callable[[Sequence[Edit]], dict[str, OuterProducts]]) -> Iterator[dict[str, OuterProducts]]:
        """Gradients of training edits, batch by batch, by which a new network begins.

        Args:
            of: Takes the gradients of some edits.
        """
        for batch in self._prepared.training.every()[: -(-_STATISTICS_EDITS // self._settings.sampling.batch_size)]:
            with self._prepared.lower.resumed(_texts(batch.read)):
                yield of(batch.edits)

    def losses(self, batch: EditBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The two losses of some edits, and the share of the edits that succeeded.

        Returns:
            The mean of -log p over the targets of prompts that the edits govern, the divergence KL(base || edited)
            a token elsewhere, and how often the edited model would say the whole target of an edit's own prompt.
        """
        from torch.nn.functional import kl_div

        from memedit.editors.examples import mean_losses

        logits, wanted, edited, base, due = self._asked(batch)
        edit_loss = mean_losses(logits, wanted).mean()
        divergences = kl_div(edited.log_softmax(-1), base.log_softmax(-1), reduction="none", log_target=True).sum(-1)
        elsewhere_loss = ((divergences * due).sum(1) / due.sum(1)).mean()
        return edit_loss, elsewhere_loss, _exact(logits[::2].detach(), wanted[::2]).float().mean()

    def evaluate(self) -> Mapping[str, float]:
        """How often held-out edits hold, on their prompt and its paraphrase, and how many tokens elsewhere stay."""
        import torch

        told: dict[str, list[torch.Tensor]] = {"reliability": [], "generalization": [], "locality": []}
        half = self._settings.loop.precision == "bfloat16"
        for batch in self._prepared.held_out.every():
            with torch.no_grad(), torch.autocast(self._model.device.type, dtype=torch.bfloat16, enabled=half):
                logits, wanted, edited, base, due = self._asked(batch)
            exact = _exact(logits, wanted).float()
            told["reliability"].append(exact[::2])
            told["generalization"].append(exact[1::2])
            told["locality"].append((edited.argmax(-1) == base.argmax(-1)).float()[due])
        figures = {name: float(torch.cat(values).mean()) for name, values in told.items()}
        return {self.maximised: sum(figures.values()) / len(figures), **figures}

    def _asked(self, batch: EditBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the edited model would say.

        Returns:
            Logits and targets of each edit's own prompt and its paraphrase, edit by edit; the edited and the base
            model's logits elsewhere, and where they count.
        """
        import torch

        from memedit.editors.examples import IGNORED
        from memedit.editors.outer_products import shifted

        with self._prepared.lower.resumed(_texts(batch.read)):
            changes = self._hypernetwork.changes(batch.edits)
        if batch.together:
            changes = {name: change.together(len(batch.edits)) for name, change in changes.items()}
        with torch.no_grad():
            base, due = self._said(batch.elsewhere)
        # edit by edit, as the changes are
        asked = [one for pair in zip(batch.own, batch.other, strict=True) for one in pair]
        with shifted(self._model, changes):
            logits, wanted = self._said(asked)
            edited, _ = self._said(batch.elsewhere)
        return logits, wanted, edited, base, due != IGNORED

    def _said(self, examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits where targets are due, and what is due there."""
        from memedit.editors.examples import target_logits

        with self._prepared.lower.resumed(_texts(examples)):
            return target_logits(self._model, self._weights, examples)


class MendTask(EditTask):
    """MEND's networks as the loop trains them."""

    name = "mend"

    def __init__(self, settings: MendSettings, prepared: Prepared, mend: Mend) -> None:
        super().__init__(settings, prepared, mend)
        self._mend = mend
        self._weigh = settings
        if settings.init == "scratch":
            mend.network.normalise_by(list(self.gradients(mend.gradients)))

    def parameters(self) -> Sequence[ParameterGroup]:
        """The networks, and the learning rates of edits, which are learnt faster."""
        named = dict(self._mend.network.named_parameters())
        rates = {name: tensor for name, tensor in named.items() if name.endswith("log_rate")}
        return [
            ParameterGroup(tensors={name: tensor for name, tensor in named.items() if name not in rates}),
            ParameterGroup(tensors=rates, learning_rate_scale=self._weigh.rate_scale, weight_decay=False),
        ]

    def loss(self, batch: EditBatch) -> tuple[torch.Tensor, Mapping[str, float | torch.Tensor]]:
        """``c_edit * L_edit + c_loc * KL``."""
        edit, apart, right = self.losses(batch)
        loss = self._weigh.c_edit * edit + self._weigh.c_loc * apart
        return loss, {"edit": edit.detach(), "elsewhere": apart.detach(), "right": right}


class KeTask(EditTask):
    """KE's hypernetwork as the loop trains it."""

    name = "ke"

    def __init__(self, settings: KeSettings, prepared: Prepared, ke: Ke) -> None:
        super().__init__(settings, prepared, ke)
        self._ke = ke
        self._constraint = settings
        self._multiplier, self._margin = 1.0, settings.margin
        self._right, self._batches = 0.0, 0
        if settings.init == "scratch":
            ke.network.begin_at(list(self.gradients(ke.gradients)), rate=settings.edit_learning_rate)

    def parameters(self) -> Sequence[ParameterGroup]:
        """The hypernetwork."""
        return [ParameterGroup(tensors=dict(self._ke.network.named_parameters()))]

    def loss(self, batch: EditBatch) -> tuple[torch.Tensor, Mapping[str, float | torch.Tensor]]:
        """The Lagrangian ``L_edit + multiplier * (KL - m)``; the multiplier takes a step of gradient ascent."""
        edit, apart, right = self.losses(batch)
        excess = apart - self._margin
        loss = edit + self._multiplier * excess
        multiplier = self._multiplier
        self._adjust(float(excess.detach()), float(right))
        return loss, {"edit": edit.detach(), "elsewhere": apart.detach(), "right": right, "multiplier": multiplier}

    def state(self) -> dict[str, Any]:
        """The multiplier and the margin, and what moves them."""
        return {
            "multiplier": self._multiplier,
            "margin": self._margin,
            "right": self._right,
            "batches": self._batches,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state` gave."""
        self._multiplier, self._margin = state["multiplier"], state["margin"]
        self._right, self._batches = state["right"], state["batches"]

    def _adjust(self, excess: float, right: float) -> None:
        """Moves the multiplier, and the margin now and then."""
        of = self._constraint
        self._multiplier = max(0.0, self._multiplier + of.multiplier_rate * min(excess, of.most_excess))
        self._right += (right - self._right) / min(self._batches + 1, of.shrink_every)
        self._batches += 1
        if self._batches % of.shrink_every == 0 and self._right >= _SUCCESS:
            self._margin = max(of.least_margin, _SHRINK * self._margin)


def _texts(examples: Sequence[Example]) -> list[tuple[int, ...]]:
    """The token ids of examples, prompt and target."""
    return [(*example.prompt, *example.target) for example in examples]


def _exact(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Whether the likeliest token is the one that is due at every place of a row, ``[rows]``."""
    from memedit.editors.examples import IGNORED

    return ((logits.argmax(-1) == wanted) | (wanted == IGNORED)).all(1)
