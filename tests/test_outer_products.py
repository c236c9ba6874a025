"""Gradients and changes as outer products: against autograd, and against a model whose weights are changed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny import ARCHITECTURES, tiny_model

from memedit.architectures import architecture_of
from memedit.editors.outer_products import OuterProducts, gradient_parts, shifted

IDS = torch.tensor([[5, 9, 13, 40, 7], [8, 3, 99, 21, 60]])


def layers_of(model: Any) -> list[str]:
    """Both sides of two MLPs."""
    architecture = architecture_of(model)
    return [architecture.module_name(layer, part) for layer in (0, 2) for part in ("mlp_up", "mlp_out")]


def precise(architecture: str) -> Any:
    return tiny_model(architecture).double()


def loss_of(model: Any) -> torch.Tensor:
    """Of the last two tokens of the first row, and the last of the second."""
    losses: torch.Tensor = -model(IDS).logits.log_softmax(-1)
    return losses[0, 2, IDS[0, 3]] + losses[0, 3, IDS[0, 4]] + losses[1, 3, IDS[1, 4]]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_sum_of_outer_products_is_the_gradient(architecture: str) -> None:
    model = precise(architecture)
    names = layers_of(model)
    weights = [model.get_parameter(f"{name}.weight") for name in names]
    expected = torch.autograd.grad(loss_of(model), weights)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        parts = gradient_parts(model, names, lambda: loss_of(model))
    transposed = architecture_of(model).transposed
    for name, gradient in zip(names, expected, strict=True):
        assert parts[name].total(transposed=transposed).dtype == torch.float64
        torch.testing.assert_close(parts[name].total(transposed=transposed), gradient, rtol=1e-10, atol=1e-12)


def test_a_token_on_which_the_loss_does_not_depend_has_no_delta() -> None:
    model = precise("llama")
    name = layers_of(model)[-1]
    deltas = gradient_parts(model, [name], lambda: loss_of(model))[name].deltas
    assert deltas.shape == (2, 5, 32)
    # of the last layer's MLP only what stands where a token is predicted
    assert deltas.abs().sum(-1).ne(0).tolist() == [
        [False, False, True, True, False],
        [False, False, False, True, False],
    ]


def drawn(groups: int, tokens: int, shape: tuple[int, int]) -> OuterProducts:
    generator = torch.Generator().manual_seed(groups + tokens)
    inputs = torch.randn(groups, tokens, shape[0], generator=generator, dtype=torch.float64)
    return OuterProducts(inputs, torch.randn(groups, tokens, shape[1], generator=generator, dtype=torch.float64) / 50)


def changed(model: Any, changes: dict[str, OuterProducts], group: int) -> Any:
    """A copy of the model with the weights themselves changed."""
    other = copy.deepcopy(model)
    transposed = architecture_of(model).transposed
    with torch.no_grad():
        for name, change in changes.items():
            for u, delta in zip(change.inputs[group], change.deltas[group], strict=True):
                product = torch.outer(u, delta) if transposed else torch.outer(delta, u)
                other.get_parameter(f"{name}.weight").add_(product)
    return other


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_shifted_model_computes_as_one_with_changed_weights(architecture: str) -> None:
    model = precise(architecture)
    before = model(IDS).logits
    names = layers_of(model)
    shapes = [model.get_parameter(f"{name}.weight").shape for name in names]
    transposed = architecture_of(model).transposed
    for groups in (1, 2):
        changes = {
            name: drawn(groups, 3, tuple(shape) if transposed else tuple(reversed(shape)))
            for name, shape in zip(names, shapes, strict=True)
        }
        with shifted(model, changes):
            moved = model(IDS).logits
        for row in range(2):
            expected = changed(model, changes, min(row, groups - 1))(IDS).logits[row]
            torch.testing.assert_close(moved[row], expected, rtol=1e-9, atol=1e-9)
            assert not torch.allclose(before[row], expected, atol=1e-3)
    assert torch.equal(model(IDS).logits, before)


def test_groups_that_are_made_together_are_summed() -> None:
    apart = drawn(4, 3, (6, 5))
    two = apart.together(2)
    assert two.inputs.shape == (2, 6, 6)
    for place in range(2):
        part = OuterProducts(apart.inputs[2 * place : 2 * place + 2], apart.deltas[2 * place : 2 * place + 2])
        one = OuterProducts(two.inputs[place : place + 1], two.deltas[place : place + 1])
        torch.testing.assert_close(one.total(), part.total())


def test_gradients_flow_into_a_change() -> None:
    model = precise("llama")
    name = layers_of(model)[0]
    inputs = torch.ones(1, 1, 32, dtype=torch.float64, requires_grad=True)
    deltas = torch.zeros(1, 1, 64, dtype=torch.float64, requires_grad=True)
    with shifted(model, {name: OuterProducts(inputs, deltas)}):
        loss = loss_of(model)
    (found,) = torch.autograd.grad(loss, [deltas])
    # at no change d loss / d delta = G u, with G the gradient by the weight
    gradient = gradient_parts(model, [name], lambda: loss_of(model))[name].total()
    torch.testing.assert_close(found[0, 0], gradient @ inputs[0, 0].detach(), rtol=1e-9, atol=1e-9)


def test_an_exception_leaves_no_hooks() -> None:
    model = precise("llama")
    name = layers_of(model)[0]
    with pytest.raises(RuntimeError, match="Expected size"), shifted(model, {name: drawn(1, 2, (3, 4))}):
        model(IDS)
    with pytest.raises(KeyError):
        gradient_parts(model, [name, "lm_head"], lambda: model.model(IDS).last_hidden_state.sum())
    assert not any(module._forward_hooks for module in model.modules())
