"""A change of a model is undone bit for bit (promise 10): of weights, and of what is put beside a module."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny import ARCHITECTURES, tiny_model

from memedit.hooks import Attachment, restored, running_instead

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


class Adding(torch.nn.Module):
    """Adds its one number times what the host reads, where the host is as wide as it reads."""

    def __init__(self, number):
        super().__init__()
        self.register_buffer("number", torch.tensor(float(number)))

    def forward(self, inputs, output):
        return output + self.number * inputs


def test_an_attachment_reads_with_its_host_and_gives_out_instead():
    host = torch.nn.Sequential(torch.nn.Linear(3, 3))
    inputs = torch.randn(2, 3)
    own = host(inputs)
    attachment = Attachment(host, "0", "adding", Adding(2))
    assert torch.equal(host(inputs), own + 2 * inputs)
    assert "0.adding.number" in host.state_dict()
    attachment.exchange(Adding(-1))
    assert torch.equal(host(inputs), own - inputs)
    with pytest.raises(ValueError, match="0 has a 'adding' already; undo the method"):
        Attachment(host, "0", "adding", Adding(1))
    attachment.remove()
    assert torch.equal(host(inputs), own)
    assert set(host.state_dict()) == {"0.weight", "0.bias"}
    assert not host[0]._forward_hooks


def test_a_copy_of_a_model_has_an_attachment_of_its_own():
    host = torch.nn.Sequential(torch.nn.Linear(3, 3))
    inputs = torch.randn(2, 3)
    own = host(inputs)
    attachment = Attachment(host, "0", "adding", Adding(2))
    copied = copy.deepcopy(host)
    attachment.exchange(Adding(5))
    assert torch.equal(copied(inputs), own + 2 * inputs)
    attachment.remove()
    assert torch.equal(copied(inputs), own + 2 * inputs)


def test_what_ran_before_something_else_runs_again():
    """Also a forward pass that a module was given by itself, which is not that of its class."""
    plain, wrapped = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    own = wrapped.forward
    vars(wrapped)["forward"] = lambda rows: own(rows) + 1
    rows = torch.ones(1, 2)
    before = plain(rows), wrapped(rows)

    def interrupted():
        with running_instead([plain, wrapped], lambda given: given * 7):
            assert plain(rows).tolist() == wrapped(rows).tolist() == [[7.0, 7.0]]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert torch.equal(plain(rows), before[0])
    assert torch.equal(wrapped(rows), before[1])
    assert "forward" not in vars(plain)
