"""``memedit locate`` and its commands, over a tiny model in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_model, tiny_tokenizer
from typer.testing import CliRunner, Result

from memedit.cli import app
from memedit.locate.averages import Averages
from memedit.locate.records import Fact, FactTrace
from memedit.locate.tracing import TraceConfig, Tracer

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny-model")
    tiny_model().save_pretrained(path)
    tiny_tokenizer(None).save_pretrained(path)
    return path


@pytest.fixture
def run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def runs(*arguments: str, code: int = 0) -> Result:
        model = [] if "--help" in arguments else ["--model", str(folder)]
        result = CliRunner().invoke(app, ["locate", *arguments, *model])
        assert result.exit_code == code, result.output
        return result

    return runs


QUICK = ("--samples", "2", "--window", "2")


def test_a_prompt_is_traced_and_drawn(run: Run, tmp_path: Path) -> None:
    result = run("On AB lie", "--subject", "AB", *QUICK)
    by_library = Tracer(tiny_model(), tiny_tokenizer(None), TraceConfig(samples=2, window=2)).trace(
        Fact(prompt="On AB lie", subject="AB")
    )
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[:2] for row in rows] == [["hidden", "1"], ["mlp", "2"], ["attention", "2"]]
    for row, effect in zip(rows, by_library.effects, strict=True):
        token, layer = effect.best()
        assert row[2:] == [by_library.tokens[token].strip(), str(layer), f"{effect.indirect[token][layer]:.4f}"]
    written = {file.name for file in (tmp_path / "locate").iterdir()}
    assert written == {f"on-ab-lie.{ending}" for ending in ("png", "svg", "html", "json")}
    kept = FactTrace.from_json(json.loads((tmp_path / "locate" / "on-ab-lie.json").read_text()))
    assert kept.effects == by_library.effects


def test_with_json_the_numbers_come_and_no_file(run: Run, tmp_path: Path) -> None:
    result = run("AB or AB lie", "--subject", "AB", "--kinds", "hidden", "--answer", "xy", "--json", *QUICK)
    found = FactTrace.from_json(json.loads(result.stdout))
    assert found.answer == " xy"
    assert found.notes[0].startswith("the subject stands in the prompt twice")
    assert not list(tmp_path.iterdir())
    run("On AB lie", "--subject", "AB", "--kinds", "hidden", "--json", "--out", "here", *QUICK)
    assert (tmp_path / "here" / "on-ab-lie.svg").is_file()


def test_a_file_of_facts(run: Run, tmp_path: Path) -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer(None)

    with torch.no_grad():
        logits = model(torch.tensor([tokenizer("On AB lie")["input_ids"]])).logits[0, -1]
    first = tokenizer.decode([int(logits.argmax())])
    # known is what begins with the space that stands before every answer; this model does not say one
    assert first != " "
    (tmp_path / "facts.jsonl").write_text('{"prompt": "On AB lie", "subject": "AB", "attribute": "x"}\n')
    result = run("--data", "facts.jsonl", "--out", "traces", *QUICK, code=4)
    assert "knows none of the 1 facts" in result.output


def test_averages_are_told_and_drawn(run: Run, tmp_path: Path, folder: Path) -> None:
    """With the folder of a run whose only fact is taken for known."""
    (tmp_path / "facts.jsonl").write_text('{"prompt": "On AB lie", "subject": "AB", "attribute": "x"}\n')
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "known.json").write_text('{"asked": 1, "known": [0]}')
    result = run("--data", "facts.jsonl", "--out", "traces", "--limit", "1", *QUICK)
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert rows[0][:4] == ["hidden", "1", "first subject token", "1"]
    written = {file.name for file in (tmp_path / "traces").iterdir()}
    assert {"averages.html", "averages.png", "averages.svg", "averages.json", "averages-heatmap.png"} <= written
    averages = Averages.from_json(json.loads((tmp_path / "traces" / "averages.json").read_text()))
    assert averages.model == str(folder)
    again = run("--data", "facts.jsonl", "--out", "traces", "--json", *QUICK)
    assert Averages.from_json(json.loads(again.stdout)) == averages


def test_neurons(run: Run, tmp_path: Path) -> None:
    result = run("neurons", "The sea is", "--paraphrase", "It is, the sea,", "--threshold", "0.5", "--steps", "10")
    kinds = [line.split("\t")[0] for line in result.stdout.splitlines()]
    assert kinds.count("prompt") == 2
    assert (tmp_path / "locate" / "neurons-the-sea-is.png").is_file()
    found = json.loads(run("neurons", "The sea is", "--answer", "x", "--json").stdout)
    assert found["answer"] == " "  # the first token of " x"


def test_lens(run: Run, tmp_path: Path) -> None:
    rows = [line.split("\t") for line in run("lens", "The sea is").stdout.splitlines()]
    assert [row[0] for row in rows] == ["0", "1", "2"]
    assert (tmp_path / "locate" / "lens-the-sea-is.html").is_file()
    told = run("lens", "The sea is", "--answer", "x").stderr
    assert "the answer has several tokens; measured is its first, ''" in told
    assert json.loads(run("lens", "The sea is", "--json").stdout)["tokens"] == list("The sea is")


def test_help_tells_of_every_command(run: Run) -> None:
    told = run("--help").output
    for name in ("trace", "neurons", "lens", "footprint"):
        assert name in told
    assert "--subject" in run("trace", "--help").output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("On AB lie",), 2, "--subject"),
        (("trace",), 2, "give a prompt, or a file of facts"),
        (("--data", "facts.jsonl"), 2, "--out"),
        (("On AB lie", "--subject", "CD"), 4, "does not stand in the prompt"),
        (("On AB lie", "--subject", "AB", "--kinds", "mpl"), 4, "'mpl' cannot be put back"),
        (("neurons", " "), 4, "give a prompt that the answer continues"),
    ],
)
def test_what_is_wrong_is_told(run: Run, tmp_path: Path, arguments: Any, code: int, message: str) -> None:
    (tmp_path / "facts.jsonl").write_text('{"prompt": "On AB lie", "subject": "AB", "attribute": "x"}\n')
    assert message in run(*arguments, code=code).output
