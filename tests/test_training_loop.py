"""The training loop: what a kill, a resume and another configuration do to it; and that it trains as AdamW does."""

from __future__ import annotations

import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from toy_training import ToySettings, ToyTask, run

from training.card import ModelCard, data_of, write_card
from training.checkpoint import Checkpoint, CheckpointFolder, differences
from training.errors import CheckpointError, TrainingConfigError, TrainingDataError, TrainingError
from training.loop import TrainingResult, learning_rate_at, train
from training.progress import EvaluationReport, StepReport
from training.settings import LoopSettings, device_for, settled
from training.task import ParameterGroup, StatefulTask

ROOT = Path(__file__).parent.parent
SETTINGS = ToySettings(loop=replace(ToySettings().loop, checkpoint_seconds=0.0, device="cpu"))

CHILD = """
import sys
from pathlib import Path
from training.config import read_settings
from toy_training import ToySettings, run
run(read_settings(ToySettings, Path(sys.argv[1])), out=Path(sys.argv[2]))
"""


def settings(**loop: Any) -> ToySettings:
    return replace(SETTINGS, loop=replace(SETTINGS.loop, **loop))


def trained(of: ToySettings, out: Path, **options: Any) -> tuple[ToyTask, TrainingResult]:
    task = ToyTask(of)
    return task, train(task, of.loop, out, **options)


def weights(task: ToyTask) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in task.net.named_parameters()}


def same(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def log_of(out: Path, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def without_seconds(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


class StoppedError(Exception):
    """The plug is pulled."""


class StopsAt:
    """Raises at a step, as if the process had died there."""

    def __init__(self, step: int) -> None:
        self.at = step

    def stage(self, stage: str, done: int, total: int | None) -> None:
        pass

    def step(self, report: StepReport) -> None:
        if report.step == self.at:
            raise StoppedError

    def evaluation(self, report: EvaluationReport) -> None:
        pass


class Collects:
    def __init__(self) -> None:
        self.stages: list[tuple[str, int, int | None]] = []
        self.steps: list[StepReport] = []
        self.evaluations: list[EvaluationReport] = []

    def stage(self, stage: str, done: int, total: int | None) -> None:
        self.stages.append((stage, done, total))

    def step(self, report: StepReport) -> None:
        self.steps.append(report)

    def evaluation(self, report: EvaluationReport) -> None:
        self.evaluations.append(report)


# -- what it does ------------------------------------------------------------------------------------------------------


def test_it_learns_and_tells_of_it(tmp_path: Path) -> None:
    told = Collects()
    task, result = trained(settings(steps=150), tmp_path, progress=told)
    assert result.task == "toy"
    assert (result.steps, result.stopped_by, result.device) == (150, "steps", "cpu")
    assert result.figures_at_start["accuracy"] < 0.8 < 0.85 < result.figures["accuracy"]
    with torch.no_grad():
        assert task.evaluate()["accuracy"] == result.figures["accuracy"]  # its tensors hold the best state
    assert [report.step for report in told.steps] == list(range(1, 151))
    assert [report.step for report in told.evaluations] == list(range(0, 151, 10))
    assert told.steps[-1].seconds_left == 0 < told.steps[10].seconds_left
    assert set(told.steps[0].losses) == {"sides", "points"}
    assert result.seconds == pytest.approx(told.steps[-1].seconds, abs=5)
    steps = log_of(tmp_path, "step")
    assert [line["loss"] for line in steps] == [report.loss for report in told.steps]
    assert [line["step"] for line in log_of(tmp_path, "evaluation")] == list(range(0, 151, 10))
    assert len({line["figures"]["drawn"] for line in log_of(tmp_path, "evaluation")}) == 1  # each draws the same
    assert log_of(tmp_path, "end")[0]["best_step"] == result.best_step
    assert json.loads(json.dumps(result.to_json()))["figures"] == result.figures


def test_the_steps_are_those_of_adamw(tmp_path: Path) -> None:
    """Against a plain loop over the same batches: groups, decay, clipping, accumulation, schedule."""
    of = settings(steps=7, accumulate=2, gradient_clip=0.05, weight_decay=0.1, evaluate_every=7, warmup=0.3)
    task, _ = trained(replace(of, dropout=replace(of.dropout, inner=0.0)), tmp_path)
    reference = ToyTask(replace(of, dropout=replace(of.dropout, inner=0.0)))
    named = dict(reference.net.named_parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [named["0.weight"], named["3.weight"]], "weight_decay": 0.1},
            {"params": [named["0.bias"], named["3.bias"]], "weight_decay": 0.0},
        ]
    )
    rates = [0.01, 0.02, 0.02, 0.016, 0.012, 0.008, 0.004]  # two steps up, then down to nothing at the end
    told = []
    for step in range(7):
        for group, scale in zip(optimizer.param_groups, (1.0, 0.5), strict=True):
            group["lr"] = rates[step] * scale
        optimizer.zero_grad()
        losses = [reference.loss(reference.batch(2 * step + place))[0] for place in (0, 1)]
        torch.stack(losses).mean().backward()
        norm = torch.nn.utils.clip_grad_norm_(reference.net.parameters(), 0.05)
        told.append((float(torch.stack(losses).mean().detach()), float(norm)))
        optimizer.step()
    logged = [(line["loss"], line["gradient_norm"]) for line in log_of(tmp_path, "step")]
    assert logged == [pytest.approx(pair, rel=1e-5) for pair in told]
    best = weights(task)
    final = weights(reference)
    assert all(torch.allclose(best[name], final[name], atol=1e-6) for name in final)
    assert not any(torch.equal(final[name], weights(ToyTask(of))[name]) for name in final)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        ("constant", [0.5, *[1.0] * 9]),
        ("cosine", [0.5, 1.0, *[(1 + math.cos(math.pi * k / 8)) / 2 for k in range(8)]]),
    ],
)
def test_the_learning_rate_rises_and_falls(schedule: Any, expected: list[float]) -> None:
    of = LoopSettings(steps=10, warmup=0.2, learning_rate=1.0, schedule=schedule)
    assert [learning_rate_at(of, step) for step in range(10)] == pytest.approx(expected)
    assert learning_rate_at(replace(of, warmup=0.0), 0) == 1.0
    assert learning_rate_at(replace(of, warmup=1.0), 9) == 1.0


