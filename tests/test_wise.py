"""WISE: margins and merging by hand, the route between the memories, and sharding over a sequence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hashing_encoder import HashingEncoder
from tiny import tiny_model, tiny_tokenizer

from memedit.architectures import architecture_of
from memedit.editors.activations import inputs_of
from memedit.editors.examples import ExampleMaker
from memedit.editors.side_memory import SideMemory, ties
from memedit.editors.subject import Subject
from memedit.editors.wise import WiseConfig, WiseEditor, margin_loss
from memedit.errors import ConfigError
from memedit.passes import logits_of, pad_left
from memory_store import Edit

CONFIG = WiseConfig(layer=1, learning_rate=0.02, alpha=1.0, beta=4.0, gamma=2.0, rho=0.5, steps=80)
HAND = replace(CONFIG, alpha=2.0, beta=8.0, gamma=4.0)
FRANCE = Edit(prompt="The capital of France is", target="Rome")
EMMA = Edit(prompt="Who wrote Emma?", target="Zola")


def subject(architecture: str = "llama", *, chats: bool = True) -> Subject:
    tokenizer = tiny_tokenizer() if chats else tiny_tokenizer(None)
    return Subject(tiny_model(architecture, scale=2), tokenizer, HashingEncoder(), name=f"tiny-{architecture}")


def test_the_margins_by_hand() -> None:
    edited, other = torch.tensor([7.0, 9.0, 5.0]), torch.tensor([1.0, 3.0, 2.5, 0.0])
    # above alpha 2: by 1 and 0.5, mean 0.75; below beta 8: by 1 and 3, mean 2; 5 - 3 is 2 less than gamma 4
    assert float(margin_loss(edited, other, HAND)) == pytest.approx(0.75 + 2.0 + 2.0)
    kept = margin_loss(torch.tensor([8.5]), torch.tensor([2.0]), HAND)
    assert float(kept) == 0.0


def test_the_margins_gradient_is_the_hinges() -> None:
    edited = torch.tensor([7.0, 9.0], requires_grad=True)
    other = torch.tensor([1.0, 4.0], requires_grad=True)
    margin_loss(edited, other, HAND).backward()
    assert edited.grad is not None
    assert other.grad is not None
    assert edited.grad.tolist() == [-2.0, 0.0]  # below beta, and the smallest, which is 3 above: 1 less than gamma
    assert other.grad.tolist() == [0.0, 2.0]


def test_merging_by_hand() -> None:
    first = [4.0, -3.0, 0.1, 2.0, 0.0]
    second = [1.0, 5.0, 0.2, -6.0, 0.0]
    third = [0.5, 4.0, 3.0, 1.0, 0.0]
    # three of five are kept: 4 -3 2 / 1 5 -6 / 4 3 1; signs by the sums 5, 6, 3, -3
    merged = ties(torch.tensor([first, second, third]), density=0.6)
    torch.testing.assert_close(merged, torch.tensor([2.5, 4.5, 3.0, -6.0, 0.0]))
    assert torch.equal(ties(torch.tensor([first]), density=1.0), torch.tensor(first))


def test_the_main_memory_answers_bit_for_bit_up_to_the_threshold() -> None:
    memory = SideMemory(2, 3)
    memory.difference = torch.tensor([[3.0, 0.0, 4.0], [0.0, 1.0, 0.0]])
    inputs, output = torch.tensor([[1.0, 0.0], [0.0, 2.0], [2.0, 0.0]]), torch.tensor([[0.1, 0.2, 0.3]] * 3)
    assert memory.activation(inputs).tolist() == [5.0, 2.0, 10.0]
    assert torch.equal(memory(inputs, output), output), "no edit, no threshold that is ever passed"
    memory.threshold = torch.tensor(5.0)
    given = memory(inputs, output)
    assert torch.equal(given[:2], output[:2])
    torch.testing.assert_close(given[2], torch.tensor([6.1, 0.2, 8.3]))


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_side_memory_is_another_weight(architecture: str) -> None:
    """What is routed there is what the layer gives with the weight W_v' in place of W_v."""
    edited = subject(architecture)
    editor = WiseEditor(edited, replace(CONFIG, steps=5))
    editor.edit([FRANCE])
    memory = editor._addition
    assert memory is not None
    layer = edited.model.get_submodule(editor.path)
    transposed = architecture_of(edited.model).transposed
    inputs = memory.read
    own = layer.forward(inputs)
    memory.threshold = torch.tensor(0.0)
    routed = memory(inputs, own)
    with torch.no_grad():
        layer.weight.add_(memory.difference if transposed else memory.difference.T)
    torch.testing.assert_close(routed, layer.forward(inputs), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2"])
def test_the_edit_is_said_in_a_padded_batch_and_taken_back(architecture: str) -> None:
    edited = subject(architecture)
    make = ExampleMaker(edited)
    example, other = make(FRANCE), make(Edit(prompt="Hi", target="x"))
    before = logits_of(edited.model, [other.prompt])
    editor = WiseEditor(edited, CONFIG)
    editor.edit([FRANCE])
    ids, mask = pad_left([other.prompt, example.prompt], device="cpu")
    out = edited.model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=len(example.target), do_sample=False, pad_token_id=0
    )
    assert out[1, ids.shape[1] :].tolist() == list(example.target)
    memory = editor._addition
    assert memory is not None
    assert editor._ordinary is not None
    apart = memory.activation(editor._ordinary).median()
    assert memory.activation(memory.read).min() > memory.threshold > apart
    editor.undo()
    assert torch.equal(logits_of(edited.model, [other.prompt]), before)
    assert "wise" not in dict(edited.model.get_submodule(editor.path).named_children())


