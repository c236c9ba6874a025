"""KN: rewrite the values of the knowledge neurons of a fact.

Dai et al. 2022, *Knowledge Neurons in Pretrained Transformers*, section 5.1. The neurons that the model's present
answer t rests on are found by integrated gradients (`memedit.locate.neurons`); the value of each, its column in the
MLP's last projection, is changed by word embeddings::

    value := value - lambda_1 * e(t) + lambda_2 * e(t')

with t' the new answer. Answers are words of one token in the paper; of a longer one the first token counts, so that
what follows it is left to the model. Embeddings are the rows of the projection to the vocabulary, which in the paper's
BERT are those of the input too. The neurons are found with the edit's prompt, as the model is asked it, and with its
paraphrases where there are any.

Edits that are made together are looked for in the model as it is before them, and their changes are added up. Nothing
is drawn at random. How the embeddings are weighted is looked up in ``data/kn.toml``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from memedit.architectures import ARCHITECTURES, architecture_of
from memedit.editors.chosen import chosen_values
from memedit.editors.editor import EditCost, MethodInfo
from memedit.editors.examples import ExampleMaker
from memedit.editors.subject import Subject
from memedit.editors.weight_editor import WeightEditor
from memedit.editors.weights import check_changeable
from memedit.errors import ConfigError
from memedit.locate.neurons import Neuron, NeuronConfig, complete_attributions, refined
from memedit.passes import logits_of
from memedit.ranges import check_fields
from memory_store import Edit

if TYPE_CHECKING:
    import torch

__all__ = ["INFO", "KnConfig", "KnEditor", "create"]

INFO = MethodInfo(
    name="kn",
    title="Knowledge neurons",
    group="editing intrinsic knowledge",
    changes="weights",
    paper="Dai et al. 2022, Knowledge Neurons in Pretrained Transformers",
    summary="Rewrites the values of the MLP neurons that the present answer rests on.",
    models=", ".join(family.title for family in ARCHITECTURES.values()),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnConfig:
    """How KN edits.

    Attributes:
        take_away: How much of the present answer's embedding is taken away (lambda_1).
        put_in: How much of the new answer's is put in (lambda_2).
        neurons: How the neurons are found.
        template: Whether prompts go through the chat template; None for wherever the model has one.
    """

    take_away: float = 1.0
    put_in: float = 8.0
    neurons: NeuronConfig = field(default_factory=NeuronConfig)
    template: bool | None = None

    def __post_init__(self) -> None:
        check_fields(self, "take_away", "put_in", least=0)


@dataclass(frozen=True, slots=True)
class _Change:
    """What an edit does to its neurons.

    Attributes:
        neurons: The neurons.
        value: What is added to the value of each, ``[width]``.
    """

    neurons: Sequence[Neuron]
    value: torch.Tensor


class KnEditor(WeightEditor):
    """KN on one model, whose weights it changes in place.

    Attributes:
        config: How it edits.

    Args:
        subject: The model.
        config: How to edit; by default as the table has it.

    Raises:
        UnsupportedCallError: The model's architecture is not supported, or its weights are quantised.
        ConfigError: A chat template is asked for, and the model has none.
    """

    def __init__(self, subject: Subject, config: KnConfig | None = None) -> None:
        self._architecture = architecture_of(subject.model)
        self.config = config if config is not None else KnConfig(**chosen_values(subject.model, "kn"))
        check_changeable(subject, self._architecture.parameter_name(0, "mlp_out"))
        super().__init__(subject, INFO)
        self._example = ExampleMaker(subject, template=self.config.template)

    def edit(self, edits: Sequence[Edit]) -> EditCost:
        """Rewrite the neurons of some edits together.

        Args:
            edits: Drafts. Of those with the same prompt the last one holds.

        Returns:
            What it cost. The weights as they were, which are kept for `undo`, are what the edits take.

        Raises:
            UnsupportedCallError: One of them is incomplete or too long for the model. Nothing is changed.
            ConfigError: The prompts of one share no neuron. Nothing is changed.
        """
        started = time.perf_counter()
        holding = {edit.prompt: edit for edit in edits}
        stored = self._weights.write(self._rewritten([self._change(edit) for edit in holding.values()]))
        return EditCost(edits=len(edits), seconds=time.perf_counter() - started, stored_bytes=stored)

    def _change(self, edit: Edit) -> _Change:
        model, config = self.subject.model, self.config
        example = self._example(edit)
        prompts = [example.prompt]
        prompts += [self._example(replace(edit, prompt=text)).prompt for text in edit.paraphrases]
        present = int(logits_of(model, [prompts[0]], keep=1)[0, -1].argmax())
        steps = config.neurons.steps
        found = [complete_attributions(model, ids, present, steps=steps).values for ids in prompts]
        neurons = refined(found, config.neurons)
        if not neurons:
            raise ConfigError(
                f"the prompts of the edit {edit.prompt[:60]!r} share no neuron; lower share (now "
                f"{config.neurons.share}) or threshold of KnConfig.neurons, or edit with fewer paraphrases."
            )
        words = model.get_output_embeddings().weight.detach()
        return _Change(neurons, config.put_in * words[example.target[0]] - config.take_away * words[present])

    def _rewritten(self, changes: Sequence[_Change]) -> dict[str, torch.Tensor]:
        """The weights that change, by name, with every change added."""
        new: dict[str, torch.Tensor] = {}
        for change in changes:
            for neuron in change.neurons:
                name = self._architecture.parameter_name(neuron.layer, "mlp_out")
                if name not in new:
                    new[name] = self.subject.model.get_parameter(name).detach().clone()
                values = new[name] if self._architecture.transposed else new[name].T
                values[neuron.place] += change.value
        return new


def create(subject: Subject) -> KnEditor:
    """The method for a model."""
    return KnEditor(subject)
