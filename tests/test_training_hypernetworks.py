"""Training hypernetworks for a tiny model: they learn, are saved as they are read, and are the same after a stop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_samples import write_data

from memedit.editors.editor import Editor
from memedit.editors.hypernetwork_files import SavedHypernetwork, load_hypernetwork
from memedit.editors.registry import create_editor
from memedit.editors.subject import Subject
from memory_store import Edit
from training.edit_batches import EditDrawer, EditSampling
from training.errors import TrainingDataError
from training.facts import read_edits
from training.hypernetwork_settings import KeSettings, MendSettings
from training.hypernetworks import run
from training.settings import LoopSettings

LOOP = LoopSettings(
    steps=6, learning_rate=1e-2, weight_decay=0.0, evaluate_every=3, checkpoint_every=1, checkpoint_seconds=0.0
)
SAMPLING = EditSampling(edits=8, dev_edits=2, batch_size=2, together=0.5, plain=0.5)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny import tiny_model, tiny_tokenizer

    folder = tmp_path_factory.mktemp("base")
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True, scope="module")
def nothing_is_held_out_by_chance() -> Any:
    """Of the few subjects of these tests one in three is held out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.material.HELD_OUT", 3)
        yield


def settings_of(method: str, base: Path, **loop: Any) -> Any:
    shape: dict[str, Any] = {"base": str(base), "layers": (-2, -1), "sampling": SAMPLING, "loop": replace(LOOP, **loop)}
    if method == "mend":
        return MendSettings(**shape, rank=4)
    return KeSettings(**shape, hidden=8, condition=8, scale=20.0, shrink_every=2)


METHODS = pytest.mark.parametrize("method", ["ke", "mend"])


def read(method: str, base: Path, folder: Path) -> SavedHypernetwork:
    subject = subject_of(base)
    return load_hypernetwork(folder, method=method, subject=subject)


def subject_of(base: Path) -> Subject:
    from hashing_encoder import HashingEncoder

    from memedit.loading import load_model

    return Subject(*load_model(base), HashingEncoder(), name="tiny")


def same(one: SavedHypernetwork, other: SavedHypernetwork) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        np.array_equal(one.tensors[name], other.tensors[name]) for name in one.tensors
    )


