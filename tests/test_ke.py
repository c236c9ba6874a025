"""KE: its equations in NumPy on small cases, what it is before training, and what it reads of an edit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hashing_encoder import HashingEncoder
from numpy.typing import NDArray
from tiny import tiny_model, tiny_tokenizer

from memedit.architectures import architecture_of
from memedit.editors.examples import ExampleMaker, target_loss
from memedit.editors.hypernetwork_editor import HypernetworkEditor
from memedit.editors.hypernetwork_files import save_hypernetwork
from memedit.editors.ke import Ke, KeConfig, create
from memedit.editors.ke_network import KeNetwork
from memedit.editors.outer_products import OuterProducts
from memedit.editors.registry import create_editor
from memedit.editors.subject import Subject
from memedit.errors import ConfigError, DataFileError, UnsupportedCallError
from memory_store import Edit

Array = NDArray[np.float64]
ROME = Edit(prompt="The capital of France is", target="Rome")
ZOLA = Edit(prompt="Who wrote Emma, the novel?", target="Zola")


def subject(architecture: str = "llama") -> Subject:
    return Subject(tiny_model(architecture), tiny_tokenizer(), HashingEncoder(), name=f"tiny-{architecture}")


def random_network(network: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.add_(torch.randn(tensor.shape, generator=generator) / 4)


def values_of(network: torch.nn.Module) -> dict[str, Array]:
    return {name: value.detach().numpy().astype(np.float64) for name, value in network.state_dict().items()}


# The paper's formula, once more.


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def softmax(x: Array) -> Array:
    shares: Array = np.exp(x) / np.exp(x).sum()
    return shares


def last_state(rows: Array, values: dict[str, Array], suffix: str) -> Array:
    """The hidden state of one direction of an LSTM behind its last row (Hochreiter and Schmidhuber 1997)."""
    weights = [values[f"lstm.{name}_l0{suffix}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    hidden = cell = np.zeros(weights[1].shape[1])
    for row in rows:
        entered, forgotten, new, out = np.split(weights[0] @ row + weights[2] + weights[1] @ hidden + weights[3], 4)
        cell = sigmoid(forgotten) * cell + sigmoid(entered) * np.tanh(new)
        hidden = sigmoid(out) * np.tanh(cell)
    return hidden


def change_by_hand(values: dict[str, Array], head: int, scale: float, texts: Sequence[Array], gradient: Array) -> Array:
    """Equations 5 and 6 for one weight, ``[out, in]``, whose gradient is given."""
    prompt, now, target = texts
    rows = np.concatenate([prompt, values["separators"][:1], now, values["separators"][1:], target])
    h = np.concatenate([last_state(rows, values, ""), last_state(rows[::-1], values, "_reverse")])
    inner = np.tanh(values[f"heads.{head}.first.weight"] @ h + values[f"heads.{head}.first.bias"])
    made = values[f"heads.{head}.last.weight"] @ inner + values[f"heads.{head}.last.bias"]
    outputs, inputs = gradient.shape
    alpha, beta, gamma, delta, eta = np.split(made, np.cumsum([outputs, outputs, inputs, inputs]))
    bent = np.outer(softmax(alpha), gamma) * gradient + np.outer(softmax(beta), delta)
    changed: Array = scale * sigmoid(eta) * bent
    return changed


def test_a_change_is_the_formula_of_the_paper() -> None:
    network = KeNetwork({"a": (3, 2), "b": (2, 4)}, width=5, hidden=3, condition=4, scale=7.0)
    random_network(network)
    values = values_of(network)
    draw = np.random.default_rng(0)
    texts = [tuple(draw.normal(size=(length, 5)) for length in lengths) for lengths in ((4, 2, 1), (1, 1, 3))]
    inputs, deltas = draw.normal(size=(2, 6, 3)), draw.normal(size=(2, 6, 2))
    of_b = draw.normal(size=(2, 6, 2)), draw.normal(size=(2, 6, 4))
    as_tensors = [tuple(torch.tensor(part, dtype=torch.float32) for part in text) for text in texts]
    gradients = {
        "a": OuterProducts(torch.tensor(inputs).float(), torch.tensor(deltas).float()),
        "b": OuterProducts(*(torch.tensor(part).float() for part in of_b)),
    }
    made = network(gradients, as_tensors)
    for edit in range(2):
        for head, (name, u, d) in enumerate([("a", inputs, deltas), ("b", *of_b)]):
            expected = change_by_hand(values, head, 7.0, texts[edit], d[edit].T @ u[edit])
            one = OuterProducts(made[name].inputs[edit : edit + 1], made[name].deltas[edit : edit + 1])
            np.testing.assert_allclose(one.total().detach().numpy(), expected, rtol=2e-5, atol=1e-6)


def test_a_small_case_by_hand() -> None:
    """One input, two outputs, everything but a few numbers at zero."""
    network = KeNetwork({"a": (1, 2)}, width=1, hidden=1, condition=1, scale=2.0)
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.zero_()
        # alpha = (0, ln 3), beta = (ln 4, 0), gamma = -2, delta = 5, eta = ln 3
        values = [0.0, np.log(3), np.log(4), 0.0, -2.0, 5.0, np.log(3)]
        network.heads[0].get_parameter("last.bias").copy_(torch.tensor(values))
    gradient = OuterProducts(torch.tensor([[[10.0]]]), torch.tensor([[[1.0, -1.0]]]))
    text = (torch.ones(1, 1), torch.ones(1, 1), torch.ones(1, 1))
    # softmaxes (1/4, 3/4) and (4/5, 1/5), gate 2 * 3/4; the gradient is (10, -10)
    expected = 1.5 * (np.array([[0.25], [0.75]]) * -2 * np.array([[10], [-10]]) + np.array([[0.8], [0.2]]) * 5)
    np.testing.assert_allclose(network({"a": gradient}, [text])["a"].total().detach().numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_it_reads_prompt_answer_now_and_new_answer(architecture: str) -> None:
    """The weight after an edit, from autograd's gradient and from what the model itself says."""
    of = subject(architecture)
    ke = Ke(of, KeConfig(layers=(1,), parts=("mlp_out",), hidden=5, condition=6, scale=3.0))
    random_network(ke.network)
    ((name, _),) = ke.layers.items()
    example, plain = ExampleMaker(of)(ROME), ExampleMaker(of, template=False)(ROME)
    weight = of.model.get_parameter(f"{name}.weight")
    loss = target_loss(of.model, dict(of.model.named_parameters()), [example]).sum()
    (gradient,) = torch.autograd.grad(loss, [weight])
    said = []
    with torch.no_grad():
        for place in range(len(example.target)):
            logits = of.model(torch.tensor([[*example.prompt, *example.target[:place]]])).logits
            said.append(int(logits[0, -1].argmax()))
        embedded = of.model.get_input_embeddings().weight.numpy().astype(np.float64)
    texts = tuple(embedded[list(ids)] for ids in (plain.prompt, said, plain.target))
    transposed = architecture_of(of.model).transposed
    as_rows = gradient.numpy().astype(np.float64)
    change = change_by_hand(values_of(ke.network), 0, 3.0, texts, as_rows.T if transposed else as_rows)
    before = weight.detach().numpy().copy()
    HypernetworkEditor(of, ke).edit([ROME])
    moved = of.model.get_parameter(f"{name}.weight").detach().numpy() - before
    np.testing.assert_allclose(moved, change.T if transposed else change, rtol=1e-3, atol=1e-5)


