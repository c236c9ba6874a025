"""The layers below one, run once: the same results to the last bit, fewer runs, and nothing left behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_architectures import MODELS
from tiny import ARCHITECTURES, tiny_model

from memedit.architectures import architecture_of
from memedit.frozen_layers import FrozenLayers
from memedit.passes import logits_of

ROWS = [[3, 4, 5, 6], [7, 8]]


def layers_of(model: Any) -> Any:
    return model.get_submodule(architecture_of(model).layers)


@pytest.mark.parametrize("below", [0, 1, 2, 3])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_comes_out_is_the_same_to_the_last_bit(architecture: str, below: int) -> None:
    model = tiny_model(architecture)
    runs = [0] * 3
    for place, layer in enumerate(layers_of(model)):
        layer.get_submodule(architecture_of(model).mlp).register_forward_hook(
            lambda *_, place=place: runs.__setitem__(place, runs[place] + 1)
        )
    with torch.no_grad():
        expected = [logits_of(model, ROWS), logits_of(model, ROWS[:1])]
        runs[:] = [0] * 3
        frozen = FrozenLayers(model, below)
        for _ in range(3):
            for key, rows in ((0, ROWS), (1, ROWS[:1])):
                with frozen.of(key):
                    assert torch.equal(logits_of(model, rows), expected[key])
    assert runs == [2] * below + [6] * (3 - below)
    assert not any("forward" in vars(layer) for layer in layers_of(model))


@pytest.mark.parametrize("family", sorted(MODELS))
def test_every_family_can_begin_in_the_middle(family: str) -> None:
    torch.manual_seed(0)
    model = MODELS[family]().eval()
    frozen = FrozenLayers(model, 2)
    with torch.no_grad():
        expected = logits_of(model, ROWS)
        for _ in range(2):
            with frozen.of("rows"):
                assert torch.equal(logits_of(model, ROWS), expected)


def test_what_is_changed_above_is_heard() -> None:
    model = tiny_model()
    frozen = FrozenLayers(model, 2)
    with torch.no_grad(), frozen.of("rows"):
        before = logits_of(model, ROWS)
    weight = model.model.layers[2].mlp.down_proj.weight
    with torch.no_grad():
        weight.mul_(2)
    with frozen.of("rows"):
        after = logits_of(model, ROWS)
    assert torch.equal(after, logits_of(model, ROWS))
    assert not torch.equal(after, before)
    (gradient,) = torch.autograd.grad(after.sum(), [weight])
    (expected,) = torch.autograd.grad(logits_of(model, ROWS).sum(), [weight])
    torch.testing.assert_close(gradient, expected)


def test_an_exception_leaves_the_layers_their_own() -> None:
    model = tiny_model()
    frozen = FrozenLayers(model, 3)

    def interrupted() -> None:
        with frozen.of("rows"):
            logits_of(model, ROWS)
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert not any("forward" in vars(layer) for layer in layers_of(model))
