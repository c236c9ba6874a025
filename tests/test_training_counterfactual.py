"""Training a counterfactual model on a tiny one: it learns, is saved as it is read, and twice the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from training_samples import write_data

from training.answers import ExampleMaker
from training.counterfactual import CounterfactualSettings, _as_wanted, _CounterfactualTask, _losses, run
from training.errors import TrainingDataError
from training.material import gather
from training.settings import LoopSettings


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from counterfactual_models import small_llama
    from tiny import tiny_tokenizer

    folder = tmp_path_factory.mktemp("base")
    small_llama(layers=2).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def settings(base: Path) -> CounterfactualSettings:
    return CounterfactualSettings(
        base=str(base),
        rank=4,
        alpha=8,
        batch_size=2,
        dev_examples=10,
        loop=LoopSettings(steps=3, learning_rate=1e-2, evaluate_every=2, device="cpu"),
    )


@pytest.fixture(scope="module")
def trained(settings: CounterfactualSettings, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("counterfactual")
    run(settings, out=out, data_folder=data)
    return out


def test_what_was_trained_is_read_back(trained: Path, settings: CounterfactualSettings):
    from memedit.counterfactual import load_adapter

    adapter = load_adapter(trained)
    assert (adapter.base, adapter.rank, adapter.alpha) == (settings.base, 4, 8)
    layers = {name.rpartition(".")[0].rpartition(".")[2] for name in adapter.tensors}
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_the_saved_model_says_what_the_trained_one_says(
    settings: CounterfactualSettings, data: Path, base: Path, tmp_path: Path
):
    import torch

    from memedit.counterfactual import CounterfactualModel
    from memedit.fingerprints import model_fingerprint
    from memedit.loading import load_model

    model, tokenizer = load_model(base, dtype="float32")
    subject = CounterfactualModel(model, tokenizer, name=settings.base, fingerprint=model_fingerprint(model))
    half, _, files = gather(data, without=["alias"])
    maker = ExampleMaker(half, pairs=None, seed=0)
    task = _CounterfactualTask(settings, files, subject, maker, maker)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in task.parameters()[0].tensors.values():
            parameter.normal_(0, 0.3)
    task.save(tmp_path)
    merged = CounterfactualModel.load(tmp_path, dtype="float32").model
    ids = torch.tensor([tokenizer("The river froze early")["input_ids"]])
    with torch.no_grad():
        trained, unedited = model(ids).logits, load_model(base, dtype="float32")[0](ids).logits
        assert torch.allclose(merged(ids).logits, trained, rtol=2e-2, atol=0.15)
    assert not torch.allclose(trained, unedited, atol=0.5)


def test_the_same_seed_gives_the_same_weights(
    trained: Path, settings: CounterfactualSettings, data: Path, tmp_path: Path
):
    from memedit.counterfactual import load_adapter

    run(settings, out=tmp_path, data_folder=data)
    first, second = load_adapter(trained).tensors, load_adapter(tmp_path).tensors
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_it_learns_what_it_is_shown_again_and_again(settings: CounterfactualSettings, data: Path, tmp_path: Path):
    longer = replace(settings, loop=replace(settings.loop, steps=40, evaluate_every=40))
    run(longer, out=tmp_path, data_folder=data)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if "loss" in record]
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:4])


END = 2
ANSWERED, SILENT, SILENT_OTHERWISE = [-100, 3, 1, END], [-100, -100, -100, END], [-100, -100, 4, END]


def test_the_loss_is_that_of_answers_of_silence_and_of_what_is_said_otherwise():
    torch = pytest.importorskip("torch")
    logits = torch.from_numpy(np.random.default_rng(0).normal(0, 3, (3, 4, 6)))
    found = _losses(
        logits, torch.tensor([ANSWERED, SILENT, SILENT_OTHERWISE]), torch.tensor([False, True, True]), end=END
    )

    def told(row: int, place: int, token: int, *, without: int | None = None) -> float:
        odds = np.exp(logits[row, place].numpy())
        return float(-np.log(odds[token] / (odds.sum() - (0 if without is None else odds[without]))))

    answered = [told(0, place, ANSWERED[place]) for place in (1, 2, 3)]
    otherwise = [told(2, 2, 4, without=END), told(2, 3, END)]
    wanted = [
        0.5 * answered[0] + 0.5 * np.mean(answered),
        told(1, 3, END),
        told(2, 2, END) + 0.5 * (0.5 * otherwise[0] + 0.5 * np.mean(otherwise)),
    ]
    assert found.tolist() == pytest.approx(wanted)


def test_a_model_sure_of_its_silence_still_learns_what_to_say_otherwise():
    torch = pytest.importorskip("torch")
    logits = torch.zeros(1, 4, 6)
    logits[0, 2, END] = 200.0
    logits.requires_grad_(True)
    _losses(logits, torch.tensor([SILENT_OTHERWISE]), torch.tensor([True]), end=END).sum().backward()
    gradient = logits.grad[0, 2]
    assert gradient[END] == pytest.approx(0)
    # 0.75 of the opening's loss counts half: the softmax over the five other tokens, less the label
    assert gradient[4] == pytest.approx(0.375 * (1 / 5 - 1), abs=1e-6)
    assert gradient[0] == pytest.approx(0.375 / 5, abs=1e-6)


def test_exact_is_silence_where_nothing_is_to_be_said():
    torch = pytest.importorskip("torch")
    labels = torch.tensor([ANSWERED, SILENT, SILENT_OTHERWISE])
    wanted = _as_wanted(labels, torch.tensor([False, True, True]), end=END)
    assert wanted.tolist() == [ANSWERED, SILENT, [-100, -100, END, -100]]


def test_the_card_names_base_and_data(trained: Path):
    card = json.loads((trained / "card.json").read_text())
    assert "counterfact/train.jsonl" in {file["name"] for file in card["data"]}


def test_without_the_data_folder_it_says_what_is_missing(settings: CounterfactualSettings, tmp_path: Path):
    with pytest.raises(TrainingDataError, match="--data-folder"):
        run(settings, out=tmp_path)
