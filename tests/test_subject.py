"""The model under evaluation: an encoder that remembers, and a fingerprint that names the weights."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hashing_encoder import HashingEncoder
from numpy.typing import NDArray
from tiny import CHATML, tiny_model, tiny_tokenizer

from classifiers import TextEncoder, quiet_transformers
from memedit.editors.editor import MethodInfo
from memedit.editors.memory_editor import MemoryEditor
from memedit.editors.subject import RememberingEncoder, Subject
from memedit.errors import ModelNotFoundError
from memedit.responders import InContextResponder
from memory_store import Edit

TEXTS = ["Acme is in Lisbon", "Nordwind is in Oslo", "Acme is in Lisbon", "", "Oslo"]


class SlowEncoder(HashingEncoder):
    """Takes a known time for each text."""

    SECONDS = 0.01

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        time.sleep(self.SECONDS * len(texts))
        return super().encode(texts)


# -- the encoder -------------------------------------------------------------------------------------------------------


def test_it_is_the_encoder_behind_it() -> None:
    encoder = RememberingEncoder(HashingEncoder(48, salt="x"))
    assert isinstance(encoder, TextEncoder)
    assert (encoder.dimension, encoder.fingerprint) == (48, HashingEncoder(48, salt="x").fingerprint)
    for texts in (TEXTS, TEXTS[::-1], tuple(TEXTS[:1]), []):
        vectors = encoder.encode(texts)
        np.testing.assert_array_equal(vectors, HashingEncoder(48, salt="x").encode(texts))
        assert vectors.dtype == np.float32
        assert vectors.shape == (len(texts), 48)


def test_no_text_is_encoded_twice() -> None:
    behind = HashingEncoder()
    encoder = RememberingEncoder(behind)
    encoder.encode(TEXTS)
    assert behind.texts_encoded == 4
    encoder.encode(TEXTS)
    encoder.encode(["Oslo", "Lima"])
    assert behind.texts_encoded == 5


def test_what_a_caller_does_to_its_vectors_is_not_remembered() -> None:
    encoder = RememberingEncoder(HashingEncoder())
    encoder.encode(TEXTS)[:] = 0
    np.testing.assert_array_equal(encoder.encode(TEXTS), HashingEncoder().encode(TEXTS))


def test_what_was_spared_is_what_encoding_again_would_cost() -> None:
    encoder = RememberingEncoder(SlowEncoder())
    encoder.encode(["a", "b", "c"])
    encoder.encode([])
    assert encoder.spared_seconds == 0.0
    started = time.perf_counter()
    encoder.encode(["b", "new", "c", "b"])
    took = time.perf_counter() - started
    assert encoder.spared_seconds >= 2 * SlowEncoder.SECONDS
    assert took >= SlowEncoder.SECONDS  # of the new one alone
    before = encoder.spared_seconds
    encoder.encode(["new"])
    once = encoder.spared_seconds - before
    assert once >= SlowEncoder.SECONDS
    encoder.encode(["new", "new"])  # one text, however often it is given
    assert encoder.spared_seconds == pytest.approx(before + 2 * once)


def test_a_failure_is_not_remembered() -> None:
    class Failing(HashingEncoder):
        fails = True

        def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
            if self.fails:
                raise RuntimeError("no memory")
            return super().encode(texts)

    behind = Failing()
    encoder = RememberingEncoder(behind)
    with pytest.raises(RuntimeError, match="no memory"):
        encoder.encode(TEXTS)
    behind.fails = False
    np.testing.assert_array_equal(encoder.encode(TEXTS), HashingEncoder().encode(TEXTS))


def test_a_method_is_charged_for_what_another_one_had_encoded() -> None:
    subject = Subject(tiny_model(), tiny_tokenizer(), SlowEncoder(), name="tiny")
    info = MethodInfo(name="m", title="M", group="external knowledge", changes="memory", paper="none", summary="None.")
    edits = [Edit(prompt=f"Company {number} is in", target="Lisbon") for number in range(5)]
    texts = sum(len(edit.texts()) for edit in edits)
    for _ in range(2):  # the second pays as the first did
        editor = MemoryEditor(info, subject, InContextResponder(subject.tokenizer))
        assert editor.edit(edits).seconds >= texts * SlowEncoder.SECONDS
        ids = tuple(subject.tokenizer("Where is company 3?")["input_ids"])
        (treatment,) = editor.treat([ids])
        assert treatment.cost >= SlowEncoder.SECONDS


# -- the fingerprint ---------------------------------------------------------------------------------------------------


def fingerprint(model: Any) -> str:
    return Subject(model, tiny_tokenizer(), HashingEncoder(), name="tiny").fingerprint


def test_equal_models_have_equal_fingerprints() -> None:
    assert fingerprint(tiny_model()) == fingerprint(tiny_model())
    assert len(fingerprint(tiny_model())) == 16


def changed_weight(model: Any) -> None:
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[5, 7] += 1e-3


def changed_setting(model: Any) -> None:
    model.config.rms_norm_eps = 1e-5


CHANGES: dict[str, Callable[[Any], Any]] = {
    "a weight": changed_weight,
    "a setting": changed_setting,
    "the type": lambda model: model.to(torch.bfloat16),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_it_tells_models_apart(change: Callable[[Any], Any]) -> None:
    model = tiny_model()
    change(model)
    assert fingerprint(model) != fingerprint(tiny_model())


def test_it_tells_models_of_other_seeds_and_architectures_apart() -> None:
    models = [tiny_model("llama"), tiny_model("llama", 1), tiny_model("qwen2"), tiny_model("gpt2")]
    assert len(set(map(fingerprint, models))) == 4


def test_it_is_read_once_before_anything_is_edited() -> None:
    subject = Subject(tiny_model(), tiny_tokenizer(), HashingEncoder(), name="tiny")
    before = subject.fingerprint
    changed_weight(subject.model)
    assert subject.fingerprint == before
    assert fingerprint(subject.model) != before


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / "tiny-one"
    with quiet_transformers():
        tiny_model().save_pretrained(place)
        tiny_tokenizer().save_pretrained(place)
    return place


@pytest.mark.real
def test_it_is_the_same_wherever_a_model_was_loaded_from(folder: Path, tmp_path: Path, minilm_folder: Path) -> None:
    elsewhere = shutil.copytree(folder, tmp_path / "moved")
    loaded = [Subject.load(place, encoder=minilm_folder, dtype=torch.float32) for place in (folder, elsewhere)]
    assert [one.name for one in loaded] == ["tiny-one", "moved"]
    assert {one.fingerprint for one in loaded} == {fingerprint(tiny_model())}


# -- the subject -------------------------------------------------------------------------------------------------------


@pytest.mark.real
def test_a_subject_is_loaded_by_name(folder: Path, minilm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject.load(str(folder), encoder=minilm_folder)
    assert not subject.model.training
    assert subject.chats
    assert subject.encoder.dimension == 384
    assert subject.reader.tokenizer is subject.tokenizer
    monkeypatch.setenv("MEMEDIT_OFFLINE", "1")
    with pytest.raises(ModelNotFoundError, match="no-such-encoder-anywhere"):
        Subject.load(str(folder), encoder="no-such-encoder-anywhere")


@pytest.mark.parametrize(("template", "chats"), [(CHATML, True), (None, False), ("", False)])
def test_whether_it_chats_is_the_tokenizers_to_say(template: str | None, chats: bool) -> None:
    assert Subject(tiny_model(), tiny_tokenizer(template), HashingEncoder(), name="tiny").chats is chats


def test_a_model_is_put_into_evaluation_mode() -> None:
    model = tiny_model().train()
    assert not Subject(model, tiny_tokenizer(), HashingEncoder(), name="tiny").model.training
