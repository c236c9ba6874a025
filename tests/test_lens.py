"""The logit lens against the model's own hidden states, and footprints of methods that write here and there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hashing_encoder import HashingEncoder
from test_architectures import MODELS
from tiny import VOCABULARY, tiny_model, tiny_tokenizer

from memedit.architectures import ARCHITECTURES, architecture_of
from memedit.editors.editor import Treatment
from memedit.editors.ft import FtConfig, FtEditor
from memedit.editors.registry import create_editor
from memedit.editors.subject import Subject
from memedit.errors import InvalidPromptError, UnsupportedCallError
from memedit.locate.lens import footprints, logit_lens
from memory_store import Edit

LISBON = Edit(prompt="The headquarters of Acme Rockets is in", target="Lisbon", subject="Acme Rockets")
UNRELATED = "who wrote the marriage of figaro"


def subject() -> Subject:
    return Subject(tiny_model(), tiny_tokenizer(None), HashingEncoder(256), name="tiny")


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_lens_reads_the_models_own_hidden_states(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    model.resize_token_embeddings(VOCABULARY)
    model.eval()
    tokenizer = tiny_tokenizer(None)
    lens = logit_lens(model, tokenizer, "In AB")
    ids = torch.tensor([tokenizer("In AB")["input_ids"]])
    architecture = architecture_of(model)
    with torch.no_grad():
        output = model(ids, output_hidden_states=True)
        # the last of them has been through the final norm already
        for layer, hidden in enumerate(output.hidden_states[1:-1]):
            logits = model.get_submodule(architecture.unembedding)(model.get_submodule(architecture.final_norm)(hidden))
            cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
            chances = (logits if cap is None else cap * torch.tanh(logits / cap)).softmax(-1)[0]
            assert [row[layer] for row in lens.certainty] == pytest.approx(chances.max(-1).values.tolist(), abs=1e-5)
        last = output.logits.softmax(-1)[0]
    assert [row[-1] for row in lens.certainty] == pytest.approx(last.max(-1).values.tolist(), abs=1e-5)
    assert lens.answer == lens.says[-1][-1] == tokenizer.decode([int(last[-1].argmax())])
    assert lens.chance[-1][-1] == lens.certainty[-1][-1]


def test_the_probability_of_an_answer_that_is_asked_for() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer(None)
    lens = logit_lens(model, tokenizer, "In AB", answer="x")
    token = tokenizer(" x")["input_ids"][0]
    with torch.no_grad():
        chances = model(torch.tensor([tokenizer("In AB")["input_ids"]])).logits[0].softmax(-1)[:, token]
    assert [row[-1] for row in lens.chance] == pytest.approx(chances.tolist(), abs=1e-5)
    for prompt, answer in (("In AB", " "), (" ", None)):
        with pytest.raises(InvalidPromptError, match="is empty"):
            logit_lens(model, tokenizer, prompt, answer=answer)


def test_a_trained_layer_moves_what_is_behind_it_and_nothing_before() -> None:
    edited = subject()
    editor = FtEditor(edited, FtConfig(layer=1, learning_rate=0.01, steps=5))
    before = {name: value.clone() for name, value in edited.model.state_dict().items()}
    ids = torch.tensor([edited.tokenizer(LISBON.prompt)["input_ids"]])
    with torch.no_grad():
        clean = edited.model(ids, output_hidden_states=True)
    (found,) = footprints(edited, editor, [LISBON], [LISBON.prompt])
    assert all(torch.equal(before[name], value) for name, value in edited.model.state_dict().items())
    assert found.method == "ft-m"
    assert found.context == 0
    assert found.moved
    assert all(row[0] == 0 for row in found.distance)
    assert all(row[1] > 0 for row in found.distance)
    assert all(row[0] == 0 for row in found.divergence)
    # by hand
    editor.edit([LISBON])
    with torch.no_grad():
        after = edited.model(ids, output_hidden_states=True)
    moved = (after.hidden_states[2] - clean.hidden_states[2]).norm(dim=-1) / clean.hidden_states[2].norm(dim=-1)
    assert [row[1] for row in found.distance] == pytest.approx(moved[0].tolist(), rel=1e-4)
    before_log, after_log = clean.logits[0].double().log_softmax(-1), after.logits[0].double().log_softmax(-1)
    divergence = (before_log.exp() * (before_log - after_log)).sum(-1)
    assert [row[-1] for row in found.divergence] == pytest.approx(divergence.tolist(), rel=1e-3, abs=1e-5)


def test_a_memory_moves_what_it_governs_and_nothing_out_of_scope() -> None:
    edited = subject()
    governed, unrelated = footprints(edited, create_editor("ike", edited), [LISBON], [LISBON.prompt, UNRELATED])
    assert governed.moved
    assert governed.context > 0
    assert len(governed.tokens) == len(LISBON.prompt) == len(governed.distance)
    assert not unrelated.moved
    assert unrelated.context == 0
    assert all(value == 0 for row in unrelated.divergence for value in row)
    (nothing,) = footprints(edited, create_editor("base", edited), [LISBON], [LISBON.prompt])
    assert not nothing.moved
    assert nothing.to_json()["moved"] is False


class Elsewhere:
    """A method that has another model answer."""

    def __init__(self) -> None:
        self.info = create_editor("base", subject()).info
        self.undone = 0

    def edit(self, edits: Any) -> Any:
        return None

    def treat(self, prompts: Any) -> list[Treatment]:
        return [Treatment(model=object()) for _ in prompts]

    def undo(self) -> None:
        self.undone += 1


def test_another_model_has_no_footprint_in_this_one_and_edits_are_taken_back() -> None:
    editor: Any = Elsewhere()
    with pytest.raises(UnsupportedCallError, match="another model answers 'In AB' in place of tiny"):
        footprints(subject(), editor, [LISBON], ["In AB"])
    assert editor.undone == 1