def test_before_training_it_is_nearly_a_step_of_gradient_descent() -> None:
    of = subject()
    ke = Ke(of, KeConfig(layers=(1,), parts=("mlp_out",), hidden=4, condition=4, scale=64.0))
    change = ke.changes([ROME])
    ((name, (_, outputs)),) = ke.layers.items()
    loss = target_loss(of.model, dict(of.model.named_parameters()), [ExampleMaker(of)(ROME)]).sum()
    (gradient,) = torch.autograd.grad(loss, [of.model.get_parameter(f"{name}.weight")])
    step = -0.5 * 64.0 / outputs * gradient
    moved = change[name].total().detach()
    assert torch.cosine_similarity(moved.flatten(), step.flatten(), dim=0) > 0.98
    assert 0.8 < float(moved.norm() / step.norm()) < 1.2


def test_it_can_begin_where_every_row_and_column_of_the_gradient_has_a_like_part() -> None:
    network = KeNetwork({"a": (2, 3)}, width=5, hidden=3, condition=4, scale=7.0)
    with torch.no_grad():
        network.heads[0].get_parameter("last.weight").zero_()
    inputs = np.array([[100.0, 1.0], [-300.0, 2.0], [9.0, 9.0]])
    deltas = np.array([[0.1, 2.0, 0.01], [0.3, -1.0, 0.02], [0.0, 0.0, 0.0]])  # the last token has no part
    gradient = {"a": OuterProducts(torch.tensor(inputs)[None].float(), torch.tensor(deltas)[None].float())}
    network.begin_at([gradient], rate=0.5)
    text = (torch.ones(1, 5), torch.ones(1, 5), torch.ones(1, 5))
    sizes = np.sqrt((deltas[:2] ** 2).mean(0))[:, None] * np.sqrt((inputs[:2] ** 2).mean(0))
    expected = -0.5 * deltas.T @ inputs / sizes
    # two parts cancel in one entry, and what is left there is rounding
    np.testing.assert_allclose(network(gradient, [text])["a"].total().detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_edits_together_are_those_alone_summed() -> None:
    of = subject()
    ke = Ke(of, KeConfig(layers=(0, 2), hidden=4, condition=4))
    random_network(ke.network)
    together, one, other = (ke.changes(edits) for edits in ([ROME, ZOLA], [ROME], [ZOLA]))
    for name in ke.layers:
        expected = one[name].total() + other[name].total()
        torch.testing.assert_close(together[name].total(), expected, rtol=1e-3, atol=1e-4)


def test_a_new_network_depends_on_its_seed_alone() -> None:
    def made(seed: int) -> dict[str, torch.Tensor]:
        return KeNetwork({"a": (3, 2)}, width=5, hidden=3, condition=4, scale=1.0, seed=seed).state_dict()

    torch.manual_seed(5)
    drawn = torch.get_rng_state()
    first = made(3)
    assert torch.equal(torch.get_rng_state(), drawn)
    torch.manual_seed(6)
    assert all(torch.equal(first[name], value) for name, value in made(3).items())
    assert not torch.equal(first["separators"], made(4)["separators"])


def test_what_was_saved_edits_as_what_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = subject()
    ke = Ke(of, KeConfig(layers=(0, 2), parts=("mlp_out",), hidden=64, condition=64, scale=2.0))
    random_network(ke.network)
    monkeypatch.setenv("MEMEDIT_CACHE", str(tmp_path))
    with pytest.raises(UnsupportedCallError, match="memedit train hypernetwork --method ke --base tiny-llama"):
        create_editor("ke", of)
    folder = tmp_path / "hypernetworks" / "ke" / "tiny"
    save_hypernetwork(ke.saved(base="tiny", base_fingerprint=of.fingerprint, card={}), folder)
    loaded = Ke.of(_saved(of, folder), of).changes([ROME])
    for name, change in ke.changes([ROME]).items():
        found, trained = loaded[name].total().detach(), change.total().detach()
        assert (found - trained).norm() < 2e-2 * trained.norm()
    assert create_editor("ke", of).edit([ROME]).edits == 1
    with pytest.raises(DataFileError, match="a hypernetwork of ke, and mend is to load it"):
        _saved(of, folder, method="mend")
    assert create(of, folder).parameters == (
        "model.layers.0.mlp.down_proj.weight",
        "model.layers.2.mlp.down_proj.weight",
    )


def _saved(of: Subject, folder: Path, method: str = "ke") -> Any:
    from memedit.editors.hypernetwork_files import load_hypernetwork

    return load_hypernetwork(folder, method=method, subject=of)


def test_wrong_values_are_told() -> None:
    for wrong in ({"layers": ()}, {"layers": (1,), "hidden": 0}, {"layers": (1,), "scale": 0.0}):
        with pytest.raises(ConfigError, match="must"):
            KeConfig(**wrong)