@METHODS
def test_what_is_trained_edits_the_model_it_was_trained_for(
    method: str, base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMEDIT_CACHE", str(tmp_path))
    out = tmp_path / "hypernetworks" / method / "tiny"
    result = run(settings_of(method, base), out=out, data_folder=data)
    assert result.task == method
    assert set(result.figures) == {"mean of the three", "reliability", "generalization", "locality"}
    subject = subject_of(base)
    before = {name: value.clone() for name, value in subject.model.state_dict().items()}
    editor: Editor = create_editor(method, subject)
    editor.edit([Edit(prompt="Ada Lovelace was born in", target="Oslo")])
    changed = {name for name, value in subject.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith(("model.layers.1.mlp.", "model.layers.2.mlp.")) for name in changed)
    card = json.loads((out / "card.json").read_text())
    assert {file["name"] for file in card["data"]} == {"counterfact/train.jsonl", "zsre/train.jsonl"}
    assert str(tmp_path) not in json.dumps({**card, "settings": None})


def check_weighing(settings: Any, steps: list[dict[str, Any]]) -> None:
    """A step's loss is its two losses, weighed as the paper has it."""
    multiplier = 1.0
    for step in steps:
        edit, apart = step["losses"]["edit"], step["losses"]["elsewhere"]
        if isinstance(settings, MendSettings):
            expected = settings.c_edit * edit + settings.c_loc * apart
        else:
            assert step["losses"]["multiplier"] == pytest.approx(multiplier)
            expected = edit + multiplier * (apart - settings.margin)
            excess = min(apart - settings.margin, settings.most_excess)
            multiplier = max(0.0, multiplier + settings.multiplier_rate * excess)
        assert step["loss"] == pytest.approx(expected, rel=1e-5)


@METHODS
def test_training_that_was_stopped_ends_with_the_same_weights(
    method: str, base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(method, base)
    run(settings, out=tmp_path / "whole", data_folder=data)
    drawn = EditDrawer.batch

    def until_the_fourth(self: EditDrawer, index: int) -> Any:
        if index == 4:
            raise KeyboardInterrupt
        return drawn(self, index)

    monkeypatch.setattr(EditDrawer, "batch", until_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        run(settings, out=tmp_path / "stopped", data_folder=data)
    monkeypatch.setattr(EditDrawer, "batch", drawn)
    run(settings, out=tmp_path / "stopped", data_folder=data)
    records = [json.loads(line) for line in (tmp_path / "stopped" / "log.jsonl").read_text().splitlines()]
    steps = [record for record in records if record["event"] == "step"]
    assert [step["step"] for step in steps] == list(range(1, LOOP.steps + 1))
    assert "resume" in [record["event"] for record in records]
    check_weighing(settings, steps)
    assert same(read(method, base, tmp_path / "whole"), read(method, base, tmp_path / "stopped"))


@METHODS
def test_another_seed_gives_another(method: str, base: Path, data: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        run(settings_of(method, base, seed=seed), out=tmp_path / str(seed), data_folder=data)
    assert not same(read(method, base, tmp_path / "0"), read(method, base, tmp_path / "1"))


@METHODS
def test_it_learns_to_make_edits(method: str, base: Path, data: Path, tmp_path: Path) -> None:
    settings = settings_of(method, base, steps=60, evaluate_every=60)
    if method == "ke":  # of a random model no edit keeps within a margin
        settings = replace(settings, margin=1000.0)
    run(settings, out=tmp_path, data_folder=data)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    edit = [record["losses"]["edit"] for record in records if record["event"] == "step"]
    assert np.mean(edit[-10:]) < 0.7 * np.mean(edit[:5])


@METHODS
def test_without_the_data_it_says_what_is_missing(method: str, base: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="--data-folder"):
        run(settings_of(method, base), out=tmp_path)


@METHODS
@pytest.mark.parametrize("together", [False, True])
def test_what_is_trained_on_is_what_a_model_says_whose_weights_are_changed(
    method: str, together: bool, base: Path, data: Path, tmp_path: Path
) -> None:
    """Without any of training's short cuts: each edit by itself or all together, and each prompt by itself."""
    from memedit.editors import ke, mend
    from memedit.editors.examples import IGNORED, target_logits
    from memedit.editors.hypernetwork_editor import HypernetworkEditor
    from training.hypernetwork_tasks import KeTask, MendTask
    from training.hypernetworks import _prepare
    from training.progress import SILENT

    settings = settings_of(method, base)
    prepared = _prepare(settings, out=tmp_path, own=(), data_folder=data, progress=SILENT)
    of = prepared.subject
    if method == "mend":
        predictor: Any = mend.Mend(of, mend.MendConfig(layers=(1, 2), learning_rate=0.02))
        task: Any = MendTask(replace(settings, init="shipped"), prepared, predictor)
    else:
        predictor = ke.Ke(of, ke.KeConfig(layers=(1, 2), hidden=4, condition=4, scale=1.0))
        task = KeTask(settings, prepared, predictor)
    batch = replace(prepared.training.batch(0), together=together)
    logits, wanted, edited, base_logits, due = (part.detach() for part in task._asked(batch))
    editor = HypernetworkEditor(of, predictor)

    def said(example: Any) -> torch.Tensor:
        weights = {name: value.detach() for name, value in of.model.named_parameters()}
        return target_logits(of.model, weights, [example])[0][0]

    for place, edit in enumerate(batch.edits):
        apart = batch.elsewhere[place]
        unedited = said(apart)
        editor.edit(batch.edits if together else [edit])
        for row, example in ((2 * place, batch.own[place]), (2 * place + 1, batch.other[place])):
            torch.testing.assert_close(logits[row][wanted[row] != IGNORED], said(example), rtol=1e-3, atol=5e-3)
        torch.testing.assert_close(edited[place][due[place]], said(apart), rtol=1e-3, atol=5e-3)
        torch.testing.assert_close(base_logits[place][due[place]], unedited, rtol=1e-3, atol=5e-3)
        assert not torch.allclose(said(apart), unedited, atol=0.05)
        editor.undo()
    figures = task.evaluate()
    assert figures["locality"] == pytest.approx(_kept(task, prepared))


def _kept(task: Any, prepared: Any) -> float:
    """The share of tokens elsewhere that stay, over all dev edits."""
    kept = []
    for batch in prepared.held_out.every():
        _, _, edited, base, due = task._asked(batch)
        kept += (edited.argmax(-1) == base.argmax(-1))[due].tolist()
    return sum(kept) / len(kept)


# What is drawn.


def test_a_batch_is_a_function_of_seed_and_index_and_never_asks_about_the_edit_elsewhere(
    base: Path, data: Path
) -> None:
    subject = subject_of(base)
    facts = list(read_edits(data, {}))
    one, same_seed, other = (EditDrawer(subject, facts, SAMPLING, count=8, seed=seed) for seed in (0, 0, 1))
    assert [one.batch(index) for index in (3, 0)] == [same_seed.batch(3), same_seed.batch(0)]
    assert any(one.batch(index) != other.batch(index) for index in range(3))
    known = set(one.texts())
    for batch in [one.batch(index) for index in range(6)] + one.every():
        assert len(batch.edits) == SAMPLING.batch_size
        for edit, read_, own, apart in zip(batch.edits, batch.read, batch.own, batch.elsewhere, strict=True):
            told = subject.tokenizer.decode(read_.prompt)
            assert edit.prompt in told
            assert "<|im_start|>user" in told
            assert edit.prompt in subject.tokenizer.decode(own.prompt)
            assert edit.prompt not in subject.tokenizer.decode([*apart.prompt, *apart.target])
            assert len(apart.target) == SAMPLING.places
            assert {(*part.prompt, *part.target) for part in (read_, own, apart)} <= known


def test_prompts_are_asked_in_both_forms(base: Path, data: Path) -> None:
    drawer = EditDrawer(subject_of(base), list(read_edits(data, {})), SAMPLING, count=12, seed=0)
    texts = [subject_of(base).tokenizer.decode(one.prompt) for batch in drawer.every() for one in batch.other]
    assert {"<|im_start|>" in text for text in texts} == {True, False}
