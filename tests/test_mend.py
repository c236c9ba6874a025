"""MEND: its formula by hand, what it is before training, what it changes, and what is loaded and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hashing_encoder import HashingEncoder
from tiny import tiny_model, tiny_tokenizer

from memedit.architectures import architecture_of
from memedit.editors.examples import ExampleMaker, target_loss
from memedit.editors.hypernetwork_editor import HypernetworkEditor
from memedit.editors.hypernetwork_files import SavedHypernetwork, load_hypernetwork, save_hypernetwork
from memedit.editors.mend import Mend, MendConfig, create
from memedit.editors.mend_network import MendNetwork, ShapeNetwork
from memedit.editors.outer_products import OuterProducts
from memedit.editors.registry import create_editor
from memedit.editors.subject import Subject
from memedit.errors import ConfigError, DataFileError, UnsupportedCallError
from memory_store import Edit

ROME = Edit(prompt="The capital of France is", target="Rome")
ZOLA = Edit(prompt="Who wrote Emma, the novel?", target="Zola")


def subject(architecture: str = "llama", *, seed: int = 0, precise: bool = False) -> Subject:
    model = tiny_model(architecture, seed)
    return Subject(
        model.double() if precise else model, tiny_tokenizer(), HashingEncoder(), name=f"tiny-{architecture}"
    )


def gradients_by_autograd(of: Subject, edits: list[Edit], names: list[str]) -> list[torch.Tensor]:
    examples = [ExampleMaker(of)(edit) for edit in edits]
    loss = target_loss(of.model, dict(of.model.named_parameters()), examples).sum()
    return list(torch.autograd.grad(loss, [of.model.get_parameter(name) for name in names]))


def random_network(network: torch.nn.Module, seed: int = 0) -> None:
    """Puts every tensor somewhere else than where it begins."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator)
            tensor.add_(noise.abs() / 10 if "deviation" in name else noise / 10)


# The formula.


def test_the_network_is_that_of_the_paper() -> None:
    network = ShapeNetwork(2, 1, layers=2, rank=1, learning_rate=0.5)
    values = {
        "input_mean": [[0, 0], [1, -1]],
        "input_deviation": [[1, 1], [2, 4]],
        "delta_mean": [[0], [0.5]],
        "delta_deviation": [[1], [0.25]],
        "v1": [[1, 0, 2]],
        "u1": [[1], [-3], [0]],
        "bias": [0.5, 1, -1],
        "scale1": [[9, 9, 9], [2, 1, 1]],
        "offset1": [[9, 9, 9], [0, 1, 2]],
        "v2": [[0, 1, 1]],
        "u2": [[0.5], [0], [1]],
        "scale2": [[9, 9, 9], [1, 1, -1]],
        "offset2": [[9, 9, 9], [0, 0.25, 0]],
    }
    with torch.no_grad():
        for name, value in values.items():
            getattr(network, name).copy_(torch.tensor(value, dtype=torch.float32))
    # z = ((5 - 1) / 2, (3 + 1) / 4, (1 - 0.5) / 0.25) = (2, 1, 2); V1 z = 6; U1 V1 z + b = (6.5, -17, -1)
    # h = z + relu(2 * 6.5, -17 + 1, -1 + 2) = (15, 1, 3); V2 h = 4; g = h + (2, 0, -4) + (0, 0.25, 0)
    made = network(OuterProducts(torch.tensor([[[5.0, 3.0]]]), torch.tensor([[[1.0]]])), 1)
    torch.testing.assert_close(made.inputs, torch.tensor([[[17.0, 1.25]]]))
    torch.testing.assert_close(made.deltas, torch.tensor([[[-0.5 * -1.0]]]))


