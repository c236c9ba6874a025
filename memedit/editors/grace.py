"""GRACE: a codebook beside one layer, whose values stand in for what the layer gives out near the edits.

Hartvigsen et al. 2023, *Aging with GRACE: Lifelong Model Editing with Discrete Key-Value Adaptors*, section 2. The
codebook holds entries of a key K_i (what the layer reads at an edit), a value V_i, a deferral radius epsilon_i and the
edit's answer. For what the layer f reads, h, with the nearest key i* = argmin_i d(h, K_i) (Euclidean),

    GRACE(h) = V_i*  if d(h, K_i*) <= epsilon_i*,  else  f(h),

so that outside every ball the layer's own output stays as it is, to the last bit. Edits come one after the other, and
each is taken in as Algorithm 1 of the paper has it, with d the distance of the nearest key (`change_for`):

- no key nearer than epsilon_i* + epsilon_init: a new entry of radius epsilon_init;
- a near one, same answer: its radius grows to d, where it was less, and its value stays;
- a near one, another answer: the two radii become d / 2, and the edit gets an entry of its own.

A new value begins as what the layer gave out there, and is trained alone, by Adam, on the cross-entropy of the target.
An edit of a prompt that is edited already, where d is 0 and no radius could part the two, takes over the entry.

The layer is the MLP output projection, as in the paper's T5 and BERT. A key is what it reads at the last token of the
prompt, as asked: through the chat template wherever there is one (`memedit.editors.examples`). **Which positions are
replaced**: each position looks its own h up, and is replaced if it is inside a ball. For an edit that is its prompt's
last token (the ``replace_last`` of the authors' code), to which everything that is said attends. That code has to be
told where each call's prompt ends, and can replace the whole prompt; a lookup by position needs no telling, so that a
row gives the same with others beside it, with padding before it, with a key-value cache, and with its answer given.

This file knows nothing of benchmarks or of other methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from memedit.architectures import ARCHITECTURES, architecture_of
from memedit.editors.activations import inputs_of
from memedit.editors.attached import AttachedEditor
from memedit.editors.chosen import chosen_values
from memedit.editors.descent import descend
from memedit.editors.editor import MethodInfo
from memedit.editors.examples import Example, frozen, target_loss
from memedit.editors.subject import Subject
from memedit.editors.weights import checked_layer, widths_of
from memedit.frozen_layers import FrozenLayers
from memedit.ranges import check_fields

if TYPE_CHECKING:
    import torch

    from memedit.editors.codebook import Codebook

__all__ = ["INFO", "SEARCH", "Change", "GraceConfig", "GraceEditor", "change_for", "create", "default_config"]

INFO = MethodInfo(
    name="grace",
    title="GRACE, a codebook of edits beside a layer",
    group="merging knowledge into the model",
    changes="weights",
    paper="Hartvigsen et al. 2023, Aging with GRACE: Lifelong Model Editing with Discrete Key-Value Adaptors",
    summary="Keeps for each edit what one layer is to give out, used where the layer reads what it read at the edit.",
    batch=False,
    models=", ".join(family.title for family in ARCHITECTURES.values()),
)

SEARCH: Mapping[str, tuple[float, ...]] = MappingProxyType({"layer": (0.6, 0.8, 0.9), "epsilon": (3.0, 7.0, 10.0)})
"""What ``memedit tune`` tries (`memedit.evaluation.tuning`)."""

Change = Literal["new", "grow", "keep", "split", "replace"]
"""What an edit does: a new entry; the nearest one's radius grows; nothing; the two part; the nearest is taken over."""