def test_the_best_state_is_kept_not_the_last(tmp_path: Path) -> None:
    class Worse(ToyTask):
        """Is best after the tenth step."""

        def evaluate(self) -> dict[str, float]:
            asked = len(self.asked)
            if asked == 10:
                self.at_ten = weights(self)
            return {"accuracy": {0: 0.2, 10: 0.9}.get(asked, 0.5)}

    task = Worse(SETTINGS)
    result = train(task, SETTINGS.loop, tmp_path)
    assert (result.best_step, result.steps) == (10, 40)
    assert same(weights(task), task.at_ten)


def test_training_that_only_harms_leaves_the_start(tmp_path: Path) -> None:
    class Harmed(ToyTask):
        def evaluate(self) -> dict[str, float]:
            return {"accuracy": -float(len(self.asked))}

    task = Harmed(SETTINGS)
    before = weights(task)
    assert train(task, SETTINGS.loop, tmp_path).best_step == 0
    assert same(weights(task), before)


def test_patience_ends_it(tmp_path: Path) -> None:
    class Stuck(ToyTask):
        def evaluate(self) -> dict[str, float]:
            return {"accuracy": 0.5}

    result = train(Stuck(SETTINGS), replace(SETTINGS.loop, patience=2), tmp_path)
    assert (result.stopped_by, result.steps, result.best_step) == ("patience", 20, 0)


def test_a_time_limit_ends_it_and_a_longer_one_goes_on(tmp_path: Path) -> None:
    of = replace(settings(time_limit_minutes=0.1 / 60), pause=0.02)
    _, first = trained(of, tmp_path)
    assert first.stopped_by == "time"
    assert first.steps < 40
    assert trained(of, tmp_path)[1] == first
    _, whole = trained(replace(of, pause=0.0, loop=replace(of.loop, time_limit_minutes=None)), tmp_path)
    assert (whole.stopped_by, whole.steps) == ("steps", 40)
    assert whole.seconds > first.seconds


