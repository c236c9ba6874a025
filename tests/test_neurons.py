"""Knowledge neurons: attributions by their definition, completeness, refinement, and what changing neurons does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_architectures import MODELS
from tiny import VOCABULARY, tiny_model, tiny_tokenizer

from memedit.architectures import ARCHITECTURES, architecture_of
from memedit.errors import ConfigError, InvalidPromptError
from memedit.locate import neurons
from memedit.locate.neurons import (
    Attributions,
    NeuronConfig,
    attribute,
    changed_probability,
    complete_attributions,
    find_neurons,
    refined,
)

IDS = (5, 70, 71, 72, 9)


def family(name: str) -> Any:
    torch.manual_seed(0)
    model = MODELS[name]()
    model.resize_token_embeddings(VOCABULARY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model.eval().double()


def probability_with(model: Any, layer: int, neurons: torch.Tensor | None, answer: int) -> torch.Tensor:
    """The answer's probability, the neurons of a layer at the last token replaced, by an ordinary pass."""
    module = model.get_submodule(architecture_of(model).module_name(layer, "mlp_out"))

    def hook(_: Any, given: Any) -> Any:
        if neurons is None:
            return None
        values = given[0].clone()
        values[0, -1] = neurons
        return (values, *given[1:])

    handle = module.register_forward_pre_hook(hook)
    try:
        logits: torch.Tensor = model(torch.tensor([IDS])).logits
        return logits[0, -1].double().softmax(-1)[answer]
    finally:
        handle.remove()


def neurons_of(model: Any, layer: int) -> torch.Tensor:
    """What the last projection of an MLP is given at the last token."""
    kept: list[torch.Tensor] = []
    module = model.get_submodule(architecture_of(model).module_name(layer, "mlp_out"))
    handle = module.register_forward_pre_hook(lambda _, given: kept.append(given[0][0, -1].detach().clone()))
    with torch.no_grad():
        model(torch.tensor([IDS]))
    handle.remove()
    return kept[0]


def likeliest(model: Any) -> int:
    with torch.no_grad():
        return int(model(torch.tensor([IDS])).logits[0, -1].argmax())


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_attributions_add_up_to_the_difference_in_output(name: str) -> None:
    """Completeness to 1%, layer by layer, against ordinary passes with the neurons of the layer at 0."""
    model = family(name)
    answer = likeliest(model)
    found = complete_attributions(model, IDS, answer)
    with torch.no_grad():
        clean = probability_with(model, 0, None, answer)
        assert found.probability == pytest.approx(float(clean), abs=1e-6)
        for layer in range(len(found.values)):
            without = probability_with(model, layer, torch.zeros_like(neurons_of(model, layer)), answer)
            assert float(found.differences[layer]) == pytest.approx(float(clean - without), abs=1e-6)
            assert float(found.values[layer].sum()) == pytest.approx(
                float(clean - without), abs=max(1e-5, 0.01 * float(found.differences.abs().max()))
            )
    assert found.incompleteness < 0.01
    assert found.differences.abs().max() > 1e-3, "nothing was compared"


def test_an_attribution_is_the_integrated_gradient() -> None:
    """Against a fine trapezoidal sum of gradients, each from an ordinary pass."""
    model = family("llama")
    answer = likeliest(model)
    found = attribute(model, IDS, answer, steps=20)
    layer, steps = 1, 100
    neurons = neurons_of(model, layer)
    gradients = []
    for step in range(steps + 1):
        scaled = (neurons * step / steps).requires_grad_(True)
        (gradient,) = torch.autograd.grad(probability_with(model, layer, scaled, answer), [scaled])
        gradients.append(gradient * (0.5 if step in {0, steps} else 1.0))
    by_definition = neurons * torch.stack(gradients).sum(0) / steps
    torch.testing.assert_close(
        found.values[layer], by_definition, atol=0.01 * float(by_definition.abs().max()), rtol=0.01
    )


def test_too_few_steps_are_found_out_and_more_are_taken() -> None:
    model = family("olmo2")
    answer = likeliest(model)
    assert attribute(model, IDS, answer, steps=10).incompleteness > 0.05
    assert complete_attributions(model, IDS, answer, steps=10).incompleteness < 0.01


@pytest.mark.parametrize(
    ("dtype", "apart", "taken", "kept"),
    [
        (torch.bfloat16, [0.2, 0.09, 0.05, 0.06], [20, 40, 80], 0.05),
        (torch.bfloat16, [0.1, 0.12], [20, 40], 0.1),
        (torch.float32, [0.2, 0.15, 0.11, 0.009], [20, 40, 80, 160], 0.009),
    ],
)
def test_steps_are_not_taken_where_rounding_is_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, apart: list[float], taken: list[int], kept: float
) -> None:
    asked: list[int] = []

    def so_far_apart(*_: Any, steps: int, layers: Sequence[int] | None = None) -> Attributions:
        assert layers == (None if steps == 20 else [0])
        asked.append(steps)
        return Attributions(torch.tensor([[1.0 + apart[len(asked) - 1]]]), torch.tensor([1.0]), 0.5)

    monkeypatch.setattr(neurons, "attribute", so_far_apart)
    found = complete_attributions(family("llama").to(dtype), IDS, 7, steps=20)
    assert asked == taken
    assert found.incompleteness == pytest.approx(kept, abs=1e-6)


