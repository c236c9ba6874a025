"""A temporary change of weights is undone bit for bit (promise 10)."""

from __future__ import annotations

import pytest
import torch
from tiny import ARCHITECTURES, tiny_model

from memedit.hooks import restored

WEIGHT = "lm_head.weight"


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model, before):
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_bit_is_back(architecture):
    model = tiny_model(architecture)
    before = snapshot(model)
    with restored(model), torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
        assert not same(model, before)
    assert same(model, before)


def test_adding_and_subtracting_would_not_do():
    """Why the block copies back: the obvious way is not exact."""
    model = tiny_model()
    before = snapshot(model)
    weight = model.get_parameter(WEIGHT)
    delta = torch.randn_like(weight) * 3
    with torch.no_grad():
        weight.add_(delta).sub_(delta)
    assert not same(model, before)


def test_after_an_exception_too():
    model = tiny_model()
    before = snapshot(model)

    def fail_halfway():
        with restored(model, [WEIGHT]), torch.no_grad():
            model.get_parameter(WEIGHT).zero_()
            raise RuntimeError("editing failed")

    with pytest.raises(RuntimeError, match="editing failed"):
        fail_halfway()
    assert same(model, before)


def test_only_what_is_named_is_kept():
    model = tiny_model()
    with restored(model, [WEIGHT]), torch.no_grad():
        model.get_parameter(WEIGHT).zero_()
        model.get_parameter("model.norm.weight").zero_()
    assert model.get_parameter(WEIGHT).abs().sum() > 0
    assert model.get_parameter("model.norm.weight").abs().sum() == 0


def test_an_unknown_name_changes_nothing():
    model = tiny_model()
    with pytest.raises(KeyError, match="lm_haed"), restored(model, ["lm_haed.weight"]):
        pytest.fail("the block must not run")


def test_tied_weights_and_gradients_survive():
    model = tiny_model("gpt2")  # its output layer is its embedding
    before = snapshot(model)
    with restored(model):
        loss = model(torch.tensor([[5, 6, 7]]), labels=torch.tensor([[5, 6, 7]])).loss
        loss.backward()
        torch.optim.SGD(model.parameters(), lr=0.1).step()
        assert not same(model, before)
    assert same(model, before)
    assert model.lm_head.weight is model.transformer.wte.weight
