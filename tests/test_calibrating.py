"""``calibrate``, in Python and on the command line: what is chosen from traffic, kept, refused, shown and forgotten."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hashing_encoder import HashingEncoder
from tiny import tiny_model, tiny_tokenizer
from typer.testing import CliRunner, Result

import memedit
from classifiers import SimilarityScope
from classifiers.false_fire import prompts_needed
from memedit import CalibrationError, Router, calibrate, question_query
from memedit.cli import app
from memedit.commands.exits import ExitCode
from memedit.commands.runtime import Runtime
from memedit.thresholds import SETTING, kept_threshold
from memedit.traffic import traffic_of
from memory_store import Edit, EditMemory

FACT = "The headquarters of Acme Rockets is in"
NEAR = "The headquarters of Acme Bananas is in"
"""A near miss: similar enough to fire at the classifier's own threshold, and wrong."""


def ordinary(count: int) -> list[str]:
    """Prompts that share no word with an edit."""
    return [f"Why do bananas number {place} ripen" for place in range(count)]


@pytest.fixture
def memory(tmp_path) -> Iterator[EditMemory]:
    with EditMemory(tmp_path / "facts.db", encoder=HashingEncoder(256)) as opened:
        opened.add(FACT, "Lisbon")
        yield opened


def router(memory: EditMemory, **options: Any) -> Router:
    assert memory.encoder is not None
    return Router(memory, memory.encoder, SimilarityScope(), **options)


# -- in Python ---------------------------------------------------------------------------------------------------------


def test_a_near_miss_raises_the_threshold_above_it_and_no_further(memory) -> None:
    by = router(memory)
    (near,) = by.route([question_query(NEAR)])
    assert near.governed
    found = calibrate(by, [*ordinary(700), NEAR], max_false_fire=0.01)
    chosen = found.chosen
    assert near.probability < chosen.threshold < near.probability + 1e-6
    assert (chosen.prompts, chosen.fires, chosen.edits, chosen.room_for) == (701, 0, 1, 2)
    assert (chosen.classifier_fingerprint, chosen.encoder_fingerprint) == (
        by.scope.fingerprint,
        memory.encoder.fingerprint,
    )
    assert chosen.version == memedit.__version__
    assert (found.before.threshold, found.distinct, found.kept) == (0.5, 701, True)
    assert kept_threshold(memory, "default") == chosen
    after, own = by.route([question_query(NEAR), question_query(FACT)])
    assert (after.governed, own.governed) == (False, True)
    assert "for at most 1% false fires" in own.reason


def test_where_nothing_fires_the_threshold_stays_the_classifiers_own(memory) -> None:
    found = calibrate(router(memory), ordinary(700), max_false_fire=0.01)
    assert found.chosen.threshold == 0.5
    assert kept_threshold(memory, "default") == found.chosen


def test_a_dry_run_keeps_nothing(memory) -> None:
    found = calibrate(router(memory), [*ordinary(700), NEAR], max_false_fire=0.01, keep=False)
    assert (found.kept, found.chosen.threshold > 0.5) == (False, True)
    assert memory.namespace_settings() == {}


def test_too_little_traffic_is_refused_and_says_how_much_would_do(memory) -> None:
    by = router(memory)
    calibrate(by, ordinary(700), max_false_fire=0.01)
    before = kept_threshold(memory, "default")
    with pytest.raises(CalibrationError, match="too little traffic") as caught:
        calibrate(by, ordinary(400), max_false_fire=0.01)
    needed = caught.value.prompts_needed
    assert needed == 598 == prompts_needed(max_false_fire=0.005, confidence=0.95)
    for part in ("at most 1% false fires with a confidence of 95%", "room for 2 edits", "400 prompts", "598 would do"):
        assert part in str(caught.value)
    assert kept_threshold(memory, "default") == before
    assert calibrate(by, ordinary(needed), max_false_fire=0.01).chosen.prompts == needed
    assert calibrate(by, ordinary(299), max_false_fire=0.01, room_for=1).chosen.room_for == 1
    with pytest.raises(CalibrationError, match="0 prompts show nothing"):
        calibrate(by, [], max_false_fire=0.01)