def test_some_layers_can_be_asked_for_alone() -> None:
    model = family("llama")
    answer, wanted = likeliest(model), [0, 2]
    every, some = attribute(model, IDS, answer), attribute(model, IDS, answer, layers=wanted)
    torch.testing.assert_close(some.values, every.values[wanted])
    torch.testing.assert_close(some.differences, every.differences[wanted])
    assert some.probability == every.probability


def test_more_steps_are_taken_for_the_layers_that_miss_something_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = family("qwen3")
    answer = likeliest(model)
    first = attribute(model, IDS, answer, steps=10)
    missing = [layer for layer, share in enumerate(first.missing.tolist()) if share > 0.01 / len(first.missing)]
    assert 0 < len(missing) < len(first.missing), "there is nothing to choose"
    asked: list[tuple[int, list[int] | None]] = []

    def asking(*args: Any, steps: int, layers: list[int] | None = None) -> Attributions:
        asked.append((steps, layers))
        return attribute(*args, steps=steps, layers=layers)

    monkeypatch.setattr(neurons, "attribute", asking)
    found = complete_attributions(model, IDS, answer, steps=10)
    assert asked[:2] == [(10, None), (20, missing)]
    others = [layer for layer in range(len(first.missing)) if layer not in missing]
    assert torch.equal(found.values[others], first.values[others])
    whole = attribute(model, IDS, answer, steps=asked[-1][0])
    torch.testing.assert_close(found.values, whole.values, atol=0.01 * float(whole.differences.abs().max()), rtol=0.01)


def test_neurons_are_those_that_enough_prompts_share() -> None:
    first = torch.tensor([[1.0, 0.3, 0.1], [0.0, 0.5, -2.0]])
    second = torch.tensor([[0.1, 0.9, 0.0], [0.0, 1.0, 0.0]])
    third = torch.tensor([[0.0, 0.0, 4.0], [0.0, 0.0, 0.0]])
    config = NeuronConfig(threshold=0.25, share=0.6)
    shared = refined([first, second, third], config)
    assert [(one.layer, one.place, one.prompts) for one in shared] == [(1, 1, 2), (0, 1, 2)]
    assert [one.attribution for one in shared] == pytest.approx([0.5, 0.4])
    every = refined([first], config)
    assert [(one.layer, one.place) for one in every] == [(0, 0), (1, 1), (0, 1)]


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_changing_neurons_is_changing_them_at_the_last_token_alone(name: str) -> None:
    model = tiny_model(name)
    answer = likeliest(model)
    chosen = [(0, 3), (0, 7), (2, 5)]
    for factor in (0.0, 2.0, 1.0):
        handles = []
        for layer in (0, 2):
            places = [place for at, place in chosen if at == layer]

            def hook(_: Any, given: Any, places: list[int] = places, factor: float = factor) -> Any:
                given[0][0, -1, places] = factor * given[0][0, -1, places]

            module = model.get_submodule(architecture_of(model).module_name(layer, "mlp_out"))
            handles.append(module.register_forward_pre_hook(hook))
        with torch.no_grad():
            expected = float(model(torch.tensor([IDS])).logits[0, -1].softmax(-1)[answer])
        for handle in handles:
            handle.remove()
        assert changed_probability(model, IDS, answer, chosen, factor=factor) == pytest.approx(expected, abs=1e-6)


def test_the_report() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer(None)
    prompts = ["The sea is", "What is the sea? It is"]
    told: list[tuple[int, int]] = []
    report = find_neurons(model, tokenizer, prompts, report=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]
    assert [change.prompt for change in report.changes] == prompts
    ids = tokenizer(prompts[0])["input_ids"]
    with torch.no_grad():
        token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
    values = [complete_attributions(model, tokenizer(prompt)["input_ids"], token).values for prompt in prompts]
    assert report.by_layer == pytest.approx(((values[0] + values[1]) / 2).sum(dim=1).tolist(), abs=1e-5)
    assert list(report.neurons) == refined(values, NeuronConfig())
    places = [(one.layer, one.place) for one in report.neurons]
    assert report.answer == tokenizer.decode([token])
    assert report.changes[0].suppressed == changed_probability(model, ids, token, places, factor=0.0)
    assert report.changes[0].amplified == changed_probability(model, ids, token, places, factor=2.0)
    assert report.to_json()["config"] == {"steps": 20, "threshold": 0.2, "share": 0.7}


def test_the_model_stays_as_it_is() -> None:
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    find_neurons(model, tiny_tokenizer(None), ["The sea is"])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"threshold": 0.0}, "threshold must be above 0 and at most 1"),
        ({"share": 1.5}, r"share must be above 0 and at most 1, not 1\.5"),
    ],
)
def test_a_wrong_configuration(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(NeuronConfig(), **values)


@pytest.mark.parametrize("prompts", [[], ["The sea is", " "]])
def test_prompts_are_needed(prompts: list[str]) -> None:
    with pytest.raises(InvalidPromptError, match="give a prompt that the answer continues"):
        find_neurons(tiny_model(), tiny_tokenizer(None), prompts)


@pytest.mark.real
def test_a_real_model_is_complete_and_loses_the_answer(smollm2_folder: Path) -> None:
    from memedit.pretrained import load_model

    model, tokenizer = load_model(smollm2_folder, dtype=torch.float32)
    prompts = ["The capital of Japan is", "Japan's capital is the city of"]
    report = find_neurons(model, tokenizer, prompts, answer="Tokyo")
    assert report.incompleteness < 0.01
    assert report.neurons
    assert all(change.suppressed < change.clean for change in report.changes)
