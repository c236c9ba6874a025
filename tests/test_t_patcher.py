"""T-Patcher: its neurons and losses by hand, and that they answer to their own keys."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hashing_encoder import HashingEncoder
from tiny import tiny_model, tiny_tokenizer

from memedit.editors.activations import inputs_of
from memedit.editors.examples import ExampleMaker
from memedit.editors.patches import Patches
from memedit.editors.subject import Subject
from memedit.editors.t_patcher import TPatcherConfig, TPatcherEditor, activation_loss, memory_loss
from memedit.errors import ConfigError
from memedit.passes import logits_of, pad_left
from memory_store import Edit

CONFIG = TPatcherConfig(learning_rate=0.1, steps=100)
FRANCE = Edit(prompt="The capital of France is", target="Rome")
EMMA = Edit(prompt="Who wrote Emma?", target="Zola")


def subject(architecture: str = "llama", *, chats: bool = True) -> Subject:
    tokenizer = tiny_tokenizer() if chats else tiny_tokenizer(None)
    return Subject(tiny_model(architecture, scale=2), tokenizer, HashingEncoder(), name=f"tiny-{architecture}")


def test_a_neuron_by_hand() -> None:
    patches = Patches(2)
    keys, biases = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([-1.0, -3.0])
    patches.hold(keys, biases, torch.tensor([[10.0, 0.0], [0.0, 100.0]]), keys, behind=0)
    queries = torch.tensor([[3.0, 0.0], [1.0, 1.5], [0.0, 2.0], [2.0, 2.0]])
    # activations 2 0, 0 0 (on the border), 0 1, 1 1
    assert patches.activations(queries).tolist() == [[2.0, 0.0], [0.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    given = patches(queries, torch.full((4, 2), 0.5))
    assert given.tolist() == [[20.5, 0.5], [0.5, 0.5], [0.5, 100.5], [10.5, 100.5]]


def test_the_losses_by_hand() -> None:
    own, biases = torch.tensor([1.0, 2.0]), torch.tensor([0.5, -1.0])
    others = torch.tensor([[0.0, 1.0], [-1.0, 3.0]])
    expected = (math.exp(-1.5) + math.exp(-1.0)) / 2
    assert float(activation_loss(own, biases)) == pytest.approx(expected)
    config = replace(CONFIG, beta=-2.0, gamma=-1.0, top_k=2)
    # M k + b - beta: 2.5 2 / 1.5 4;  (M - q) k - gamma: 0 0 / -1 2; the two largest of each
    expected = (math.exp(4) + math.exp(2.5)) / 2 + (math.exp(2) + math.exp(0)) / 2
    assert float(memory_loss(own, others, biases, config)) == pytest.approx(expected)
    everything = memory_loss(own, others, biases, replace(config, top_k=100))
    terms = [math.exp(x) for x in (2.5, 2, 1.5, 4)], [math.exp(x) for x in (0, 0, -1, 2)]
    assert float(everything) == pytest.approx(sum(terms[0]) / 4 + sum(terms[1]) / 4)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2"])
def test_the_edit_is_said_and_patches_answer_to_their_own_keys(architecture: str) -> None:
    edited = subject(architecture)
    make = ExampleMaker(edited)
    example, other = make(FRANCE), make(Edit(prompt="How many legs does a spider have?", target="x"))
    before = logits_of(edited.model, [other.prompt])
    editor = TPatcherEditor(edited, CONFIG)
    editor.edit([FRANCE])
    ids, mask = pad_left([example.prompt, other.prompt], device="cpu")
    out = edited.model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=len(example.target), do_sample=False, pad_token_id=0
    )
    assert out[0, ids.shape[1] :].tolist() == list(example.target)
    patches = editor._addition
    assert patches is not None
    assert 0 < len(patches) <= len(example.target)
    assert (patches.activations(patches.queries).diagonal() > 0).all()
    assert torch.equal(logits_of(edited.model, [other.prompt]), before)
    editor.undo()
    assert "t_patcher" not in dict(edited.model.get_submodule(editor.path).named_children())


def test_a_patch_for_each_wrong_token_and_none_for_what_is_known() -> None:
    edited = subject()
    editor = TPatcherEditor(edited, CONFIG)
    example = editor._example(FRANCE)
    told = (*example.prompt, *example.target[:-1])
    with torch.no_grad():
        likeliest = logits_of(edited.model, [told], keep=len(example.target))[0].argmax(dim=-1).tolist()
    wrong = [at for at, token in enumerate(example.target) if likeliest[at] != token]
    (read,) = inputs_of(edited.model, editor.path, [told])
    editor.edit([FRANCE])
    patches = editor._addition
    assert patches is not None
    queries = read[[len(example.prompt) - 1 + at for at in wrong]]
    torch.testing.assert_close(patches.queries, queries)
    editor.edit([FRANCE])
    assert editor._addition is not None
    assert len(editor._addition) == len(wrong), "the second time the model knows it"


def test_earlier_patches_stay_as_they_are() -> None:
    edited = subject()
    editor = TPatcherEditor(edited, replace(CONFIG, steps=5))
    editor.edit([FRANCE])
    assert editor._addition is not None
    keys, values = editor._addition.keys.clone(), editor._addition.values.clone()
    editor.edit([EMMA])
    assert len(editor._addition) > len(keys)
    assert torch.equal(editor._addition.keys[: len(keys)], keys)
    assert torch.equal(editor._addition.values[: len(keys)], values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"memory_weight": -1.0}, "memory_weight must not be negative"),
        ({"beta": 1.0}, "beta must be at most 0"),
    ],
)
def test_a_wrong_configuration(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(CONFIG, **values)