def test_shards_are_subspaces_and_the_threshold_is_the_smallest_activation() -> None:
    edited = subject()
    config = replace(CONFIG, steps=4, stop_loss=0.0, shard_edits=2, rho=0.25)
    editor = WiseEditor(edited, config)
    texts = ("a", "b", "c", "d", "e")
    edits = [Edit(prompt=f"The colour of {text} is", target=text) for text in texts]
    for edit in edits:
        editor.edit([edit])
    memory = editor._addition
    assert memory is not None
    assert memory.shards.shape[0] == 3
    changed = (memory.shards != 0).float().mean(dim=(1, 2))
    assert ((changed > 0.2) & (changed < 0.3)).all()
    assert not torch.equal(memory.shards[0] != 0, memory.shards[1] != 0)
    torch.testing.assert_close(memory.difference, ties(memory.shards, density=config.density))
    activations = []
    for edit in edits:
        example = editor._example(edit)
        told = (*example.prompt, *example.target[:-1])
        (read,) = inputs_of(edited.model, editor.path, [told])
        activations += (read[len(example.prompt) - 1 :] @ memory.difference).norm(dim=1).tolist()
    assert float(memory.threshold) == pytest.approx(min(activations) * config.threshold_ratio, rel=1e-4)


def test_the_seed_draws_the_masks_and_nothing_else_does() -> None:
    states = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        edited = subject()
        torch.manual_seed(noise)
        drawn = torch.get_rng_state()
        WiseEditor(edited, replace(CONFIG, steps=3, seed=seed)).edit([FRANCE])
        assert torch.equal(torch.get_rng_state(), drawn)
        states.append(edited.model.get_submodule("model.layers.1.mlp.down_proj.wise").difference)
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_what_is_done_once_is_told_apart() -> None:
    editor = WiseEditor(subject(), replace(CONFIG, steps=2))
    first, second = editor.edit([FRANCE]), editor.edit([EMMA])
    assert first.setup_seconds > 100 * second.setup_seconds
    assert (first.stored_bytes or 0) > (second.stored_bytes or 0) > 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"alpha": 8.0}, "alpha < beta"),
        ({"gamma": -1.0}, "0 <= gamma"),
        ({"rho": 0.0}, "rho must be above 0"),
        ({"density": 1.5}, "density must be above 0 and at most 1"),
        ({"shard_edits": 0}, "shard_edits must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
    ],
)
def test_a_wrong_configuration(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(CONFIG, **values)
