"""Training a scope classifier: from a few records to one that loads, twice the same, with one's own records."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from training_samples import write_data, write_lines

from classifiers import ScopeCandidate, load_scope
from training.errors import TrainingDataError
from training.scope import ScopeSettings, SourceWeights, run
from training.settings import LoopSettings

SETTINGS = ScopeSettings(
    rank=2,
    alpha=2,
    batch_size=4,
    mine_from=0.5,
    mine_pool=2,
    dev_pairs=40,
    calibration_pairs=24,
    sources=SourceWeights(alias=0.0),
    loop=LoopSettings(steps=6, learning_rate=5e-3, evaluate_every=2, device="cpu"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path) -> Path:
    out = tmp_path_factory.mktemp("scope")
    run(SETTINGS, out=out, data_folder=data)
    return out


def weights(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    (path,) = folder.glob("scope-*.safetensors")
    return load_file(path)


def test_what_was_trained_loads_and_reads_pairs(trained: Path, minilm_folder: Path):
    scope = load_scope(trained, encoder=minilm_folder)
    candidate = ScopeCandidate(prompt="Ada was born in", target="Oslo", matched_text="Ada was born in", similarity=0.9)
    near, far = scope.probabilities(["Where was Ada born?", "Who won the cup?"], [candidate] * 2)
    assert 0.0 < far < 1.0
    assert near != far
    assert scope.threshold == SETTINGS.threshold
    assert scope.floor == SETTINGS.floor


def test_every_tensor_was_trained(trained: Path, minilm_folder: Path):
    from classifiers.pair_model import PairModel

    start = PairModel.load(minilm_folder)[0].trained()
    kept = weights(trained)
    assert not np.array_equal(kept["token_types"], start["token_types"].numpy())
    assert all(np.abs(tensor).max() > 0 for name, tensor in kept.items() if name.endswith(".B"))


def test_the_same_seed_gives_the_same_classifier(trained: Path, data: Path, tmp_path: Path):
    run(SETTINGS, out=tmp_path, data_folder=data)
    first, second = weights(trained), weights(tmp_path)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_another_seed_gives_another(trained: Path, data: Path, tmp_path: Path):
    run(replace(SETTINGS, loop=replace(SETTINGS.loop, seed=5)), out=tmp_path, data_folder=data)
    assert not np.array_equal(weights(trained)["head.0.weight"], weights(tmp_path)["head.0.weight"])


def test_the_card_names_data_settings_and_figures(trained: Path):
    card = json.loads((trained / "card.json").read_text())
    text = json.dumps(card)
    assert {"counterfact/train.jsonl", "zsre/train.jsonl"} <= {file["name"] for file in card["data"]}
    assert "expected calibration error" in text
    assert str(trained) not in text
    assert (trained / "README.md").read_text().startswith("# Scope classifier")


def test_own_records_are_trained_on(data: Path, tmp_path: Path):
    own = tmp_path / "own.jsonl"
    records = [
        {"prompt": f"The hotline of shop {n} is", "target": "0800", "in_scope": [f"How do I call shop {n}?"]}
        for n in range(40)
    ]
    write_lines(own, records)
    out = tmp_path / "out"
    run(
        replace(SETTINGS, sources=SourceWeights(**dict.fromkeys(["counterfact", "relations", "alias"], 0.0), own=50.0)),
        out=out,
        data=[own],
        data_folder=data,
    )
    card = json.loads((out / "card.json").read_text())
    assert {"name": "own.jsonl", "records": 40}.items() <= next(
        file for file in card["data"] if file["name"] == "own.jsonl"
    ).items()


def test_without_the_data_folder_it_says_what_is_missing(tmp_path: Path):
    with pytest.raises(TrainingDataError, match="--data-folder"):
        run(SETTINGS, out=tmp_path)