def test_the_callers_random_numbers_and_flags_are_left_alone(tmp_path: Path) -> None:
    task = ToyTask(SETTINGS)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(task, SETTINGS.loop, tmp_path)
    assert torch.equal(torch.rand(3), expected)
    assert not torch.are_deterministic_algorithms_enabled()


def test_bfloat16_is_computed_in_and_not_kept(tmp_path: Path) -> None:
    half, _ = trained(settings(precision="bfloat16"), tmp_path / "half")
    whole, _ = trained(settings(), tmp_path / "whole")
    assert {tensor.dtype for tensor in half.net.parameters()} == {torch.float32}
    assert not same(weights(half), weights(whole))


@pytest.mark.parametrize(
    ("can", "expected"),
    [({"avx512_bf16": True}, "bfloat16"), ({"avx512_bf16": False, "amx_bf16": True}, "bfloat16"), ({}, "float32")],
)
def test_the_precision_is_the_processors_unless_it_is_given(
    can: dict[str, bool], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can, raising=False)
    assert settled(LoopSettings(device="cpu", precision="auto")).precision == expected
    assert settled(LoopSettings(device="cpu", precision="bfloat16")).precision == "bfloat16"
    assert settled(LoopSettings(device="cpu", precision="float32")).precision == "float32"


def test_what_decides_by_itself_is_trained_as_what_it_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    automatic, _ = trained(settings(device="cpu", precision="auto"), tmp_path / "auto")
    half, _ = trained(settings(device="cpu", precision="bfloat16"), tmp_path / "half")
    assert same(weights(automatic), weights(half))


# -- going on ----------------------------------------------------------------------------------------------------------


def test_the_toy_needs_everything_that_a_checkpoint_holds() -> None:
    """Without a task that carries something over, the tests below would prove little."""
    assert isinstance(ToyTask(SETTINGS), StatefulTask)
    assert any(isinstance(module, torch.nn.Dropout) for module in ToyTask(SETTINGS).net)


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 9, 10, 11, 20, 39])
def test_going_on_makes_the_very_steps_that_were_left(tmp_path: Path, stop: int) -> None:
    whole, result = trained(SETTINGS, tmp_path / "whole")
    with pytest.raises(StoppedError):
        trained(SETTINGS, tmp_path / "cut", progress=StopsAt(stop))
    torch.manual_seed(stop)  # what state the next process happens to be in
    cut, again = trained(SETTINGS, tmp_path / "cut")
    last_saved = (stop - 1) // 3 * 3
    assert cut.asked == list(range(last_saved, 40))
    assert same(weights(cut), weights(whole))
    assert replace(again, seconds=0.0) == replace(result, seconds=0.0)
    for event in ("step", "evaluation"):
        lines = [without_seconds(log_of(tmp_path / place, event)) for place in ("whole", "cut")]
        assert lines[0] == lines[1]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_seed_decides_everything(tmp_path: Path, seed: int) -> None:
    first, _ = trained(settings(seed=seed), tmp_path / "first")
    again, _ = trained(settings(seed=seed), tmp_path / "again")
    other, _ = trained(settings(seed=seed + 10), tmp_path / "other")
    assert same(weights(first), weights(again))
    assert not same(weights(first), weights(other))


def test_how_often_it_saves_changes_nothing(tmp_path: Path) -> None:
    often, _ = trained(settings(checkpoint_every=1), tmp_path / "often")
    never, _ = trained(settings(checkpoint_seconds=1e6), tmp_path / "never")
    assert same(weights(often), weights(never))


def test_what_has_ended_is_not_trained_again(tmp_path: Path) -> None:
    first, result = trained(SETTINGS, tmp_path)
    log = (tmp_path / "log.jsonl").read_bytes()
    again, told = trained(SETTINGS, tmp_path)
    assert told == result
    assert again.asked == []
    assert same(weights(again), weights(first))
    assert (tmp_path / "log.jsonl").read_bytes() == log
    assert [file.name[:5] for file in (tmp_path / "checkpoint").glob("*.safetensors")] == ["best-"]
    fresh, _ = trained(SETTINGS, tmp_path, fresh=True)
    assert len(fresh.asked) == 40
    assert len(log_of(tmp_path, "begin")) == 1