_SLACK = 1e-3
"""By what share a radius that grows to a key reaches past it, so that rounding does not leave the key outside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraceConfig:
    """Where GRACE's codebook stands, and how its values are trained.

    Attributes:
        layer: The layer beside whose MLP output projection it stands, from 0.
        epsilon: The radius of a new entry, epsilon_init, in the units of what the projection reads.
        learning_rate: Adam's.
        steps: The most steps for a value.
        stop_loss: Training ends where the loss (nats a target token) is below this.
        template: Whether edits are trained through the chat template; None for wherever the model has one.
    """

    layer: int
    epsilon: float
    learning_rate: float
    steps: int = 100
    stop_loss: float = 1e-2
    template: bool | None = None

    def __post_init__(self) -> None:
        check_fields(self, "layer", least=0)
        check_fields(self, "steps", least=1)
        check_fields(self, "epsilon", "learning_rate", above=0)
        check_fields(self, "stop_loss", least=0)


class GraceEditor(AttachedEditor["Codebook"]):
    """GRACE on one model, beside one of whose layers it stands.

    Attributes:
        config: Where it stands, and how it trains.

    Args:
        subject: The model.
        config: By default as the table has it.

    Raises:
        UnsupportedCallError: The model's architecture is not supported.
        ConfigError: The model has no such layer, or no chat template where one is asked for.
    """

    def __init__(self, subject: Subject, config: GraceConfig | None = None) -> None:
        self.config = config if config is not None else default_config(subject.model)
        path = architecture_of(subject.model).module_name(checked_layer(subject, self.config.layer), "mlp_out")
        super().__init__(subject, INFO, path=path, template=self.config.template)

    def _fresh(self) -> Codebook:
        from memedit.editors.codebook import Codebook

        read, given = widths_of(self._subject, self.path)
        return Codebook(read, given, device=self._subject.model.device)

    def _learn(self, addition: Codebook, example: Example) -> None:
        (read,) = inputs_of(self._subject.model, self.path, [example.prompt])
        key, epsilon = read[-1], self.config.epsilon
        change: Change = "new"
        if len(addition):
            near, entry = addition.nearest(key)
            distance, place = float(near), int(entry)
            same = addition.answers[place] == example.target
            change = change_for(distance, float(addition.radii[place]), same_answer=same, initial=epsilon)
            if change == "grow":
                addition.radii[place] = distance * (1 + _SLACK)
            if change == "split":
                addition.radii[place] = epsilon = distance / 2
            if change == "replace":
                addition.answers[place] = example.target
        if change in ("new", "split"):
            # the layer's own output, whatever the codebook has there
            value = self._subject.model.get_submodule(self.path).forward(key[None])[0].detach()
            place = addition.add(key, value, radius=epsilon, answer=example.target)
        if change in ("new", "split", "replace"):
            self._train(addition, place, example)

    def _train(self, addition: Codebook, place: int, example: Example) -> None:
        """Train the value of one entry."""
        import torch

        model, fixed, values = self._subject.model, frozen(self._subject.model), addition.values
        value = values[place].clone().requires_grad_(True)
        layers = FrozenLayers(model, self.config.layer)

        def loss_of(batch: list[Example]) -> torch.Tensor:
            addition.values = torch.cat([values[:place], value[None], values[place + 1 :]])
            with layers.of(tuple(batch)):
                return target_loss(model, fixed, batch).mean()

        descend(
            torch.optim.Adam([value], lr=self.config.learning_rate),
            [[example]],
            loss_of,
            steps=self.config.steps,
            stop_loss=self.config.stop_loss,
        )
        addition.values = torch.cat([values[:place], value.detach()[None], values[place + 1 :]])


def create(subject: Subject, config: GraceConfig | None = None) -> GraceEditor:
    """The method for a model."""
    return GraceEditor(subject, config)


def default_config(model: Any) -> GraceConfig:
    """How it works on a model where nobody says otherwise: its own entry of the table, or the nearest one's.

    Args:
        model: A model of a supported architecture.

    Raises:
        UnsupportedCallError: Its architecture is not supported.
    """
    return GraceConfig(**chosen_values(model, "grace"))


def change_for(distance: float, radius: float, *, same_answer: bool, initial: float) -> Change:
    """What an edit does to the codebook, by its nearest entry (Algorithm 1).

    Args:
        distance: From the edit's key to the nearest key, d.
        radius: The nearest entry's, epsilon_i*.
        same_answer: Whether that entry was trained for the edit's answer.
        initial: The radius of a new entry, epsilon_init.
    """
    if distance > radius + initial:
        return "new"
    if same_answer:
        return "grow" if distance > radius else "keep"
    return "split" if distance > 0 else "replace"
