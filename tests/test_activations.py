"""Activations, and passes that start in the middle: against the model's own plain call, for every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_architectures import MODELS
from tiny import ARCHITECTURES as TINY
from tiny import tiny_model

from memedit.architectures import architecture_of
from memedit.editors.activations import SplitPass, activations, activations_of_all, inputs_of

ROWS = ((3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14), (11, 12, 13, 14), (16, 17, 18, 19, 20, 21, 22, 3, 4))
PLACES = (8, 1, 6)


def family(name: str) -> Any:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6)
    return model


MADE = {
    **{name: lambda name=name: family(name) for name in MODELS},
    **{f"tiny {n}": lambda n=n: tiny_model(n) for n in TINY},
}


@pytest.fixture(scope="module", params=MADE)
def model(request: pytest.FixtureRequest) -> Any:
    return MADE[request.param]()


def with_added(model: Any, name: str, vectors: torch.Tensor) -> torch.Tensor:
    """The last two logits of each row by the whole model, alone, a vector added at its place."""
    logits = []
    for row, place, vector in zip(ROWS, PLACES, vectors, strict=True):

        def add(_: Any, __: Any, output: Any, place: int = place, vector: torch.Tensor = vector) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output
            where = torch.zeros_like(hidden)
            where[0, place] = 1
            changed = hidden + where * vector
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        hook = model.get_submodule(name).register_forward_hook(add)
        logits.append(model(torch.tensor([row])).logits[0, -2:])
        hook.remove()
    return torch.stack(logits)


@pytest.mark.parametrize("part", ["mlp_out", "attention_out", None])
@pytest.mark.parametrize("layer", [0, 1])
def test_a_split_pass_and_its_gradient_are_those_of_the_whole_model(model: Any, layer: int, part: Any) -> None:
    name = architecture_of(model).module_name(layer, part)
    torch.manual_seed(1)
    added = torch.randn(3, 32).requires_grad_(True)
    weights = torch.randn(3, 2, model.get_output_embeddings().weight.shape[0])
    with torch.enable_grad():
        split = SplitPass(model, ROWS, PLACES, layer)({name: added}, keep=2)
        (gradient,) = torch.autograd.grad((split * weights).sum(), [added])
        whole = with_added(model, name, added)
        (expected,) = torch.autograd.grad((whole * weights).sum(), [added])
    torch.testing.assert_close(split, whole, atol=1e-4 * float(whole.detach().abs().max()), rtol=1e-4)
    assert expected.abs().max() > 0
    torch.testing.assert_close(gradient, expected, atol=1e-3 * float(expected.abs().max()), rtol=1e-3)


def test_a_split_pass_leaves_no_trace(model: Any) -> None:
    name = architecture_of(model).module_name(1, "mlp_out")
    before = model(torch.tensor([ROWS[0]])).logits
    split = SplitPass(model, ROWS, PLACES, 1)
    split({name: torch.ones(3, 32)}, keep=1)
    with pytest.raises((IndexError, RuntimeError)):
        split({name: torch.ones(7, 32)}, keep=1)
    assert torch.equal(model(torch.tensor([ROWS[0]])).logits, before)


def test_fewer_rows_of_a_split_pass_are_the_same_rows(model: Any) -> None:
    name = architecture_of(model).module_name(1, "mlp_out")
    torch.manual_seed(1)
    added = torch.randn(3, 32)
    split = SplitPass(model, ROWS, PLACES, 1)
    with torch.no_grad():
        whole = split({name: added}, keep=2)
        split.narrow([0, 2])
        torch.testing.assert_close(split({name: added[[0, 2]]}, keep=2), whole[[0, 2]], atol=1e-4, rtol=1e-4)


def by_hand(model: Any, name: str, *, output: bool) -> list[torch.Tensor]:
    """What passes a module, row by row, ``[tokens, width]``."""
    found: list[torch.Tensor] = []

    def keep(_: Any, given: Any, written: Any) -> None:
        value = written if output else given
        found.append((value[0] if isinstance(value, tuple) else value)[0].detach().clone())

    hook = model.get_submodule(name).register_forward_hook(keep)
    with torch.no_grad():
        for row in ROWS:
            model(torch.tensor([row]))
    hook.remove()
    return found


def test_activations_are_what_passes_the_modules(model: Any) -> None:
    architecture = architecture_of(model)
    sides = [(architecture.module_name(0, "mlp_out"), False), (architecture.module_name(1), True)]
    read = activations(model, ROWS, PLACES, sides)
    everywhere = activations_of_all(model, ROWS, sides)
    for side in sides:
        expected = by_hand(model, side[0], output=side[1])
        at_places = torch.stack([rows[place] for rows, place in zip(expected, PLACES, strict=True)])
        torch.testing.assert_close(read[side], at_places, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(everywhere[side], torch.cat(expected), atol=1e-4, rtol=1e-4)


def test_activations_of_many_rows_come_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    side = (architecture_of(model).module_name(1, "mlp_out"), True)
    whole = activations(model, ROWS, PLACES, [side])[side]
    monkeypatch.setattr("memedit.editors.activations._MOST_TOKENS", 1)
    torch.testing.assert_close(activations(model, ROWS, PLACES, [side])[side], whole, atol=1e-4, rtol=1e-4)


def test_other_parameters_are_read_in_place_of_the_models(model: Any) -> None:
    architecture = architecture_of(model)
    lower, upper = architecture.module_name(0, "mlp_out"), architecture.module_name(1, "mlp_out")
    name = f"{lower}.weight"
    other = torch.zeros_like(model.get_parameter(name))
    side = (upper, True)
    read = activations(model, ROWS, PLACES, [side], parameters={name: other})[side]
    with torch.no_grad():
        kept = model.get_parameter(name).clone()
        model.get_parameter(name).zero_()
        expected = activations(model, ROWS, PLACES, [side])[side]
        split = SplitPass(model, ROWS, PLACES, 1)({upper: torch.ones(3, 32)}, keep=1)
        model.get_parameter(name).copy_(kept)
        replaced = SplitPass(model, ROWS, PLACES, 1, parameters={name: other})({upper: torch.ones(3, 32)}, keep=1)
    assert torch.equal(read, expected)
    torch.testing.assert_close(replaced, split)


@pytest.mark.parametrize("able", [True, False])
def test_lower_precision_is_near_where_the_processor_has_it(able: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": able}, raising=False)
    model = tiny_model()
    name = architecture_of(model).module_name(1, "mlp_out")
    with torch.no_grad():
        whole = SplitPass(model, ROWS, PLACES, 1)({name: torch.ones(3, 32)}, keep=2)
        rough = SplitPass(model, ROWS, PLACES, 1, bfloat16=True)({name: torch.ones(3, 32)}, keep=2)
    apart = float((rough.float() - whole).norm() / whole.norm())
    assert 0 < apart < 0.05 if able else apart == 0


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mistral-sliding"])
def test_what_a_module_reads_is_that_of_each_row_alone(architecture: str) -> None:
    model = tiny_model(architecture)
    path = architecture_of(model).module_name(1, "mlp_out")
    together = inputs_of(model, path, ROWS)
    assert [len(one) for one in together] == [len(row) for row in ROWS]
    for row, read in zip(ROWS, together, strict=True):
        expected: list[torch.Tensor] = []
        hook = model.get_submodule(path).register_forward_hook(lambda _, i, __, kept=expected: kept.append(i[0][0]))
        with torch.no_grad():
            model(torch.tensor([row]))
        hook.remove()
        torch.testing.assert_close(read, expected[0], atol=1e-4, rtol=1e-3)
    assert not model.get_submodule(path)._forward_pre_hooks
