"""LoRA and AdaLoRA: what is merged, by hand; and that peft leaves nothing on the model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hashing_encoder import HashingEncoder
from tiny import ARCHITECTURES, tiny_model, tiny_tokenizer

from memedit.editors.adalora import AdaLoraConfig, AdaLoraEditor, orthogonality
from memedit.editors.adapters import ADAPTER, adapted, merged
from memedit.editors.lora import LoraConfig, LoraEditor
from memedit.editors.subject import Subject
from memedit.editors.trained import TrainedEditor
from memedit.errors import ConfigError
from memedit.passes import logits_of
from memory_store import Edit

LORA = LoraConfig(rank=4, alpha=8, learning_rate=0.02, steps=60)
ADALORA = AdaLoraConfig(initial_rank=3, target_rank=2, alpha=24, learning_rate=0.02, steps=60)
EDITS = (Edit(prompt="The capital of France is", target="Rome"), Edit(prompt="Who wrote Emma?", target="Zola"))
BOTH: dict[str, tuple[Any, Any]] = {"lora": (LoraEditor, LORA), "adalora": (AdaLoraEditor, ADALORA)}


def subject(architecture: str = "llama", *, chats: bool = True) -> Subject:
    tokenizer = tiny_tokenizer() if chats else tiny_tokenizer(None)
    return Subject(tiny_model(architecture, scale=2), tokenizer, HashingEncoder(), name=f"tiny-{architecture}")


def editor_of(name: str, of: Subject, **values: Any) -> Any:
    kind, config = BOTH[name]
    return kind(of, replace(config, **values))


def anatomy(model: Any) -> tuple[Any, ...]:
    """All that peft could have touched besides the values: modules, flags, hooks, attributes."""
    return (
        {name: id(module) for name, module in model.named_modules()},
        {name: (id(parameter), parameter.requires_grad) for name, parameter in model.named_parameters()},
        {name: len(module._forward_hooks) + len(module._forward_pre_hooks) for name, module in model.named_modules()},
        set(vars(model)),
        model.training,
    )


def values_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_merged_weight_is_w_plus_the_scaled_product(architecture: str) -> None:
    edited = subject(architecture)
    editor = editor_of("lora", edited)
    model, paths = edited.model, editor.paths
    prompt = EDITS[0].prompt.encode()
    with adapted(model, paths, lambda: editor._put_in(1), seed=0):
        layer = model.get_submodule(paths[0])
        generator = torch.Generator().manual_seed(1)
        for path in paths:
            rows, columns = model.get_submodule(path).lora_A[ADAPTER], model.get_submodule(path).lora_B[ADAPTER]
            with torch.no_grad():
                columns.weight.copy_(torch.randn(columns.weight.shape, generator=generator))
                rows.weight.copy_(torch.randn(rows.weight.shape, generator=generator))
        product = layer.lora_B[ADAPTER].weight @ layer.lora_A[ADAPTER].weight
        change = LORA.alpha / LORA.rank * (product.T if architecture == "gpt2" else product)
        values = merged(model, paths)
        torch.testing.assert_close(values[f"{paths[0]}.weight"], layer.base_layer.weight + change)
        beside = logits_of(model, [tuple(prompt)])
    editor._weights.write(values)
    torch.testing.assert_close(logits_of(model, [tuple(prompt)]), beside, atol=1e-3, rtol=1e-3)


def test_adaloras_merged_weight_and_orthogonality_by_hand() -> None:
    edited = subject()
    editor = editor_of("adalora", edited)
    with adapted(edited.model, editor.paths, lambda: editor._put_in(60), seed=0):
        layer = edited.model.get_submodule(editor.paths[0])
        with torch.no_grad():
            layer.lora_E[ADAPTER].copy_(torch.tensor([[1.0], [0.0], [-2.0]]))
        p, q = layer.lora_B[ADAPTER], layer.lora_A[ADAPTER]
        product = p @ torch.diag(torch.tensor([1.0, 0.0, -2.0])) @ q * 24.0 / 3
        values = merged(edited.model, editor.paths)
        torch.testing.assert_close(values[f"{editor.paths[0]}.weight"], layer.base_layer.weight + product)
        apart = []
        for path in editor.paths:
            one = edited.model.get_submodule(path)
            p, q = one.lora_B[ADAPTER], one.lora_A[ADAPTER]
            apart.append(torch.dist(p.T @ p, torch.eye(3)) ** 2 + torch.dist(q @ q.T, torch.eye(3)) ** 2)
        torch.testing.assert_close(orthogonality(edited.model, editor.paths), sum(apart) / len(apart))


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3-sliding"])
def test_queries_and_values_change_and_nothing_of_peft_is_left(name: str, architecture: str) -> None:
    edited = subject(architecture)
    parameter = next(iter(edited.model.parameters()))
    parameter.requires_grad_(False)
    before, shape = values_of(edited.model), anatomy(edited.model)
    drawn = torch.get_rng_state()
    editor = editor_of(name, edited, steps=4)
    editor.edit(EDITS)
    assert anatomy(edited.model) == shape
    assert torch.equal(torch.get_rng_state(), drawn)
    after = values_of(edited.model)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    # AdaLoRA may leave a weight no rank at all
    assert changed == {f"{path}.weight" for path in editor.paths} or (name == "adalora" and changed)
    assert changed <= {f"{path}.weight" for path in editor.paths}
    editor.undo()
    assert same(before, values_of(edited.model))
    assert all(one.grad is None for one in edited.model.parameters())


@pytest.mark.parametrize("name", BOTH)
def test_an_exception_in_the_middle_leaves_nothing(name: str) -> None:
    edited = subject()
    before, shape = values_of(edited.model), anatomy(edited.model)
    calls = []

    def interrupt(*_: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    editor: TrainedEditor = editor_of(name, edited)
    hook = edited.model.model.layers[2].register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        editor.edit(EDITS)
    hook.remove()
    assert anatomy(edited.model) == shape
    assert same(before, values_of(edited.model))


@pytest.mark.parametrize("name", BOTH)
def test_the_edit_is_said(name: str) -> None:
    edited = subject()
    editor = editor_of(name, edited)
    editor.edit(EDITS[:1])
    example = editor._example(EDITS[0])
    with torch.no_grad():
        logits = logits_of(edited.model, [(*example.prompt, *example.target[:-1])], keep=len(example.target))
    assert logits[0].argmax(dim=-1).tolist() == list(example.target)


@pytest.mark.parametrize("name", BOTH)
def test_the_seed_draws_what_is_drawn(name: str) -> None:
    states = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        edited = subject()
        torch.manual_seed(noise)
        editor_of(name, edited, steps=4, seed=seed).edit(EDITS)
        states.append(values_of(edited.model))
    assert same(states[0], states[1])
    assert not same(states[0], states[2])


def test_adalora_keeps_its_budget() -> None:
    """At the end the entries of Lambda that are not 0 are the target rank on average."""
    edited = subject()
    editor = editor_of("adalora", edited)
    kept: list[Any] = []

    def count(model: Any, paths: tuple[str, ...]) -> dict[str, torch.Tensor]:
        kept.extend(int((model.get_submodule(path).lora_E[ADAPTER] != 0).sum()) for path in paths)
        return merged(model, paths)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("memedit.editors.adapter_editor.merged", count)
        editor.edit(EDITS[:1])
    assert sum(kept) <= ADALORA.target_rank * len(editor.paths)
    assert sum(kept) > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_layer_is_adapted(architecture: str) -> None:
    edited = subject(architecture)
    editor = editor_of("lora", edited)
    assert len(editor.paths) == 3 * (1 if architecture == "gpt2" else 2)
    assert all(hasattr(edited.model.get_submodule(path), "weight") for path in editor.paths)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("lora", {"rank": 0}, "rank must be at least 1"),
        ("lora", {"alpha": 0.0}, "alpha must be above 0"),
        ("adalora", {"target_rank": 9}, "initial_rank must be above target_rank, 9"),
        ("adalora", {"settled": 0.95}, "together below 1"),
        ("adalora", {"steps": 2}, "steps must be at least 4"),
    ],
)
def test_a_wrong_configuration(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(BOTH[name][1], **values)
