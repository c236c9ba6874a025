"""Second moments of keys: against a direct computation, from the cache, after an interruption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hashing_encoder import HashingEncoder
from tiny import ARCHITECTURES, tiny_model, tiny_tokenizer

from memedit.architectures import architecture_of
from memedit.editors import key_statistics
from memedit.editors.key_statistics import FileCorpus, MadeUpCorpus, corpus_of, key_moments
from memedit.editors.subject import Subject
from memedit.errors import ConfigError, DataFileError

WORDS = "The ferry left at nine as ever and nobody was on board that night . " * 40


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEMEDIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "statistics"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Documents of different lengths, shorter and longer than a row."""
    file = tmp_path / "text.jsonl"
    lengths = [30, 700, 131, 128, 1, 900] * 3
    file.write_text(
        "".join(json.dumps({"text": WORDS[place : place + size]}) + "\n" for place, size in enumerate(lengths))
    )
    return file


def tiny_subject(architecture: str = "llama", seed: int = 0) -> Subject:
    return Subject(tiny_model(architecture, seed), tiny_tokenizer(None), HashingEncoder(), name="tiny")


def directly(subject: Subject, layer: int, rows: list[tuple[int, ...]], tokens: int) -> torch.Tensor:
    """The mean of k k^T, each row alone, in 64-bit precision."""
    module = subject.model.get_submodule(architecture_of(subject.model).module_name(layer, "mlp_out"))
    keys: list[torch.Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, given: keys.extend(given[0][0].detach().double()))
    for row in rows:
        if row:
            with torch.no_grad():
                subject.model(torch.tensor([row]))
    hook.remove()
    whole = torch.stack(keys[:tokens])
    return torch.einsum("ti,tj->ij", whole, whole) / len(whole)


def rows_of(corpus: Any) -> list[tuple[int, ...]]:
    return [row for number in range(100) for row in corpus.batch(number)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tokens", [100, 10**6], ids=["some", "all"])
def test_they_are_those_of_a_direct_computation(architecture: str, tokens: int, text: Path) -> None:
    subject = tiny_subject(architecture)
    moments = key_moments(subject, [2, 0], FileCorpus(subject, text), tokens=tokens)
    rows = rows_of(FileCorpus(subject, text))
    assert list(moments) == [2, 0]
    for layer, moment in moments.items():
        expected = directly(subject, layer, rows, tokens)
        assert moment.dtype == torch.float64
        torch.testing.assert_close(moment, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-4)


def test_a_file_is_cut_into_rows_that_hold_all_of_it(text: Path) -> None:
    subject = tiny_subject()
    rows = rows_of(FileCorpus(subject, text))
    documents = [json.loads(line)["text"] for line in text.read_text().splitlines()]
    assert subject.tokenizer.decode([token for row in rows for token in row]) == "".join(documents)
    assert max(map(len, rows)) == 128
    plain = text.with_suffix(".txt")
    plain.write_text(WORDS)
    assert subject.tokenizer.decode([t for row in rows_of(FileCorpus(subject, plain)) for t in row]) == WORDS


def test_what_is_known_is_not_counted_again(text: Path, cache: Path) -> None:
    subject = tiny_subject()
    corpus = FileCorpus(subject, text)
    first = key_moments(subject, [0, 1], corpus, tokens=500)
    told: list[int] = []
    again = key_moments(tiny_subject(), [1], FileCorpus(subject, text), tokens=500, progress=lambda *_: told.append(1))
    assert told == []
    assert torch.equal(again[1], first[1])
    for other, layers, count in ((tiny_subject(seed=1), [1], 500), (subject, [2], 500), (subject, [1], 400)):
        key_moments(other, layers, corpus, tokens=count, progress=lambda *_: told.append(1))
        assert told
        told.clear()
    text.write_text(text.read_text() + json.dumps({"text": "more"}) + "\n")
    key_moments(subject, [1], FileCorpus(subject, text), tokens=500, progress=lambda *_: told.append(1))
    assert told
    assert {file.suffix for file in cache.rglob("*") if file.is_file()} <= {".safetensors", ".lock"}


class Stopped(Exception):  # noqa: N818
    pass


def test_an_interrupted_run_goes_on_where_it_was(text: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_statistics, "_ROWS", 4)
    monkeypatch.setattr(key_statistics, "_SAVED_EVERY", 2)
    subject = tiny_subject()
    seen: list[int] = []

    def stopping(done: int, total: int) -> None:
        seen.append(done)
        if len(seen) == 6:
            raise Stopped

    with pytest.raises(Stopped):
        key_moments(subject, [0, 1], FileCorpus(subject, text), tokens=3_000, progress=stopping)
    begun = seen[3]  # what the fourth batch came to was saved; the sixth stopped the run before it was
    resumed: list[int] = []
    moments = key_moments(
        subject, [0, 1], FileCorpus(subject, text), tokens=3_000, progress=lambda done, _: resumed.append(done)
    )
    assert resumed[0] > begun
    assert resumed[0] == seen[4]
    rows = rows_of(FileCorpus(subject, text))
    for layer in (0, 1):
        expected = directly(subject, layer, rows, 3_000)
        torch.testing.assert_close(moments[layer], expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-4)
    assert not list(cache.rglob("part-*.safetensors"))


def test_a_damaged_file_of_the_cache_is_made_anew(text: Path, cache: Path) -> None:
    subject = tiny_subject()
    first = key_moments(subject, [0], FileCorpus(subject, text), tokens=500)
    (file,) = cache.rglob("layer-*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(key_moments(subject, [0], FileCorpus(subject, text), tokens=500)[0], first[0])


def test_made_up_text_is_the_same_each_time_and_draws_nothing_of_others() -> None:
    subject = tiny_subject()
    state = torch.get_rng_state()
    first = MadeUpCorpus(subject).batch(1)
    torch.manual_seed(99)
    assert MadeUpCorpus(subject).batch(1) == first
    assert MadeUpCorpus(subject).batch(0) != first
    assert MadeUpCorpus(subject, seed=1).batch(1) != first
    torch.set_rng_state(state)
    MadeUpCorpus(subject).batch(0)
    assert torch.equal(torch.get_rng_state(), state)
    special = set(subject.tokenizer.all_special_ids)
    assert {len(row) for row in first} == {128}
    assert not special & {token for row in first for token in row}


def test_a_corpus_goes_by_its_name(text: Path) -> None:
    subject = tiny_subject()
    assert corpus_of(subject, "identity") is None
    assert isinstance(corpus_of(subject, "made-up"), MadeUpCorpus)
    assert isinstance(corpus_of(subject, str(text)), FileCorpus)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    subject = tiny_subject()
    with pytest.raises(DataFileError, match=r"nowhere.txt: cannot be read .* Give a text file, or JSON lines"):
        FileCorpus(subject, tmp_path / "nowhere.txt")
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text('{"body": "x"}\n')
    with pytest.raises(DataFileError, match="field 'text'"):
        FileCorpus(subject, wrong)
    empty = tmp_path / "empty.txt"
    empty.write_text("  \n")
    with pytest.raises(DataFileError, match="has no text"):
        FileCorpus(subject, empty)
    with pytest.raises(ConfigError, match="at least 1 token, not 0"):
        key_moments(subject, [0], MadeUpCorpus(subject), tokens=0)