def test_prompts_of_probability_one_are_named(memory) -> None:
    certain = SimilarityScope(threshold_similarity=0.5, steepness=1e5)
    by = Router(memory, memory.encoder, certain)
    with pytest.raises(CalibrationError, match="No threshold keeps") as caught:
        calibrate(by, [*ordinary(700), FACT], max_false_fire=0.01)
    assert repr(FACT) in str(caught.value)
    assert "for 1 of 701 prompts" in str(caught.value)
    assert caught.value.prompts_needed is None
    assert memory.namespace_settings() == {}


def test_prompts_in_scope_are_left_out(memory) -> None:
    traffic = traffic_of([*ordinary(700), FACT, FACT, NEAR])
    strict = calibrate(router(memory), traffic, max_false_fire=0.01, keep=False)
    marked = calibrate(router(memory), traffic.marked({question_query(FACT)}), max_false_fire=0.01, keep=False)
    assert strict.chosen.threshold > marked.chosen.threshold > 0.5
    assert (marked.chosen.prompts, marked.chosen.in_scope) == (701, 2)
    assert [firing.prompt for firing in strict.highest[:2]] == [FACT, NEAR]
    assert [firing.prompt for firing in marked.highest[:1]] == [NEAR]
    assert strict.highest[0].edit.target == "Lisbon"
    assert strict.highest[0].probability > strict.highest[1].probability
    assert (strict.distinct, strict.chosen.prompts) == (702, 703)


def test_prompts_sent_often_count_often_and_are_read_once(memory) -> None:
    before = memory.encoder.texts_encoded
    told: list[tuple[str, int, int]] = []
    found = calibrate(
        router(memory), [*ordinary(5) * 140, NEAR], max_false_fire=0.01, progress=lambda *one: told.append(one)
    )
    assert memory.encoder.texts_encoded - before == 6
    assert (found.chosen.prompts, found.distinct) == (701, 6)
    assert told == [("routing prompts", 6, 6)]


def test_what_the_threshold_is_does_not_change_what_is_chosen(memory) -> None:
    by, traffic = router(memory), [*ordinary(700), NEAR]
    first = calibrate(by, traffic, max_false_fire=0.01).chosen
    second = calibrate(by, traffic, max_false_fire=0.01)
    assert second.chosen.threshold == first.threshold
    assert second.before.chosen == first


def test_each_namespace_is_calibrated_on_its_own_edits(memory) -> None:
    memory.add("The capital of Freedonia is", "Fredville", namespace="team")
    by = router(memory, namespaces=("default", "team"))
    traffic = [*ordinary(700), NEAR]
    with pytest.raises(ValueError, match="name one"):
        calibrate(by, traffic, max_false_fire=0.01)
    with pytest.raises(ValueError, match="not 'other'"):
        calibrate(by, traffic, max_false_fire=0.01, namespace="other")
    assert calibrate(by, traffic, max_false_fire=0.01, namespace="team").chosen.threshold == 0.5
    found = calibrate(by, traffic, max_false_fire=0.01, namespace="default")
    assert found.chosen.threshold > 0.5
    assert (found.namespace, found.chosen.edits) == ("default", 1)
    assert [one.threshold for one in by.thresholds()] == [found.chosen.threshold, 0.5]


def test_room_and_edits_must_make_sense(memory) -> None:
    with pytest.raises(CalibrationError, match=r"room for the 1 edits .* room_for is 0"):
        calibrate(router(memory), ordinary(10), max_false_fire=0.5, room_for=0)
    with pytest.raises(CalibrationError, match="No edit is in force in the namespace 'empty'"):
        calibrate(router(memory, namespaces=("empty",)), ordinary(10), max_false_fire=0.5)
    with pytest.raises(ValueError, match="confidence lies between"):
        calibrate(router(memory), ordinary(10), max_false_fire=0.5, confidence=1.0)


def test_the_promise_holds_end_to_end(memory) -> None:
    """Traffic of known composition through a real memory: in most draws at most the promised share fires."""
    memory.add_many(Edit(prompt=f"The mayor of town {place} is", target="Rufus") for place in range(40))
    by = router(memory)
    pool = [f"The mayor of {'town ' * (place % 4)}{place} {'x ' * (place % 7)}is" for place in range(2_000)]
    maxima = np.array([decision.probability for decision in by.route([question_query(text) for text in pool])])
    assert (maxima >= by.scope.threshold).mean() > 0.2
    generator = np.random.default_rng(0)
    failures = 0
    for _ in range(20):
        drawn = [pool[place] for place in generator.integers(0, len(pool), 400)]
        chosen = calibrate(by, drawn, max_false_fire=0.1, confidence=0.9, room_for=41, keep=False).chosen
        failures += (maxima >= chosen.threshold).mean() > 0.1
    assert failures <= 6  # of 20 draws; more than 6 come about once in 400 times where one in ten fails


