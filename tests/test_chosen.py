"""Looking up hyperparameters: the entry that is nearest, and its layers at the same relative depth."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Any

import pytest
import torch
from tiny import ARCHITECTURES, tiny_model
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from memedit.architectures import ARCHITECTURES as FAMILIES
from memedit.editors.chosen import chosen_values

TABLE = """
[[models]]
name = "small"
model_type = "llama"
layers = 11
hidden_size = 64
values = { layer = 5, layers = [3, 4, 5], rate = 0.1 }

[[models]]
name = "large"
model_type = "llama"
layers = 21
hidden_size = 1024
values = { layer = 2, layers = [1, 2], rate = 0.2 }

[[models]]
name = "other"
model_type = "qwen2"
layers = 11
hidden_size = 64
values = { layer = 10, rate = 0.3 }
"""


def shaped(layers: int, hidden: int, family: str = "llama") -> Any:
    config, made = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}[family]
    sizes = {"num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": 8, "vocab_size": 8}
    with torch.device("meta"):
        return made(config(**sizes, num_attention_heads=1, num_key_value_heads=1))


@pytest.fixture
def table(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "invented.toml").write_text(TABLE)
    monkeypatch.setattr("memedit.editors.chosen.resources.files", lambda _: tmp_path)
    return "invented"


def test_a_model_of_the_table_gets_its_own_values(table: str) -> None:
    assert chosen_values(shaped(11, 64), table) == {"layer": 5, "layers": (3, 4, 5), "rate": 0.1}
    assert chosen_values(shaped(21, 1024), table) == {"layer": 2, "layers": (1, 2), "rate": 0.2}


def test_the_family_counts_before_the_width(table: str) -> None:
    assert chosen_values(shaped(11, 1024, "qwen2"), table)["rate"] == 0.3
    assert chosen_values(tiny_model("gpt2"), table)["rate"] in {0.1, 0.3}  # a family that is not there: the width


def test_the_width_counts_by_its_ratio(table: str) -> None:
    assert chosen_values(shaped(21, 250), table)["rate"] == 0.1  # 4 times 64 is 256, a quarter of 1024
    assert chosen_values(shaped(11, 260), table)["rate"] == 0.2


def test_layers_stand_at_the_same_relative_depth(table: str) -> None:
    deeper = chosen_values(shaped(21, 64), table)
    assert (deeper["layer"], deeper["layers"]) == (10, (6, 8, 10))
    shallower = chosen_values(shaped(5, 64), table)  # 3, 4 and 5 of 0 to 10 are 1.2, 1.6 and 2 of 0 to 4
    assert (shallower["layer"], shallower["layers"]) == (2, (1, 2))
    assert chosen_values(shaped(1, 64), table)["layers"] == (0,)


def tables() -> list[str]:
    folder = resources.files("memedit").joinpath("data")
    return sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml"))


@pytest.mark.parametrize("name", tables())
def test_what_is_shipped_can_be_looked_up_for_every_architecture(name: str) -> None:
    for architecture in ARCHITECTURES:
        values = chosen_values(tiny_model(architecture), name)
        assert all(0 <= layer < 3 for layer in (values.get("layer", 0), *values.get("layers", ())))


@pytest.mark.parametrize("name", tables())
def test_what_is_shipped_says_by_which_figures_it_was_chosen(name: str) -> None:
    rows = tomllib.loads(resources.files("memedit").joinpath("data", f"{name}.toml").read_text())["models"]
    assert rows
    for row in rows:
        assert row["model_type"] in FAMILIES
        assert row["chosen"]
