"""``memedit train``: options, what is printed, exit codes; with a toy among what can be trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from safetensors.torch import load_file
from toy_training import ToySettings
from typer.testing import CliRunner, Result

from memedit.commands.exits import ExitCode
from memedit.commands.group import CommandGroup
from memedit.commands.output import Output
from training.bars import training_progress
from training.cli import TRAINABLE, Trainable, app_for
from training.config import settings_toml
from training.progress import EvaluationReport, StepReport

ROOT = Path(__file__).parent.parent
TOY = Trainable(name="toy", summary="Train the toy.", settings="toy_training:ToySettings", run="toy_training:run")
APP = typer.Typer(cls=CommandGroup)
APP.add_typer(app_for([*TRAINABLE, TOY]), name="train")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("MEMEDIT_DATA", "MEMEDIT_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def toy(*args: str, code: int = 0) -> Result:
    result = CliRunner().invoke(APP, ["train", "toy", *args])
    assert result.exit_code == code, result.output
    return result


def short(folder: Path, **loop: Any) -> str:
    """A configuration file for a short training."""
    file = folder / "short.toml"
    of = replace(ToySettings(), loop=replace(ToySettings().loop, steps=20, checkpoint_seconds=0.0, **loop))
    file.write_text(settings_toml(of))
    return str(file)


def test_it_trains_and_tells_the_figures(tmp_path: Path) -> None:
    result = toy("--out", "runs", "--config", short(tmp_path))
    assert result.stdout.splitlines()[0].startswith("accuracy: 0.")
    assert " -> 0." in result.stdout
    told = result.stderr.splitlines()
    stage = "measuring on dev records (1) ..."
    assert [line.split(":")[0] for line in told[:5]] == [stage, "step 0", "step 1 of 20", "step 10", "step 20"]
    assert "ended by: steps" in told[-1]
    assert {path.name for path in (tmp_path / "runs").iterdir()} >= {
        "README.md",
        "card.json",
        "checkpoint",
        "log.jsonl",
        "toy.safetensors",
    }


def test_json_is_one_object_and_nothing_else(tmp_path: Path) -> None:
    result = toy("--out", "runs", "--config", short(tmp_path), "--json")
    told = json.loads(result.stdout)
    assert (told["task"], told["steps"], told["stopped_by"], told["out"]) == ("toy", 20, "steps", "runs")
    assert result.stderr == ""


def test_the_same_command_again_does_nothing_and_fresh_begins_anew(tmp_path: Path) -> None:
    config = short(tmp_path)
    first = json.loads(toy("--out", "runs", "--config", config, "--json").stdout)
    weights = load_file(tmp_path / "runs" / "toy.safetensors")
    again = json.loads(toy("--out", "runs", "--config", config, "--json").stdout)
    assert again == first
    fresh = json.loads(toy("--out", "runs", "--config", config, "--fresh", "--json").stdout)
    assert fresh["seconds"] != first["seconds"]
    renewed = load_file(tmp_path / "runs" / "toy.safetensors")
    assert all((weights[name] == renewed[name]).all() for name in weights)


def test_flags_are_laid_over_the_file(tmp_path: Path) -> None:
    config = short(tmp_path, seed=4)
    shown = tomllib.loads(toy("--config", config, "--seed", "9", "--init", "shipped", "--show-config").stdout)
    assert (shown["loop"]["seed"], shown["loop"]["steps"], shown["init"]) == (9, 20, "shipped")
    assert tomllib.loads(toy("--config", config, "--show-config").stdout)["loop"]["seed"] == 4


def test_a_method_is_chosen_where_one_command_trains_for_several() -> None:
    def shown(*args: str, code: int = 0) -> Result:
        result = CliRunner().invoke(APP, ["train", *args, "--show-config"])
        assert result.exit_code == code, result.output
        return result

    mend = tomllib.loads(shown("hypernetwork", "--method", "mend", "--base", "another").stdout)
    assert (mend["base"], mend["c_edit"]) == ("another", 0.2)
    assert tomllib.loads(shown("hypernetwork").stdout)["c_edit"] == 0.2
    assert "margin" in tomllib.loads(shown("hypernetwork", "--method", "ke").stdout)
    assert "known: mend, ke" in shown("hypernetwork", "--method", "rome", code=ExitCode.USAGE).stderr
    for option in ("--method", "--base"):
        assert "No such option" in shown("toy", option, "mend", code=ExitCode.USAGE).stderr


def test_show_config_prints_a_file_that_changes_nothing(tmp_path: Path) -> None:
    text = toy("--show-config").stdout
    assert text == settings_toml(ToySettings())
    (tmp_path / "all.toml").write_text(text)
    assert toy("--config", "all.toml", "--show-config").stdout == text
    assert not (tmp_path / "runs").exists()


def test_ones_own_records_are_handed_on(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text('{"x": 1}\n')
    config = short(tmp_path)
    toy("--out", "runs", "--config", config, "--data", "a.jsonl", "--data", "b.jsonl", "--data-folder", ".")
    card = json.loads((tmp_path / "runs" / "card.json").read_text())
    assert [one["name"] for one in card["data"]] == ["a.jsonl", "b.jsonl"]
    assert card["figures"] == {"data folders": 1.0}
    other = toy("--out", "runs", "--config", config, "--data", "a.jsonl", code=ExitCode.REFUSED)
    assert "data.b.jsonl" in other.stderr
    assert "--fresh" in other.stderr


def test_the_data_folder_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMEDIT_DATA", str(tmp_path))
    toy("--out", "runs", "--config", short(tmp_path))
    assert json.loads((tmp_path / "runs" / "card.json").read_text())["figures"] == {"data folders": 1.0}


def test_what_is_wrong_becomes_an_exit_code(tmp_path: Path) -> None:
    assert "--out" in toy(code=ExitCode.USAGE).stderr
    assert "--data" in toy("--out", "runs", "--data", "absent.jsonl", code=ExitCode.USAGE).stderr
    assert "absent.toml cannot be read" in toy("--out", "x", "--config", "absent.toml", code=ExitCode.REFUSED).stderr
    (tmp_path / "bad.toml").write_text("[loop]\nstep = 3\n")
    assert "Did you mean 'steps'?" in toy("--out", "x", "--config", "bad.toml", code=ExitCode.REFUSED).stderr
    (tmp_path / "bad.jsonl").write_text("bad")
    told = toy("--out", "x", "--data", "bad.jsonl", "--json", code=ExitCode.REFUSED)
    assert json.loads(told.stderr)["error"] == "TrainingDataError"
    assert not (tmp_path / "x").exists()


def test_an_interruption_and_a_missing_package_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("interrupted")
    told = toy("--out", "x", "--data", "a.jsonl", code=ExitCode.INTERRUPTED)
    assert "the same command goes on" in told.stderr
    (tmp_path / "b.jsonl").write_text("needs")
    told = toy("--out", "x", "--data", "b.jsonl", code=ExitCode.ENVIRONMENT)
    assert "no_such_package" in told.stderr
    assert "memedit[training]" in told.stderr


def test_help_lists_what_can_be_trained_without_importing_it() -> None:
    program = (
        "import sys; from training.cli import app; from typer.testing import CliRunner; "
        "print(CliRunner().invoke(app, ['--help']).stdout); "
        "print(sorted({'torch', 'numpy', 'transformers', 'training.scope', 'sqlalchemy'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "scope" in ran.stdout
    assert "counterfactual" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "[]"


def test_memedit_finds_it_by_its_entry_point(tmp_path: Path) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert declared["project"]["entry-points"]["memedit.commands"] == {"train": "training.cli:app"}
    assert "training" in declared["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    information = tmp_path / "declared-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: declared\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[memedit.commands]\ntrain = training.cli:app\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "COLUMNS": "100"}
    command = [sys.executable, "-m", "memedit", "train", "scope", "--help"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "memedit train scope --out runs/scope" in ran.stdout


def test_a_file_tells_of_stages_once_and_of_steps_every_five_minutes(tmp_path: Path) -> None:
    output = Output()
    with (tmp_path / "log").open("w+") as log:
        output.err = Console(file=log, width=100, highlight=False, markup=False)
        with training_progress(output) as progress:
            for done in (0, 1, 2):
                progress.stage("reading", done, 2)
            for step, seconds in ((1, 100.0), (2, 399.9), (3, 400.0), (4, 401.0)):
                progress.step(
                    StepReport(
                        step=step,
                        steps=9,
                        loss=0.25,
                        losses={},
                        learning_rate=0.1,
                        seconds=seconds,
                        seconds_left=600 - seconds,
                    )
                )
        log.seek(0)
        assert log.read().splitlines() == [
            "reading (2) ...",
            "step 1 of 9: loss 0.250, 8:20 left",
            "step 3 of 9: loss 0.250, 3:20 left",
        ]


def test_a_terminal_shows_losses_best_figure_and_time_left(tmp_path: Path) -> None:
    output = Output()
    with (tmp_path / "screen").open("w+") as screen:
        output.err = Console(file=screen, force_terminal=True, width=100, highlight=False, markup=False)
        with training_progress(output) as progress:
            progress.stage("reading", 1, 2)
            progress.stage("reading", 2, 2)
            progress.evaluation(
                EvaluationReport(
                    step=0, figures={"accuracy": 0.5, "other": 1.0}, maximised="accuracy", best_step=0, best=0.5
                )
            )
            progress.step(
                StepReport(
                    step=7,
                    steps=1000,
                    loss=0.25,
                    losses={"sides": 0.125},
                    learning_rate=0.1,
                    seconds=1.0,
                    seconds_left=3725,
                )
            )
        screen.seek(0)
        shown = screen.read()
    assert "step 0: accuracy 0.5 (best 0.5, at step 0)" in shown
    assert "7/1,000  loss 0.250 sides 0.125  best 0.5  1:02:05 left" in shown
    assert "reading" in shown