def test_a_token_without_a_part_in_the_gradient_has_none_in_the_change() -> None:
    network = ShapeNetwork(2, 2, layers=1, rank=2, learning_rate=1.0)
    random_network(network)
    gradient = OuterProducts(torch.ones(1, 2, 2), torch.tensor([[[0.0, 0.0], [0.0, 1.0]]]))
    deltas = network(gradient, 0).deltas
    assert deltas[0, 0].tolist() == [0.0, 0.0]
    assert deltas[0, 1].ne(0).all()


def test_the_statistics_are_those_of_the_tokens_that_have_a_part() -> None:
    network = ShapeNetwork(2, 2, layers=2, rank=1, learning_rate=1.0)
    rows = np.array([[1.0, 2.0], [3.0, 7.0], [8.0, 0.0]])
    deltas = np.array([[0.5, 1.0], [0.0, 0.0], [1.5, -1.0]])
    gradient = OuterProducts(torch.tensor(rows)[None].float(), torch.tensor(deltas)[None].float())
    network.normalise_by([gradient], 1)
    kept = [0, 2]
    np.testing.assert_allclose(network.input_mean[1], rows[kept].mean(0), rtol=1e-6)
    np.testing.assert_allclose(network.input_deviation[1], rows[kept].std(0), rtol=1e-6)
    np.testing.assert_allclose(network.delta_mean[1], deltas[kept].mean(0), rtol=1e-6)
    np.testing.assert_allclose(network.delta_deviation[1], deltas[kept].std(0), rtol=1e-6)
    assert network.input_deviation[0].tolist() == [1.0, 1.0]


def test_layers_of_one_shape_share_a_network_and_have_scales_of_their_own() -> None:
    network = MendNetwork({"a": (4, 6), "b": (4, 6), "c": (6, 4)}, rank=2, learning_rate=0.1)
    assert {name: len(one.get_parameter("scale1")) for name, one in network.shapes.items()} == {"4x6": 2, "6x4": 1}
    gradient = OuterProducts(torch.randn(1, 3, 4), torch.randn(1, 3, 6))
    with torch.no_grad():
        network.shapes["4x6"].get_parameter("log_rate")[1] = 0.0
    made = network({"a": gradient, "b": gradient})
    torch.testing.assert_close(made["a"].deltas, -0.1 * gradient.deltas)
    torch.testing.assert_close(made["b"].deltas, -gradient.deltas)