@pytest.mark.slow
def test_kill_9_at_any_moment_costs_nothing_but_time(tmp_path: Path) -> None:
    """Processes of their own, killed again and again, reach the weights of one that was never stopped."""
    loop = {key: value for key, value in asdict(settings(checkpoint_every=2).loop).items() if value is not None}
    lines = [f"{key} = {json.dumps(value)}" for key, value in loop.items()]
    config = tmp_path / "toy.toml"
    config.write_text("\n".join(["pause = 0.02", "[loop]", *lines]))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}

    def child(out: Path) -> subprocess.Popen[bytes]:
        with (tmp_path / "stderr").open("wb") as stderr:
            command = [sys.executable, "-c", CHILD, str(config), str(out)]
            return subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=stderr)

    def ended(process: subprocess.Popen[bytes]) -> int:
        """Its exit status; what it had to say is in the captured output."""
        status = process.wait(120)
        print((tmp_path / "stderr").read_text())
        return status

    assert ended(child(tmp_path / "whole")) == 0
    moments = random.Random(20261)
    cut, killed_at = tmp_path / "cut", []
    for goal in (1, 14, 30):
        process = child(cut)
        while process.poll() is None and (not (cut / "log.jsonl").exists() or steps_logged(cut) < goal):
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.03))
        process.send_signal(signal.SIGKILL)
        assert ended(process) == -signal.SIGKILL
        killed_at.append(steps_logged(cut))
    assert killed_at == sorted(killed_at)
    assert killed_at[-1] < 40
    assert ended(child(cut)) == 0
    assert log_of(cut, "resume")
    assert same(load_file(cut / "toy.safetensors"), load_file(tmp_path / "whole" / "toy.safetensors"))
    assert without_seconds(log_of(cut, "step")) == without_seconds(log_of(tmp_path / "whole", "step"))


