"""The settings of a run: checked when made, kept as JSON, and told as a command line that asks for the same."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import typer
from tiny import tiny_model, tiny_tokenizer
from typer.testing import CliRunner

from classifiers import quiet_transformers
from memedit.cli import app
from memedit.commands import evaluating
from memedit.errors import ConfigError
from memedit.evaluation.settings import RunSettings, differing

PLAIN = RunSettings(model="tiny", methods=("ike",), data=("counterfact:dev",))
OTHERS: dict[str, Any] = {
    "model": "a folder/with spaces",
    "methods": ("ike", "ft-m"),
    "data": ("counterfact:dev", "unke:dev"),
    "encoder": "another-encoder",
    "edits": (1, 10, 1000),
    "limit": 7,
    "seeds": 3,
    "protocols": ("free", "teacher-forced", "no-router"),
    "sequential": True,
    "distractors": "counterfact:train",
    "traffic": "traffic:nq_dev",
    "traffic_limit": 0,
    "contexts": ("turns", "passage"),
    "document_words": 50,
    "conflicts": True,
    "dtype": "bfloat16",
    "max_new_tokens": 5,
    "batch_tokens": 99,
    "kl": False,
    "fluency": True,
    "ability": True,
    "skip_bad": True,
    "sample_seed": -4,
}
"""For each setting another value than the plain one."""


def parsed(words: list[str]) -> RunSettings:
    """What the command line reads out of words, by its own option names."""
    command = typer.main.get_command(evaluating.app)
    given = dict(command.make_context("eval", words).params)
    for name in ("methods", "data", "protocols", "contexts"):
        given[name] = evaluating._names(given[name])
    given["edits"] = evaluating._counts(given["edits"])
    return RunSettings(**{one.name: given[one.name] for one in fields(RunSettings)})


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODEL", "ENCODER", "DATA"):
        monkeypatch.delenv(f"MEMEDIT_{name}", raising=False)


# -- as a command ------------------------------------------------------------------------------------------------------


def test_every_setting_is_tried() -> None:
    assert set(OTHERS) == {one.name for one in fields(RunSettings)}
    assert all(getattr(PLAIN, name) != value for name, value in OTHERS.items())


@pytest.mark.parametrize("name", OTHERS)
def test_the_command_line_asks_for_the_same(name: str) -> None:
    settings = replace(PLAIN, **{name: OTHERS[name]})
    words = settings.command()
    assert words[:2] == ["memedit", "eval"]
    assert parsed(words[2:]) == settings


def test_the_command_line_asks_for_all_of_them_together() -> None:
    settings = RunSettings(**OTHERS)
    assert parsed(settings.command()[2:]) == settings
    assert parsed(PLAIN.command()[2:]) == PLAIN


def test_the_command_names_no_default() -> None:
    assert PLAIN.command() == [
        *("memedit", "eval", "--model", "tiny", "--methods", "ike", "--data", "counterfact:dev"),
        *("--edits", "1", "--protocols", "free"),
    ]


def test_the_defaults_of_the_command_line_are_those_of_the_settings() -> None:
    defaults = RunSettings(model="smollm2-135m-instruct", methods=("ike",), data=("counterfact:dev",))
    assert parsed(["--data", "counterfact:dev"]) == defaults


@pytest.mark.real
def test_a_run_by_command_line_has_the_settings_it_was_asked_for(tmp_path: Path, minilm_folder: Path) -> None:
    data = tmp_path / "data"
    (data / "counterfact").mkdir(parents=True)
    (data / "traffic").mkdir()
    records = [
        {"case_id": n, "prompt": f"Town {n} is in", "target_new": f"Land {n}", "subject": f"Town {n}"}
        | {"ground_truth": "Asia", "rephrase_prompt": f"Where is town {n}?"}
        | {"locality_prompt": f"Town {n + 50} is in", "locality_ground_truth": "Africa"}
        for n in range(8)
    ]
    for split, some in (("dev", records[:4]), ("train", records[4:])):
        text = "".join(json.dumps(record) + "\n" for record in some)
        (data / "counterfact" / f"{split}.jsonl").write_text(text)
    (data / "traffic" / "nq_dev.jsonl").write_text(json.dumps({"question": "who am i", "answers": ["Ada"]}) + "\n")
    (data / "text").mkdir()
    article = {"text": "Lanterns were lit along the quay as on every other evening of that long and quiet year.\n" * 3}
    (data / "text" / "wikipedia_en.jsonl").write_text((json.dumps(article) + "\n") * 3)
    with quiet_transformers():
        tiny_model().save_pretrained(tmp_path / "tiny")
        tiny_tokenizer().save_pretrained(tmp_path / "tiny")
    wanted = RunSettings(
        **{
            **OTHERS,
            "model": str(tmp_path / "tiny"),
            "methods": ("ike",),
            "data": ("counterfact:dev",),
            "encoder": str(minilm_folder),
            "edits": (1, 5),
            "limit": 1,
            "seeds": 2,
            "protocols": ("free", "no-router"),
            "traffic_limit": 1,
            "ability": False,  # its texts are not of this test
            "contexts": (),
        }
    )
    out = tmp_path / "run"
    result = CliRunner().invoke(
        app, [*wanted.command()[1:], "--data-folder", str(data), "--out", str(out)], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    run = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert RunSettings.from_json(run["settings"]) == wanted
    assert run["runs"][0]["command"] == wanted.command()


# -- as JSON -----------------------------------------------------------------------------------------------------------


def test_json_holds_all_of_it() -> None:
    for settings in (PLAIN, RunSettings(**OTHERS)):
        assert RunSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    known = PLAIN.to_json()
    with pytest.raises(ConfigError, match=r"no 'max_new_token'. Did you mean 'max_new_tokens'\?"):
        RunSettings.from_json({**known, "max_new_token": 3})
    with pytest.raises(ConfigError, match=r"no 'xyzzy'. They have model, methods, .*sample_seed\."):
        RunSettings.from_json({**known, "xyzzy": 3})


@pytest.mark.parametrize("name", ["model", "methods", "data"])
def test_what_has_no_default_must_be_there(name: str) -> None:
    known = PLAIN.to_json()
    del known[name]
    with pytest.raises(ConfigError, match=f"lack something: .*'{name}'"):
        RunSettings.from_json(known)


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"methods": "ike"}, "methods must be a list with something in it, not 'ike'"),
        ({"data": ()}, r"data must be a list with something in it, not \(\)"),
        ({"methods": (1,)}, "methods must be text that is not empty, not 1"),
        ({"data": ("counterfact:dev", " ")}, "data must be text that is not empty, not ' '"),
        ({"edits": 5}, "edits must be a list with something in it, not 5"),
        ({"edits": (1, 0)}, "edits must be a whole number from 1, not 0"),
        ({"edits": ("10",)}, "edits must be a whole number from 1, not '10'"),
        ({"edits": (True,)}, "edits must be a whole number from 1, not True"),
        ({"limit": 0}, "limit must be a whole number from 1, not 0"),
        ({"limit": 1.5}, "limit must be a whole number from 1, not 1.5"),
        ({"seeds": 0}, "seeds must be a whole number from 1, not 0"),
        ({"traffic_limit": -1}, "traffic_limit must be a whole number from 0, not -1"),
        ({"dtype": "int8"}, "dtype is auto, float32, bfloat16, float16, not 'int8'"),
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number from 1"),
        ({"batch_tokens": None}, "batch_tokens must be a whole number from 1, not None"),
        ({"sample_seed": "0"}, "sample_seed must be a whole number, not '0'"),
        ({"sample_seed": False}, "sample_seed must be a whole number, not False"),
        ({"kl": "no"}, "kl must be true or false, not 'no'"),
        ({"conflicts": "yes"}, "conflicts must be true or false, not 'yes'"),
        ({"contexts": "passage"}, "contexts must be a list, not 'passage'"),
        ({"contexts": ("passages",)}, "contexts are passage, turns, document, not 'passages'"),
        ({"contexts": (["turns"],)}, r"contexts are passage, turns, document, not \['turns'\]"),
        ({"document_words": 0}, "document_words must be a whole number from 1, not 0"),
        ({"sequential": 1}, "sequential must be true or false, not 1"),
        ({"model": ""}, "model must be text that is not empty, not ''"),
        ({"encoder": None}, "encoder must be text that is not empty, not None"),
        ({"traffic": ("traffic:nq_dev",)}, "traffic must be text that is not empty"),
        ({"distractors": ""}, "distractors must be text that is not empty"),
        ({"protocols": ("free", "teacher_forced")}, r"no protocol 'teacher_forced'. Did you mean 'teacher-forced'\?"),
        ({"protocols": ("xyzzy",)}, r"no protocol 'xyzzy'. Known: free, teacher-forced, .*no-router\."),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused(wrong: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        replace(PLAIN, **wrong)
    with pytest.raises(ConfigError, match=complaint):
        RunSettings.from_json({**PLAIN.to_json(), **wrong})


def test_what_is_named_twice_is_asked_once() -> None:
    settings = RunSettings.from_json({**PLAIN.to_json(), "methods": ["scr", "ike", "scr"], "edits": [10, 1, 10]})
    assert (settings.methods, settings.edits) == (("scr", "ike"), (10, 1))


# -- comparing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OTHERS)
def test_runs_that_share_a_folder_share_what_makes_results_comparable(name: str) -> None:
    shared = set("model encoder limit sample_seed max_new_tokens traffic traffic_limit distractors".split())
    shared |= {"contexts", "document_words", "conflicts", "dtype"}
    other = replace(PLAIN, **{name: OTHERS[name]})
    assert list(differing(PLAIN, other)) == ([name] if name in shared else [])
    assert list(differing(PLAIN, PLAIN)) == []