# -- on the command line -----------------------------------------------------------------------------------------------


def tiny_edited_model(config, memory, progress):
    return memedit.wrap(tiny_model(), tiny_tokenizer(), memory=memory, namespace=config.namespace)


RUNTIME = Runtime(load_encoder=lambda name, progress: HashingEncoder(256, salt=name), load_model=tiny_edited_model)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("MEMORY", "CONFIG", "MODEL", "ENCODER", "NAMESPACE", "DEBUG"):
        monkeypatch.delenv(f"MEMEDIT_{name}", raising=False)
    monkeypatch.chdir(tmp_path)
    run("add", FACT, "Lisbon")
    lines = [*({"prompt": prompt} for prompt in ordinary(700)), {"question": NEAR}]
    Path("prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def run(*args: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(args), obj=RUNTIME)
    assert result.exit_code == code, result.output
    return result


def run_json(*args: str, code: int = 0) -> Any:
    (line,) = run(*args, "--json", code=code).stdout.splitlines()
    return json.loads(line)


def test_calibrate_keeps_a_threshold_and_tells_of_it(folder: Path) -> None:
    lines = run("calibrate", "--traffic", "prompts.jsonl").stdout.splitlines()
    assert lines[0].startswith("threshold: 0.")
    assert "(before: 0.5, the classifier's own)" in lines[0]
    assert "promise: at most 1% of prompts like these wrongly governed, with a confidence of 95%" in lines
    assert "room: for 2 edits; 1 when it was chosen" in lines
    assert "fires: 0 of 701 prompts (701 different)" in lines
    assert any(line.startswith("highest 1: ") and NEAR in line for line in lines)
    explained = run_json("explain", NEAR)
    assert (explained["governed"], explained["margin"] < 0) == (False, True)
    assert "chosen on " in explained["threshold_origin"]
    assert "margin -" in run("explain", NEAR).stdout
    assert "thresholds: chosen for default (memedit calibrate --show)" in run("stats").stdout.splitlines()
    assert run_json("stats")["settings"]["default"][SETTING]["prompts"] == 701


def test_calibrate_tells_a_program_everything(folder: Path) -> None:
    told = run_json("calibrate", "--traffic", "prompts.jsonl", "--dry-run", "--confidence", "0.9")
    assert (told["kept"], told["before"], told["namespace"]) == (False, 0.5, "default")
    assert told["threshold"] == told["chosen"]["threshold"] > 0.5
    assert (told["chosen"]["confidence"], told["chosen"]["traffic"]) == (0.9, "prompts.jsonl")
    assert told["highest"][0]["prompt"] == NEAR
    assert told["highest"][0]["fact"] == f"{FACT} Lisbon"
    assert run_json("calibrate", "--show")["chosen"] is None
    assert "dry run" in run("calibrate", "--traffic", "prompts.jsonl", "--dry-run").stderr


def test_prompts_can_be_marked_in_another_file(folder: Path) -> None:
    Path("right.txt").write_text(f"{NEAR}\n")
    told = run_json("calibrate", "--traffic", "prompts.jsonl", "--governed", "right.txt")
    assert (told["threshold"], told["chosen"]["in_scope"]) == (0.5, 1)
    assert "marked: 1 prompt as in scope, left out" in run("calibrate", "--show").stdout.splitlines()


def test_too_little_traffic_is_an_exit_code_and_changes_nothing(folder: Path) -> None:
    run("calibrate", "--traffic", "prompts.jsonl")
    before = run_json("calibrate", "--show")
    result = run("calibrate", "--traffic", "prompts.jsonl", "--max-false-fire", "0.001", code=ExitCode.REFUSED)
    assert "There is too little traffic" in result.stderr
    assert f"{prompts_needed(max_false_fire=0.0005, confidence=0.95):,} would do" in result.stderr
    assert run_json("calibrate", "--show") == before


def test_show_tells_what_the_threshold_was_chosen_from_and_when_it_lapses(folder: Path) -> None:
    assert "threshold: 0.5, the classifier's own" in run("calibrate", "--show").stdout.splitlines()
    run("calibrate", "--traffic", "prompts.jsonl")
    shown = run("calibrate", "--show").stdout
    for part in ("chosen on ", "prompts.jsonl, ", "SHA-256 ", "similarity at least 0.7", "fired: 0 of 701 prompts"):
        assert part in shown
    run("add", "a", "b")
    assert run_json("calibrate", "--show")["doubt"] is None
    run("add", "c", "d")
    outgrown = run("calibrate", "--show", code=ExitCode.NO)
    assert "promised for up to 2 edits and there are 3: calibrate again" in outgrown.stderr
    assert "calibrate again" in run_json("explain", FACT)["threshold_origin"]
    told = run_json("calibrate", "--show", code=ExitCode.NO)
    assert (told["in_force"], told["edits"]) == (True, 3)


def test_after_a_change_of_encoder_the_threshold_no_longer_counts(folder: Path) -> None:
    run("calibrate", "--traffic", "prompts.jsonl")
    run("reindex", "--encoder", "other")
    told = run_json("calibrate", "--show", code=ExitCode.NO)
    assert (told["in_force"], told["doubt"], told["threshold"]) == (False, "was chosen for another encoder", 0.5)


def test_reset_goes_back_and_the_history_stays(folder: Path) -> None:
    run("calibrate", "--traffic", "prompts.jsonl")
    assert "forgotten: the threshold is the classifier's own, 0.5" in run("calibrate", "--reset").stdout
    assert "unchanged" in run("calibrate", "--reset").stdout
    told = run_json("calibrate", "--show")
    assert (told["threshold"], told["chosen"]) == (0.5, None)
    assert [one["chosen"] is None for one in told["history"]] == [False, True]
    shown = run("calibrate", "--show").stdout.splitlines()
    assert [line.endswith("forgotten") for line in shown if line.startswith("earlier: ")] == [False, True]
    with EditMemory("memedit.db") as memory:
        memory.set_namespace_setting("default", SETTING, "damaged")
    assert "memedit calibrate --reset" in run("calibrate", "--show", code=ExitCode.REFUSED).stderr
    assert run_json("calibrate", "--reset")["forgotten"] is True
    assert run_json("calibrate", "--show")["threshold"] == 0.5


def test_a_namespace_has_a_threshold_of_its_own(folder: Path) -> None:
    run("add", FACT, "Porto", "--namespace", "team")
    run("calibrate", "--traffic", "prompts.jsonl", "--namespace", "team")
    assert run_json("calibrate", "--show")["chosen"] is None
    assert run_json("calibrate", "--show", "--namespace", "team")["chosen"]["edits"] == 1
    run("export", "default.jsonl")
    assert "not exported" not in run("export", "default.jsonl").stderr
    assert "not exported: the threshold chosen for team" in run("export", "t.jsonl", "--namespace", "team").stderr
    assert "not exported: the threshold chosen for team" in run("export", "t.jsonl", "-A").stderr


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        ([], ExitCode.USAGE, "give one of --traffic FILE, --show and --reset"),
        (["--show", "--reset"], ExitCode.USAGE, "give one of"),
        (["--traffic", "prompts.jsonl", "--max-false-fire", "0"], ExitCode.USAGE, "0.0 does not lie between 0 and 1"),
        (["--traffic", "prompts.jsonl", "--confidence", "1"], ExitCode.USAGE, "1.0 does not lie between 0 and 1"),
        (["--traffic", "none.jsonl"], ExitCode.REFUSED, "none.jsonl cannot be read"),
        (["--traffic", "prompts.jsonl", "--namespace", "empty"], ExitCode.REFUSED, "No edit is in force"),
    ],
)
def test_wrong_usage_and_missing_things_are_told(folder: Path, args: list[str], code: int, said: str) -> None:
    assert said in run("calibrate", *args, code=code).stderr
    assert run_json("calibrate", "--show")["history"] == []


@pytest.mark.parametrize("args", [["--show"], ["--reset"], ["--traffic", "prompts.jsonl"]], ids=lambda args: args[0])
def test_a_memory_that_is_not_there_is_not_made(folder: Path, args: list[str]) -> None:
    run("calibrate", *args, "--memory", "none.db", code=ExitCode.NOT_FOUND)
    assert not Path("none.db").exists()
