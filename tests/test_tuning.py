"""``memedit tune``: what is tried, how it is counted, that a search goes on, and the table it writes."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hashing_encoder import HashingEncoder
from tiny import tiny_model, tiny_tokenizer

from memedit.editors import ft, ft_l
from memedit.editors.editor import EditCost
from memedit.editors.registry import BUILT_IN, load_method
from memedit.editors.subject import Subject
from memedit.errors import ConfigError
from memedit.evaluation.cases import EvalCase
from memedit.evaluation.datasets.probes import probe
from memedit.evaluation.tuning import Trial, Tunable, candidates, tune
from memory_store import Edit

TUNED = ["ft-m", "ft-l", "lora", "adalora", "grace", "wise", "t-patcher", "rome", "memit", "pmet", "alphaedit"]


def case(number: int) -> EvalCase:
    edit = Edit(prompt=f"Town {number} is in", target="A", subject=f"Town {number}")
    return EvalCase(
        id=str(number),
        edits=(edit,),
        probes=(
            probe("edit", edit.prompt, ["A"], of_edit=0),
            probe("paraphrase", f"Where is town {number}?", ["A"], of_edit=0),
            probe("same_relation", f"Lake {number} is in", ["B"]),
        ),
    )


@pytest.fixture
def subject() -> Subject:
    return Subject(tiny_model(scale=2), tiny_tokenizer(), HashingEncoder(), name="tiny")


def small(tried: list[Any] | None = None, *, fails: float | None = None) -> Any:
    """FT-M with two values to try; remembers each config that it edited with."""

    class Remembering(ft.FtEditor):
        def edit(self, edits: Sequence[Edit]) -> EditCost:
            if tried is not None:
                tried.append(self.config)
            return super().edit(edits)

    def create(subject: Subject, config: Any = None) -> Any:
        if config is not None and config.learning_rate == fails:
            raise_ = ConfigError("training diverged")
            return SimpleNamespace(edit=lambda _: (_ for _ in ()).throw(raise_), undo=lambda: None)
        return Remembering(subject, config)

    return SimpleNamespace(
        INFO=ft.INFO,
        SEARCH={"layer": (0.0, 1.0), "learning_rate": (1e-9, 0.02)},
        default_config=lambda _: ft.FtConfig(layer=1, learning_rate=1.0, steps=40, stop_loss=0.05),
        create=create,
    )


def test_every_combination_is_tried_once_with_depths_as_layers() -> None:
    made = candidates({"layer": (0.0, 0.5, 0.52, 1.0), "rate": (1, 2)}, layers=3)
    assert made == [{"layer": layer, "rate": rate} for layer in (0, 1, 2) for rate in (1, 2)]


def test_a_span_of_layers_is_two_depths() -> None:
    made = candidates({"layers": ((0.0, 0.5), (0.5, 1.0), (0.2, 0.3))}, layers=5)
    assert made == [{"layers": (0, 1, 2)}, {"layers": (2, 3, 4)}, {"layers": (1,)}]


def test_a_layer_that_tracing_names_is_tried_as_well() -> None:
    made = candidates({"layer": (0.0, 1.0), "rate": (1, 2)}, layers=5, also_layers=[3, 4])
    assert made == [{"layer": layer, "rate": rate} for layer in (0, 4, 3) for rate in (1, 2)]


def test_the_score_by_hand() -> None:
    trial = Trial(
        values={}, cases=2, edit=(2, 2), paraphrase=(0, 2), neighbour_same=(1, 2), neighbour_target=(2, 2),
        failed=0, seconds=1.0,
    )  # fmt: skip
    # 3/4, 1/4, 2/4 and, of the wrong ones the others, 1/4
    assert trial.score == pytest.approx(4 / (4 / 3 + 4 + 2 + 4))


def test_what_is_tried_is_counted_and_the_best_is_written(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memedit.evaluation.tuning.load_method", lambda _: small())
    stages: list[tuple[str, int, int]] = []
    before = {name: value.clone() for name, value in subject.model.state_dict().items()}
    found = tune(
        "ft-m", subject, [case(number) for number in range(6)], out=tmp_path, data="own", limit=2,
        progress=lambda *told: stages.append(told),
    )  # fmt: skip
    assert all(value.equal(before[name]) for name, value in subject.model.state_dict().items())
    assert [trial.cases for trial in found.first] == [2] * 4
    assert [trial.cases for trial in found.second] == [4] * 3
    assert found.best.score == max(trial.score for trial in found.second)
    assert max(trial.edit for trial in found.first if trial.values["learning_rate"] == 0.02) == (2, 2)
    idle = next(trial for trial in found.first if trial.values == {"layer": 0, "learning_rate": 1e-9})
    assert (idle.edit[0], idle.neighbour_same) == (0, (2, 2))
    assert stages[-1] == ("second round", 12, 12)
    (entry,) = tomllib.loads((tmp_path / "ft_m.toml").read_text())["models"]
    assert (entry["model_type"], entry["layers"], entry["hidden_size"]) == ("llama", 3, 32)
    assert {name: entry["values"][name] for name in ("layer", "learning_rate")} == found.best.values
    assert ft.FtConfig(**entry["values"]).steps == 40, "what is not searched is kept"
    assert entry["chosen"]["second_records"] == "4 records of own, 2 to 5"
    assert len(entry["chosen"]["first_round"]) == 4


def test_rome_is_tried_at_the_layers_asked_for(subject: Subject, tmp_path: Path) -> None:
    found = tune("rome", subject, [case(number) for number in range(3)], out=tmp_path, limit=1, also_layers=[2])
    assert [trial.values["layer"] for trial in found.first] == [0, 0, 1, 1, 2, 2]
    assert [trial.values["learning_rate"] for trial in found.first] == 3 * [1.0, 2.0]
    (entry,) = tomllib.loads((tmp_path / "rome.toml").read_text())["models"]
    assert entry["values"]["layer"] == found.best.values["layer"]


def test_a_search_that_was_stopped_goes_on(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [case(number) for number in range(3)]
    tried: list[Any] = []
    monkeypatch.setattr("memedit.evaluation.tuning.load_method", lambda _: small(tried))
    whole = tune("ft-m", subject, cases, out=tmp_path / "whole", limit=1)
    assert len(tried) == 4 + 3 * 2
    lines = (tmp_path / "whole" / "trials.jsonl").read_text().splitlines(keepends=True)
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    (stopped / "trials.jsonl").write_text("".join(lines[:6]) + lines[6][: len(lines[6]) // 2])
    tried.clear()
    again = tune("ft-m", subject, cases, out=stopped, limit=1)
    assert len(tried) == 10 - 5
    assert again.best.values == whole.best.values
    assert [trial.edit for trial in again.second] == [trial.edit for trial in whole.second]


def test_another_search_in_the_folder_is_refused(subject: Subject, tmp_path: Path) -> None:
    (tmp_path / "trials.jsonl").write_text(json.dumps({"method": "grace"}) + "\n")
    with pytest.raises(ConfigError, match="is of another search"):
        tune("ft-m", subject, [case(number) for number in range(3)], out=tmp_path, limit=1)


def test_values_that_diverge_do_not_end_the_search(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memedit.evaluation.tuning.load_method", lambda _: small(fails=1e-9))
    found = tune("ft-m", subject, [case(number) for number in range(3)], out=tmp_path, limit=1)
    assert [trial.failed for trial in found.first] == [1, 0, 1, 0]


@pytest.mark.parametrize("name", TUNED)
def test_what_each_method_tries_are_fields_of_its_config(name: str, subject: Subject) -> None:
    module: Any = load_method(name)
    assert isinstance(module, Tunable)
    config = module.default_config(subject.model)
    assert set(module.SEARCH) <= set(type(config).__dataclass_fields__)
    for values in candidates(module.SEARCH, layers=3):
        type(config)(**{field: getattr(config, field) for field in type(config).__dataclass_fields__} | values)


def test_what_cannot_be_searched_is_told(subject: Subject, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ike has no hyperparameters to search\. Those that have: ft-m, ft-l, lora"):
        tune("ike", subject, [case(1)], out=tmp_path)
    with pytest.raises(ConfigError, match="adalora has no layer to choose; it searches learning_rate, steps"):
        tune("adalora", subject, [case(1)], out=tmp_path, also_layers=[1])
    with pytest.raises(ConfigError, match="needs 9 with one edit each; there are 1"):
        tune("ft-l", subject, [case(1)], out=tmp_path, limit=3)
    assert ft_l.SEARCH["norm_constraint"]
    assert set(TUNED) <= set(BUILT_IN)


def test_a_combination_is_set_up_once(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = small()
    made: list[Any] = []

    def create(subject: Subject, config: Any = None) -> Any:
        made.append(config)
        return method.create(subject, config)

    counting = SimpleNamespace(**{**vars(method), "create": create})
    monkeypatch.setattr("memedit.evaluation.tuning.load_method", lambda _: counting)
    tune("ft-m", subject, [case(number) for number in range(6)], out=tmp_path, limit=2)
    assert len(made) == 4 + 3