def steps_logged(out: Path) -> int:
    return (out / "log.jsonl").read_bytes().count(b'"event": "step"')


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_a_checkpoint_of_other_settings_is_refused_and_says_of_which(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        trained(SETTINGS, tmp_path, progress=StopsAt(20))
    with pytest.raises(CheckpointError) as refused:
        trained(replace(settings(learning_rate=0.5), width=17), tmp_path)
    for part in ("loop.learning_rate (0.02 there, 0.5 now)", "settings.width (16 there, 17 now)", "--fresh"):
        assert part in str(refused.value)
    assert "seed" not in str(refused.value)
    task, _ = trained(settings(learning_rate=0.5), tmp_path, fresh=True)
    assert len(task.asked) == 40


def test_a_checkpoint_of_other_data_is_refused(tmp_path: Path) -> None:
    train(ToyTask(SETTINGS, {"a.jsonl": "0" * 64}), SETTINGS.loop, tmp_path)
    with pytest.raises(CheckpointError, match=r'data\.a\.jsonl \("000000000000000…000" there, "1111'):
        train(ToyTask(SETTINGS, {"a.jsonl": "1" * 64}), SETTINGS.loop, tmp_path)
    with pytest.raises(CheckpointError, match=r"data\.a\.jsonl .* there, nothing now"):
        train(ToyTask(SETTINGS), SETTINGS.loop, tmp_path)


@pytest.mark.parametrize(
    "changed", [{"checkpoint_every": 7}, {"checkpoint_seconds": 3.0}, {"time_limit_minutes": 60.0}, {"device": "auto"}]
)
def test_settings_without_bearing_may_change(tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(StoppedError):
        trained(SETTINGS, tmp_path, progress=StopsAt(20))
    task, _ = trained(settings(**changed), tmp_path)
    assert task.asked[0] == 18


@pytest.mark.parametrize("file", ["state", "best"])
def test_a_damaged_or_missing_file_is_told(tmp_path: Path, file: str) -> None:
    with pytest.raises(StoppedError):
        trained(SETTINGS, tmp_path, progress=StopsAt(20))
    (path,) = (tmp_path / "checkpoint").glob(f"{file}-*.safetensors")
    payload = bytearray(path.read_bytes())
    payload[-1] ^= 1
    path.write_bytes(payload)
    with pytest.raises(CheckpointError, match=r"is damaged.*--fresh"):
        trained(SETTINGS, tmp_path)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"is missing.*--fresh"):
        trained(SETTINGS, tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "format version None"),
        ('{"format_version": 99}', "format version 99"),
        ('{"format_version": 1}', "is incomplete"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_told(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "checkpoint.json").write_text(text)
    with pytest.raises(CheckpointError, match=f"{said}.*--fresh"):
        trained(SETTINGS, tmp_path)


def test_tensors_that_do_not_fit_change_nothing(tmp_path: Path) -> None:
    class Unsaid(ToyTask):
        """Does not say how wide it is."""

        def identity(self) -> dict[str, Any]:
            return {}

    train(Unsaid(SETTINGS), SETTINGS.loop, tmp_path)
    wide = Unsaid(replace(SETTINGS, width=17))
    before = weights(wide)
    with pytest.raises(CheckpointError, match=r"does not fit: for '0\.weight'"):
        train(wide, SETTINGS.loop, tmp_path)
    assert same(weights(wide), before)


def test_two_processes_do_not_train_into_one_folder(tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock"), pytest.raises(CheckpointError, match="Another process is training"):
        trained(SETTINGS, tmp_path)


def test_a_loss_that_is_no_number_ends_it_with_the_state_before(tmp_path: Path) -> None:
    class Diverges(ToyTask):
        def loss(self, batch: torch.Tensor) -> Any:
            loss, parts = super().loss(batch)
            return (loss * math.nan if len(self.asked) == 6 else loss), parts

    task = Diverges(SETTINGS)
    with pytest.raises(TrainingError, match=r"diverged at step 6: the loss is nan.*learning_rate than 0\.02"):
        train(task, SETTINGS.loop, tmp_path)
    assert all(torch.isfinite(tensor).all() for tensor in task.net.parameters())
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(("figures", "said"), [({"other": 1.0}, "not measured"), ({"accuracy": math.nan}, "nan")])
def test_the_choosing_figure_must_be_measured(tmp_path: Path, figures: dict[str, float], said: str) -> None:
    class Unmeasured(ToyTask):
        def evaluate(self) -> dict[str, float]:
            return figures

    with pytest.raises(TrainingError, match=f"'accuracy' is to choose.*{said}"):
        train(Unmeasured(SETTINGS), SETTINGS.loop, tmp_path)


def test_tensors_are_checked(tmp_path: Path) -> None:
    tensor = torch.nn.Parameter(torch.zeros(2))
    frozen = torch.nn.Parameter(torch.zeros(2), requires_grad=False)
    elsewhere = torch.nn.Parameter(torch.zeros(2, device="meta"))
    for groups, said in (
        ([], "no tensor"),
        ([{"a": tensor}, {"a": torch.nn.Parameter(torch.zeros(1))}], "'a' is to be trained twice"),
        ([{"a": tensor, "b": tensor}], "'b' is to be trained twice"),
        ([{"a": frozen}], "takes no gradient"),
        ([{"a": elsewhere}], "is on meta, and training on cpu"),
    ):

        class Wrong(ToyTask):
            given = tuple(ParameterGroup(tensors=tensors) for tensors in groups)

            def parameters(self) -> Any:
                return self.given

        with pytest.raises(TrainingConfigError, match=said):
            train(Wrong(SETTINGS), SETTINGS.loop, tmp_path)


def test_a_device_that_is_not_there_is_told() -> None:
    assert device_for(LoopSettings(device="cpu")).type == "cpu"
    with pytest.raises(TrainingConfigError, match=r"'cuda:99', and this machine has \d+ CUDA"):
        device_for(LoopSettings(device="cuda:99"))


# -- checkpoints and cards ---------------------------------------------------------------------------------------------


def test_a_checkpoint_replaces_the_one_before_whole(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoint")
    assert folder.load() is None
    for value in (1.0, 2.0):
        folder.save(Checkpoint({"value": value}, {"a": {"x": torch.full((2,), value)}, "b": {"y": torch.ones(1)}}))
        (folder.path / ".state-x.safetensors.abc").write_text("half")  # what a killed writer leaves
    saved = folder.load()
    assert saved is not None
    assert saved.facts == {"value": 2.0}
    assert torch.equal(saved.tensors["a"]["x"], torch.full((2,), 2.0))
    folder.save(saved)
    assert len(list(folder.path.iterdir())) == 3
    folder.clear()
    assert list(folder.path.iterdir()) == []


def test_a_checkpoint_is_whole_at_every_moment_of_its_writing(tmp_path: Path) -> None:
    """Each step of the writing is made to fail in turn; what is loaded is the old checkpoint or the new one."""
    calls = 0
    for failing in range(20):
        folder = CheckpointFolder(tmp_path / str(failing))
        folder.save(Checkpoint({"n": 0}, {"a": {"x": torch.zeros(2)}, "b": {"y": torch.zeros(2)}}))
        calls = 0

        def replaced(self: Path, target: Path, failing: int = failing) -> Path:
            nonlocal calls
            calls += 1
            if calls - 1 == failing:
                raise OSError("the plug was pulled")
            return self.rename(target)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "replace", replaced)
            try:
                folder.save(Checkpoint({"n": 1}, {"a": {"x": torch.ones(2)}, "b": {"y": torch.ones(2)}}))
                finished = True
            except OSError:
                finished = False
        saved = folder.load()
        assert saved is not None
        assert saved.facts["n"] == int(finished)
        assert {float(tensors.sum()) for part in saved.tensors.values() for tensors in part.values()} == {
            2.0 * finished
        }
        if finished:
            break
    assert failing == 3, "two tensor files and the manifest"


def test_differences_are_listed_and_not_too_many() -> None:
    assert differences({"a": {"b": 1}, "c": [1]}, {"a": {"b": 1}, "c": [1]}) == ""
    assert (
        differences({"a": {"b": 1}}, {"a": {"b": 2, "d": None}})
        == "a.b (1 there, 2 now), a.d (nothing there, null now)"
    )
    many = differences({str(n): n for n in range(20)}, {})
    assert many.endswith("and 12 more")


def test_a_card_tells_what_it_takes_to_train_again(tmp_path: Path) -> None:
    data = tmp_path / "mine.jsonl"
    data.write_text('{"x": 1}\n{"x": 2}\n')
    result = run(SETTINGS, out=tmp_path / "out", data=[data])
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    page = (tmp_path / "out" / "README.md").read_text()
    digest = subprocess.run(["sha256sum", data], capture_output=True, text=True, check=True).stdout.split()[0]
    assert card["data"] == [
        {"name": "mine.jsonl", "sha256": digest, "records": 2, "licence": "mine", "use": "training"}
    ]
    assert card["settings"]["loop"]["seed"] == 0
    assert card["result"] == result.to_json()
    assert card["versions"]["torch"] == torch.__version__.partition("+")[0] or card["versions"]["torch"]
    assert {"revision", "machine", "figures", "notes"} <= card.keys()
    for part in (digest, "learning_rate = 0.02", "It is of no use.", f"step {result.best_step}", "| accuracy |", "MIT"):
        assert part in page
    assert str(tmp_path) not in page + json.dumps(card)
    table_rows = re.findall(r"^\|.*\|$", page, re.MULTILINE)
    assert len(table_rows) > 8


def test_a_card_escapes_what_would_break_its_tables_and_a_missing_file_is_told(tmp_path: Path) -> None:
    result = run(SETTINGS, out=tmp_path / "out")
    with pytest.raises(TrainingDataError, match=r"absent\.jsonl cannot be read: No such file"):
        data_of(tmp_path / "absent.jsonl", name="absent.jsonl", records=0, licence="")
    (tmp_path / "d").write_text("")
    data = data_of(tmp_path / "d", name="a|b", records=0, licence="x")
    card = ModelCard(title="T", summary="S", base_model="B", data=[data], settings=SETTINGS, result=result, licence="L")
    write_card(tmp_path, card)
    assert "| a\\|b |" in (tmp_path / "README.md").read_text()
