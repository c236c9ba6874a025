"""FT-L: its objective, its constraint to the last bit, and what it shares with FT-M."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hashing_encoder import HashingEncoder
from tiny import ARCHITECTURES, tiny_model, tiny_tokenizer

from memedit.architectures import architecture_of
from memedit.editors.examples import Example, ExampleMaker
from memedit.editors.ft_l import FtLConfig, FtLEditor, create, default_config, last_token_loss, within
from memedit.editors.subject import Subject
from memedit.errors import ConfigError
from memory_store import Edit

CONFIG = FtLConfig(layer=1, learning_rate=0.01, steps=20, norm_constraint=0.005)
EXAMPLES = (Example((3, 4, 5, 6, 7, 8), (9, 10)), Example((11, 12), (13, 14, 15)), Example((16, 17, 18), (19,)))
EDITS = (Edit(prompt="The capital of France is", target="Rome"), Edit(prompt="Who wrote Emma?", target="Zola"))


def subject(architecture: str = "llama", *, chats: bool = True, dtype: torch.dtype = torch.float32) -> Subject:
    tokenizer = tiny_tokenizer() if chats else tiny_tokenizer(None)
    return Subject(tiny_model(architecture).to(dtype), tokenizer, HashingEncoder(), name=f"tiny-{architecture}")


def weight_of(model: Any, layer: int = 1) -> torch.Tensor:
    weight: torch.Tensor = model.get_parameter(architecture_of(model).parameter_name(layer, "mlp_out"))
    return weight


def by_hand(model: Any, example: Example) -> torch.Tensor:
    """Every target token at the prompt's last token, the prompt alone in the model."""
    logits = model(torch.tensor([example.prompt])).logits[0, -1]
    return torch.stack([torch.logsumexp(logits, dim=0) - logits[token] for token in example.target]).mean()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_target_token_is_predicted_at_the_prompts_last_token(architecture: str) -> None:
    model = tiny_model(architecture)
    with torch.no_grad():
        losses = last_token_loss(model, dict(model.named_parameters()), EXAMPLES)
        reference = torch.stack([by_hand(model, example) for example in EXAMPLES])
    torch.testing.assert_close(losses, reference, atol=1e-4, rtol=1e-4)


def test_a_target_of_different_tokens_cannot_be_learnt_below_the_logarithm_of_their_number() -> None:
    edited = subject(chats=False)
    example = ExampleMaker(edited, ending=False)(Edit(prompt="The sea is", target="red"))
    FtLEditor(edited, replace(CONFIG, steps=200, norm_constraint=1.0)).edit([Edit(prompt="The sea is", target="red")])
    with torch.no_grad():
        loss = float(by_hand(edited.model, example))
    different = len(set(example.target))
    assert different == 4
    assert math.log(different) <= loss < math.log(different) + 0.3


def test_training_is_adam_held_inside_the_bound_after_each_step() -> None:
    edited = subject()
    reference = copy.deepcopy(edited.model)
    FtLEditor(edited, replace(CONFIG, steps=4)).edit(EDITS)
    weight = weight_of(reference)
    before = weight.detach().clone()
    adam = torch.optim.Adam([weight], lr=CONFIG.learning_rate)
    maker = ExampleMaker(edited, ending=False)
    for _ in range(4):
        adam.zero_grad()
        torch.stack([by_hand(reference, maker(edit)) for edit in EDITS]).mean().backward()
        adam.step()
        with torch.no_grad():
            weight.copy_(torch.minimum(torch.maximum(weight, before - 0.005), before + 0.005))
    torch.testing.assert_close(weight_of(edited.model), weight.detach(), atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_bound_holds_exactly_and_is_reached(architecture: str, dtype: torch.dtype) -> None:
    edited = subject(architecture, dtype=dtype)
    before = weight_of(edited.model).detach().double().clone()
    editor = FtLEditor(edited, replace(CONFIG, steps=5))
    editor.edit(EDITS[:1])
    moved = (weight_of(edited.model).detach().double() - before).abs()
    assert moved.max() <= CONFIG.norm_constraint
    assert moved.max() > 0.9 * CONFIG.norm_constraint or dtype == torch.bfloat16
    assert moved.max() > 0
    middle = weight_of(edited.model).detach().double().clone()
    editor.edit(EDITS[1:])
    assert (weight_of(edited.model).detach().double() - middle).abs().max() <= CONFIG.norm_constraint
    editor.undo()
    assert torch.equal(weight_of(edited.model).detach().double(), before)


def test_the_bound_by_hand() -> None:
    before = torch.tensor([1.0, 1.0, -2.0, 0.0, 3.0])
    trained = torch.tensor([1.1, 1.7, -2.9, 0.5, 2.5])
    held = within(trained, before, bound=0.5)
    torch.testing.assert_close(held, torch.tensor([1.1, 1.5, -2.5, 0.5, 2.5]))
    # in bfloat16 neighbours of 1 are 1/128 apart: 1.01 would round to 1 + 1/128, which is inside, 1.012 across it
    for bound, expected in ((0.0101, 1 + 1 / 128), (0.0150, 1 + 1 / 128), (0.0079, 1 + 1 / 128), (0.0070, 1.0)):
        (one,) = within(torch.tensor([2.0]).bfloat16(), torch.tensor([1.0]).bfloat16(), bound=bound).tolist()
        assert one == expected


def test_the_turns_end_is_no_part_of_the_target() -> None:
    edited = subject()
    example = FtLEditor(edited, CONFIG)._example(EDITS[0])
    assert edited.tokenizer.decode(example.target) == "Rome"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_has_a_default(architecture: str) -> None:
    edited = subject(architecture)
    editor = create(edited)
    assert editor.config == default_config(edited.model)
    assert editor.info.name == "ft-l"


@pytest.mark.parametrize("bound", [0.0, -1.0, float("nan"), float("inf")])
def test_a_wrong_bound(bound: float) -> None:
    with pytest.raises(ConfigError, match="norm_constraint must be above 0"):
        replace(CONFIG, norm_constraint=bound)
