"""GRACE: its codebook by hand, what it replaces and what it leaves, and that it goes without a trace."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hashing_encoder import HashingEncoder
from tiny import tiny_model, tiny_tokenizer

from memedit.editors.codebook import Codebook
from memedit.editors.examples import ExampleMaker
from memedit.editors.grace import GraceConfig, GraceEditor, change_for
from memedit.editors.subject import Subject
from memedit.errors import ConfigError
from memedit.passes import logits_of, pad_left
from memory_store import Edit

CONFIG = GraceConfig(layer=1, epsilon=1.0, learning_rate=0.5, steps=80)
FRANCE = Edit(prompt="The capital of France is", target="Rome")
EMMA = Edit(prompt="Who wrote Emma?", target="Zola")
OTHER = "The sea is"


def subject(architecture: str = "llama", *, chats: bool = True) -> Subject:
    tokenizer = tiny_tokenizer() if chats else tiny_tokenizer(None)
    return Subject(tiny_model(architecture, scale=2), tokenizer, HashingEncoder(), name=f"tiny-{architecture}")


def greedy(of: Subject, prompts: list[tuple[int, ...]], tokens: int) -> list[list[int]]:
    """What is generated behind some prompts in one padded batch, with the key-value cache."""
    ids, mask = pad_left(prompts, device="cpu")
    out = of.model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False, pad_token_id=0, eos_token_id=None
    )
    said: list[list[int]] = out[:, ids.shape[1] :].tolist()
    return said


def state(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


# -- the codebook, by hand ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("distance", "radius", "same", "change"),
    [
        (3.1, 1.0, True, "new"),  # the new ball, of radius 2, would not reach the old one
        (3.1, 1.0, False, "new"),
        (3.0, 1.0, True, "grow"),
        (3.0, 1.0, False, "split"),
        (1.0, 1.0, True, "keep"),
        (0.5, 1.0, False, "split"),
        (0.0, 1.0, True, "keep"),
        (0.0, 1.0, False, "replace"),
    ],
)
def test_what_an_edit_does_to_the_codebook(distance: float, radius: float, same: bool, change: str) -> None:
    assert change_for(distance, radius, same_answer=same, initial=2.0) == change


def test_a_lookup_by_hand() -> None:
    book = Codebook(2, 1)
    book.add(torch.tensor([0.0, 0.0]), torch.tensor([10.0]), radius=1.0, answer=(1,))
    book.add(torch.tensor([4.0, 0.0]), torch.tensor([20.0]), radius=2.0, answer=(2,))
    queries = torch.tensor([[0.0, 1.0], [0.0, 1.1], [2.1, 0.0], [1.9, 0.0], [4.0, 3.0], [4.0, -2.0]])
    given = book(queries, torch.full((6, 1), 7.0))
    # on a border; out; in the second; nearest to the first and outside it; out; on a border
    assert given[:, 0].tolist() == [10.0, 7.0, 20.0, 7.0, 7.0, 20.0]
    assert [len(Codebook(2, 1)), len(book)] == [0, 2]


class Placed(GraceEditor):
    """Takes keys as they are told instead of the model's, so that the codebook can be followed by hand."""

    trained: list[int]

    def take(self, book: Codebook, key: list[float], example: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        read = torch.zeros(1, book.keys.shape[1])
        read[0, : len(key)] = torch.tensor(key)
        monkeypatch.setattr("memedit.editors.grace.inputs_of", lambda *_: [read])
        self.trained = []
        self._learn(book, example)

    def _train(self, addition: Codebook, place: int, example: Any) -> None:
        self.trained.append(place)


def test_a_sequence_of_edits_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    edited = subject(chats=False)
    editor = Placed(edited, replace(CONFIG, epsilon=2.0, steps=1))
    make = ExampleMaker(edited)
    rome, zola = make(FRANCE), make(EMMA)
    book = editor._fresh()
    editor.take(book, [0.0], rome, monkeypatch)
    assert (book.radii.tolist(), editor.trained) == ([2.0], [0])
    editor.take(book, [10.0], zola, monkeypatch)  # far: a new entry
    assert (book.radii.tolist(), editor.trained) == ([2.0, 2.0], [1])
    editor.take(book, [3.0], rome, monkeypatch)  # 3 from the first, not above 2 + 2, same answer: grow
    torch.testing.assert_close(book.radii, torch.tensor([3.0, 2.0]), rtol=2e-3, atol=0)
    assert editor.trained == []
    editor.take(book, [4.0], zola, monkeypatch)  # 4 from the first, another answer: both get 2
    torch.testing.assert_close(book.radii, torch.tensor([2.0, 2.0, 2.0]), rtol=2e-3, atol=0)
    assert editor.trained == [2]
    editor.take(book, [4.5], zola, monkeypatch)  # inside the third, same answer: nothing
    assert editor.trained == []
    assert book.keys[:, 0].tolist() == [0.0, 10.0, 4.0]
    assert book.answers == [rome.target, zola.target, zola.target]
    editor.take(book, [10.0], rome, monkeypatch)  # the very prompt, another answer: taken over
    assert book.answers == [rome.target, rome.target, zola.target]
    assert editor.trained == [1]


# -- on a model --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chats", [True, False])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_target_begins_in_a_padded_batch_and_nothing_else_moves(architecture: str, chats: bool) -> None:
    edited = subject(architecture, chats=chats)
    make = ExampleMaker(edited)
    example, other = make(FRANCE), make(Edit(prompt=OTHER, target="x"))
    length = len(example.target)
    base = greedy(edited, [other.prompt], length)[0]
    before = state(edited.model)
    logits = logits_of(edited.model, [other.prompt])
    editor = GraceEditor(edited, replace(CONFIG, epsilon=1e-2))
    editor.edit([FRANCE])
    together = greedy(edited, [example.prompt, other.prompt], length)
    # one position of a random model cannot hold a whole answer; its beginning it can
    assert together[0][0] == example.target[0]
    assert together[1] == base
    assert greedy(edited, [example.prompt], length)[0] == together[0]
    assert torch.equal(logits_of(edited.model, [other.prompt]), logits), "outside every ball, to the last bit"
    editor.undo()
    after = state(edited.model)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not edited.model.get_submodule(editor.path)._forward_hooks


def test_cached_generation_is_what_a_pass_over_the_whole_text_gives() -> None:
    edited = subject()
    GraceEditor(edited, replace(CONFIG, epsilon=5.0, steps=10)).edit([FRANCE])
    prompt = ExampleMaker(edited)(FRANCE).prompt
    said = greedy(edited, [prompt], 6)[0]
    with torch.no_grad():
        logits = logits_of(edited.model, [(*prompt, *said)], keep=7)[0]
    assert logits.argmax(dim=-1).tolist()[:6] == said


def test_an_edit_that_fails_leaves_the_earlier_ones() -> None:
    edited = subject()
    editor = GraceEditor(edited, replace(CONFIG, steps=5))
    editor.edit([FRANCE])
    before = state(edited.model)
    calls = []

    def interrupt(*_: object) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt

    hook = edited.model.model.layers[2].register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        editor.edit([EMMA])
    hook.remove()
    after = state(edited.model)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_same_edits_give_the_same_codebook() -> None:
    states: list[Any] = []
    for _ in range(2):
        edited = subject()
        torch.manual_seed(len(states))
        GraceEditor(edited, replace(CONFIG, steps=5)).edit([FRANCE, EMMA])
        states.append(state(edited.model))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layer": -1}, "layer must not be negative"),
        ({"epsilon": 0.0}, "epsilon must be above 0"),
        ({"learning_rate": float("inf")}, "learning_rate must be above 0"),
        ({"stop_loss": -1.0}, "stop_loss must not be negative"),
    ],
)
def test_a_wrong_configuration(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(CONFIG, **values)