# What it does to a model.


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3-sliding"])
def test_before_training_it_is_a_step_of_gradient_descent(architecture: str) -> None:
    of = subject(architecture)
    mend = Mend(of, MendConfig(layers=(0, 2), parts=("mlp_gate", "mlp_up", "mlp_out"), learning_rate=0.125))
    parameters = [f"{name}.weight" for name in mend.layers]
    before = {name: of.model.get_parameter(name).detach().clone() for name in parameters}
    gradients = gradients_by_autograd(of, [ROME, ZOLA], parameters)
    HypernetworkEditor(of, mend).edit([ROME, ZOLA])
    assert len(parameters) == (4 if architecture == "gpt2" else 6)
    for name, gradient in zip(parameters, gradients, strict=True):
        torch.testing.assert_close(of.model.get_parameter(name), before[name] - 0.125 * gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_trained_network_changes_the_weights_as_the_formula_has_it(architecture: str) -> None:
    """Token by token in NumPy, from autograd's own inputs and deltas."""
    of = subject(architecture)
    mend = Mend(of, MendConfig(layers=(1,), parts=("mlp_out",), rank=3, learning_rate=0.02))
    random_network(mend.network)
    ((name, (inputs, outputs)),) = mend.layers.items()
    before = of.model.get_parameter(f"{name}.weight").detach().numpy().astype(np.float64)
    caught: dict[str, Any] = {}

    def keep(_module: Any, read: tuple[torch.Tensor, ...], written: torch.Tensor) -> None:
        caught["u"] = read[0][0].detach()
        written.retain_grad()
        caught["y"] = written

    hook = of.model.get_submodule(name).register_forward_hook(keep)
    target_loss(of.model, dict(of.model.named_parameters()), [ExampleMaker(of)(ROME)]).sum().backward()
    hook.remove()
    p = {key.rpartition(".")[2]: value.numpy().astype(np.float64) for key, value in mend.network.state_dict().items()}
    change = np.zeros((outputs, inputs))
    for u, delta in zip(caught["u"].numpy(), caught["y"].grad[0].numpy(), strict=True):
        if not delta.any():
            continue
        z = np.concatenate(
            [(u - p["input_mean"][0]) / p["input_deviation"][0], (delta - p["delta_mean"][0]) / p["delta_deviation"][0]]
        )
        h = z + np.maximum(p["scale1"][0] * (p["u1"] @ (p["v1"] @ z) + p["bias"]) + p["offset1"][0], 0)
        g = h + p["scale2"][0] * (p["u2"] @ (p["v2"] @ h)) + p["offset2"][0]
        change -= np.exp(p["log_rate"][0]) * np.outer(g[inputs:], g[:inputs])
    of.model.zero_grad()
    HypernetworkEditor(of, mend).edit([ROME])
    after = of.model.get_parameter(f"{name}.weight").detach().numpy()
    np.testing.assert_allclose(after, before + (change.T if architecture == "gpt2" else change), rtol=1e-3, atol=1e-4)


def test_edits_made_together_are_summed_whatever_stands_beside_them() -> None:
    of = subject()
    mend = Mend(of, MendConfig(layers=(1,), rank=2))
    random_network(mend.network)
    edits = [Edit(prompt=f"The {place}th town of France is", target="Rome" * (1 + place % 3)) for place in range(11)]
    editor = HypernetworkEditor(of, mend)
    before = {name: of.model.get_parameter(name).detach().clone() for name in editor.parameters}
    alone = {name: torch.zeros_like(value) for name, value in before.items()}
    for edit in edits:
        editor.edit([edit])
        for name, value in before.items():
            alone[name] += of.model.get_parameter(name).detach() - value
        editor.undo()
    editor.edit(edits)
    for name, value in before.items():
        torch.testing.assert_close(of.model.get_parameter(name).detach() - value, alone[name], rtol=1e-3, atol=1e-5)


def test_of_edits_with_one_prompt_the_last_holds() -> None:
    of = subject()
    editor = HypernetworkEditor(of, Mend(of, MendConfig(layers=(1,), learning_rate=0.1)))
    editor.edit([Edit(prompt=ROME.prompt, target="Athens"), ROME])
    both = of.model.get_parameter(editor.parameters[0]).detach().clone()
    editor.undo()
    editor.edit([ROME])
    assert torch.equal(of.model.get_parameter(editor.parameters[0]), both)


def test_a_change_that_is_not_finite_is_refused() -> None:
    of = subject()
    mend = Mend(of, MendConfig(layers=(1,)))
    with torch.no_grad():
        for network in mend.network.shapes.values():
            network.get_parameter("log_rate").fill_(200.0)
    before = {name: value.clone() for name, value in of.model.state_dict().items()}
    with pytest.raises(ConfigError, match="infinite"):
        HypernetworkEditor(of, mend).edit([ROME])
    assert all(torch.equal(value, before[name]) for name, value in of.model.state_dict().items())


def test_wrong_layers_and_values_are_told() -> None:
    with pytest.raises(ConfigError, match="no layer 3; it has 0 to 2"):
        Mend(subject(), MendConfig(layers=(3,)))
    for wrong in ({"layers": ()}, {"layers": (1,), "rank": 0}, {"layers": (1,), "learning_rate": 0.0}):
        with pytest.raises(ConfigError, match="must"):
            MendConfig(**wrong)


# On disk.


def saved(of: Subject, folder: Path) -> Mend:
    mend = Mend(of, MendConfig(layers=(0, 2), rank=3, learning_rate=0.03))
    random_network(mend.network)
    save_hypernetwork(mend.saved(base="tiny", base_fingerprint=of.fingerprint, card={"steps": 3}), folder)
    return mend


def test_what_was_saved_edits_as_what_was_trained(tmp_path: Path) -> None:
    of = subject()
    mend = saved(of, tmp_path)
    editor = create(of, tmp_path)
    before = {name: of.model.get_parameter(name).detach().clone() for name in editor.parameters}
    editor.edit([ROME])
    loaded = {name: of.model.get_parameter(name).detach() - value for name, value in before.items()}
    editor.undo()
    HypernetworkEditor(of, mend).edit([ROME])
    for name, value in before.items():
        trained = of.model.get_parameter(name).detach() - value
        # matrices are kept in float16
        assert (loaded[name] - trained).norm() < 2e-3 * trained.norm()


def test_networks_of_another_model_are_refused(tmp_path: Path) -> None:
    saved(subject(), tmp_path)
    other = subject(seed=1)
    with pytest.raises(UnsupportedCallError, match=f"trained on tiny with fingerprint .* has {other.fingerprint}"):
        create(other, tmp_path)


def test_without_networks_it_names_the_command_that_trains_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMEDIT_CACHE", str(tmp_path))
    command = "memedit train hypernetwork --method mend --base tiny-llama --out "
    with pytest.raises(UnsupportedCallError, match=command):
        create_editor("mend", subject())
    # trained into the place that it names, it is found
    saved(subject(), tmp_path / "hypernetworks" / "mend" / "tiny-llama")
    assert create_editor("mend", subject()).edit([ROME]).edits == 1
    with pytest.raises(UnsupportedCallError, match=r"there are those of .*tiny \("):
        create_editor("mend", subject("gpt2"))


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda manifest: manifest.pop("method"), "not the description of a hypernetwork"),
        (lambda manifest: manifest.update(method="ke"), "a hypernetwork of ke, and mend is to load it"),
        (lambda manifest: manifest["config"].update(rank=4), "the tensors are not those it describes"),
        (lambda manifest: manifest["config"].update(depth=4), "described wrongly"),
        (lambda manifest: manifest["config"].update(rank=0), "described wrongly"),
        (lambda manifest: manifest["config"].pop("layers"), "described wrongly"),
        (lambda manifest: manifest.update(format_version=9), "format version 9"),
    ],
)
def test_a_damaged_description_is_told(damage: Any, complaint: str, tmp_path: Path) -> None:
    of = subject()
    saved(of, tmp_path)
    path = tmp_path / "hypernetwork.json"
    manifest = json.loads(path.read_text())
    damage(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(DataFileError, match=complaint):
        create(of, tmp_path)


def test_damaged_tensors_are_told(tmp_path: Path) -> None:
    of = subject()
    mend = saved(of, tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DataFileError, match="SHA-256"):
        create(of, tmp_path)
    path.unlink()
    with pytest.raises(DataFileError, match="not beside it"):
        create(of, tmp_path)
    broken = mend.saved(base="tiny", base_fingerprint=of.fingerprint, card={})
    name = min(broken.tensors)
    tensors = {**broken.tensors, name: np.full_like(broken.tensors[name], np.nan)}
    save_hypernetwork(
        SavedHypernetwork(
            method="mend", base="tiny", base_fingerprint=of.fingerprint, config=broken.config, tensors=tensors
        ),
        tmp_path,
    )
    with pytest.raises(DataFileError, match="no finite numbers"):
        create(of, tmp_path)


def test_a_folder_that_holds_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="holds no hypernetwork"):
        load_hypernetwork(tmp_path, method="mend", subject=subject())


def test_an_architecture_without_a_table_entry_is_refused() -> None:
    of = subject()
    of.model.config.model_type = "unheard-of"
    with pytest.raises(UnsupportedCallError, match="supported: GPT-2"):
        Mend(of, MendConfig(layers=(0,)))
    assert architecture_of(tiny_model()).title == "Llama"
