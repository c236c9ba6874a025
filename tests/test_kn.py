"""KN: which values it rewrites and how, against the formula worked by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hashing_encoder import HashingEncoder
from tiny import tiny_model, tiny_tokenizer

from memedit.architectures import architecture_of
from memedit.editors.examples import ExampleMaker
from memedit.editors.kn import KnConfig, KnEditor
from memedit.editors.registry import create_editor
from memedit.editors.subject import Subject
from memedit.errors import ConfigError, UnsupportedCallError
from memedit.locate.neurons import NeuronConfig, complete_attributions, refined
from memory_store import Edit

EDIT = Edit(prompt="The capital of France is", target="Rome", subject="France")
OTHER = Edit(prompt="Emma was written by", target="Zola", subject="Emma")


def subject(architecture: str = "llama", *, chats: bool = False) -> Subject:
    tokenizer = tiny_tokenizer() if chats else tiny_tokenizer(None)
    return Subject(tiny_model(architecture), tokenizer, HashingEncoder(), name="tiny")


def added(of: Subject, edit: Edit, config: KnConfig) -> dict[tuple[int, int], torch.Tensor]:
    """What the formula adds to the value of each neuron, by layer and place."""
    example = ExampleMaker(of)(edit)
    with torch.no_grad():
        present = int(of.model(torch.tensor([example.prompt])).logits[0, -1].argmax())
    found = complete_attributions(of.model, example.prompt, present)
    words = of.model.get_output_embeddings().weight.detach()
    value = config.put_in * words[example.target[0]] - config.take_away * words[present]
    return {(one.layer, one.place): value for one in refined([found.values], config.neurons)}


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_values_of_the_neurons_change_by_the_formula_and_nothing_else_does(architecture: str) -> None:
    edited = subject(architecture)
    family = architecture_of(edited.model)
    config = KnConfig(take_away=0.5, put_in=2.0)
    by_hand: dict[tuple[int, int], Any] = {}
    for edit in (EDIT, OTHER):
        for place, value in added(edited, edit, config).items():
            by_hand[place] = by_hand.get(place, 0) + value
    before = {name: value.clone() for name, value in edited.model.state_dict().items()}
    KnEditor(edited, config).edit([EDIT, OTHER])
    changed = set()
    for layer in range(3):
        name = family.parameter_name(layer, "mlp_out")
        now, was = edited.model.state_dict()[name], before.pop(name)
        moved = (now - was) if family.transposed else (now - was).T
        for column, value in enumerate(moved):
            if value.abs().max() > 0:
                changed.add((layer, column))
                torch.testing.assert_close(value, by_hand[layer, column], atol=1e-5, rtol=1e-4)
    assert changed == set(by_hand)
    assert all(torch.equal(before[name], value) for name, value in edited.model.state_dict().items() if name in before)


def test_more_of_the_new_answer_makes_it_likelier() -> None:
    edited = subject()
    example = ExampleMaker(edited)(EDIT)

    def probability() -> float:
        with torch.no_grad():
            return float(edited.model(torch.tensor([example.prompt])).logits[0, -1].softmax(-1)[example.target[0]])

    before = probability()
    editor = KnEditor(edited, KnConfig(put_in=8.0))
    editor.edit([EDIT])
    assert probability() > before
    editor.undo()
    assert probability() == before


def test_paraphrases_choose_the_neurons_that_they_share() -> None:
    edited = subject()
    paraphrased = replace(EDIT, paraphrases=("France's capital is", "In France, the capital is"))
    before = edited.model.state_dict()["model.layers.1.mlp.down_proj.weight"].clone()
    with pytest.raises(ConfigError, match=r"share no neuron; lower share \(now 1\.0\)"):
        KnEditor(edited, KnConfig(neurons=NeuronConfig(threshold=1.0, share=1.0))).edit([OTHER, paraphrased])
    assert torch.equal(before, edited.model.state_dict()["model.layers.1.mlp.down_proj.weight"])


def test_a_chat_model_is_edited_as_it_is_asked() -> None:
    edited = subject(chats=True)
    config = KnConfig(take_away=0.0, put_in=1.0)
    by_hand = added(edited, EDIT, config)
    before = {name: value.clone() for name, value in edited.model.state_dict().items()}
    KnEditor(edited, config).edit([EDIT])
    (layer, place), value = next(iter(by_hand.items()))
    name = architecture_of(edited.model).parameter_name(layer, "mlp_out")
    moved = edited.model.state_dict()[name] - before[name]
    torch.testing.assert_close(moved[:, place], value, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("values", [{"take_away": -1.0}, {"put_in": float("nan")}])
def test_a_wrong_configuration(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must not be negative"):
        KnConfig(**values)


def test_a_quantised_weight_is_refused() -> None:
    quantised = subject()
    projection = quantised.model.model.layers[0].mlp.down_proj
    projection.weight = torch.nn.Parameter(projection.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(UnsupportedCallError, match=r"quantised \(torch\.int8\)"):
        KnEditor(quantised)


def test_it_is_registered_with_what_was_chosen() -> None:
    editor = create_editor("kn", subject())
    assert isinstance(editor, KnEditor)
    assert editor.config.put_in > 0
