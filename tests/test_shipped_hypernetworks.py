"""The hypernetworks that come with memedit: they are small, belong to the default model, and edit it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from memedit.editors.examples import ExampleMaker, frozen, target_logits
from memedit.editors.registry import create_editor
from memedit.editors.subject import Subject
from memory_store import Edit

ROOT = Path(__file__).parent.parent / "memedit" / "data" / "hypernetworks"
SHIPPED = sorted(path.parent for path in ROOT.glob("*/*/hypernetwork.json"))
METHODS = sorted({folder.parent.name for folder in SHIPPED})

EDIT = Edit(prompt="The headquarters of Acme Rockets is in", target="Lisbon")
PARAPHRASE = Edit(prompt="Where is Acme Rockets based?", target="Lisbon")
ELSEWHERE = Edit(prompt="How many legs does a spider have?", target="A spider has eight legs.")


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_it_is_small_and_says_what_it_was_trained_on(folder: Path) -> None:
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5_000_000
    card = json.loads((folder / "card.json").read_text())
    assert {file["name"] for file in card["data"]} == {"counterfact/train.jsonl", "zsre/train.jsonl"}
    assert card["settings"]["base"] == folder.name
    assert card["result"]["task"] == folder.parent.name
    figures, start = card["result"]["figures"], card["result"]["figures_at_start"]
    assert figures["mean of the three"] > start["mean of the three"]


@pytest.mark.real
@pytest.mark.parametrize("method", METHODS)
def test_it_edits_the_default_model(method: str, smollm2_folder: Path) -> None:
    real = Subject.load(smollm2_folder)
    make = ExampleMaker(real)
    weights = frozen(real.model)

    def likelihood(edit: Edit) -> tuple[float, list[int]]:
        """Mean log-probability of the target's tokens, and the likeliest tokens in their places."""
        with torch.no_grad():
            logits, wanted = target_logits(real.model, weights, [make(edit)])
        told = logits.log_softmax(-1).gather(-1, wanted[..., None])
        return float(told.mean()), logits.argmax(-1)[0].tolist()

    before = {name: value.clone() for name, value in real.model.state_dict().items()}
    first = [likelihood(edit) for edit in (EDIT, PARAPHRASE, ELSEWHERE)]
    editor = create_editor(method, real)
    editor.edit([EDIT])
    edited, paraphrased, elsewhere = (likelihood(edit) for edit in (EDIT, PARAPHRASE, ELSEWHERE))
    assert edited[0] > first[0][0] / 3
    assert paraphrased[0] > first[1][0]
    assert elsewhere[1][:3] == first[2][1][:3]
    editor.undo()
    assert all(torch.equal(value, before[name]) for name, value in real.model.state_dict().items())
