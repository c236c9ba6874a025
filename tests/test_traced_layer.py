"""``benchmarks.traced_layer``: the same effects and edits as the library's own, and choices of layers by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hashing_encoder import HashingEncoder
from tiny import tiny_model, tiny_tokenizer

from benchmarks.traced_layer import (
    LAYERS,
    Log,
    Measured,
    Task,
    Trial,
    changes_of,
    choices,
    correlations,
    effects_of,
    explained,
    measured,
)
from memedit.editors.rome import RomeEditor, default_config
from memedit.editors.subject import Subject
from memedit.errors import ConfigError
from memedit.locate.records import Fact
from memedit.locate.tracing import TraceConfig, Tracer
from memory_store import Edit


def test_effects_are_those_of_a_whole_trace() -> None:
    tracer = Tracer(tiny_model(), tiny_tokenizer(None), TraceConfig(kinds=("mlp", "hidden"), samples=3, window=2))
    fact = Fact(prompt="On AB lie", subject="AB", answer="x")
    trace = tracer.trace(fact)
    found = effects_of(tracer, fact)
    assert list(found) == ["mlp", "hidden"]
    for kind, effects in found.items():
        assert effects == pytest.approx(trace.effect(kind).indirect[trace.subject_end - 1], abs=1e-7)


def test_edits_are_those_of_rome() -> None:
    subject = Subject(tiny_model(scale=2), tiny_tokenizer(), HashingEncoder(), name="tiny")
    config = replace(
        default_config(subject.model), layer=1, steps=4, wording="plain", contexts=2, statistics="identity"
    )
    facts = [Fact(prompt=f"Town {letter} is in", subject=f"Town {letter}", answer="x") for letter in "AB"]
    tasks = [Task(fact=fact, target="Rome", rephrasing="", neighbours=()) for fact in facts]
    before = {name: value.clone() for name, value in subject.model.state_dict().items()}
    changes = list(changes_of(subject, tasks, config))
    assert all(value.equal(before[name]) for name, value in subject.model.state_dict().items())
    editor = RomeEditor(subject, config)
    for fact, (name, value) in zip(facts, changes, strict=True):
        editor.edit([Edit(prompt=fact.prompt, target="Rome", subject=fact.subject)])
        moved = (subject.model.get_parameter(name) - before[name]).norm()
        assert (subject.model.get_parameter(name) - value).norm() < 1e-3 * moved
        editor.undo()


def by_hand() -> Measured:
    """Three facts, two edited layers of three; the first fact's traced layer is the best one."""
    score = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    return Measured(
        effects={"mlp": np.array([[0.5, 0.2, 0.1], [0.4, 0.1, 0.0], [0.0, 0.1, 0.6]])},
        edit=score, rephrased=score, kept=score, score=score, layers=(0, 2),
    )  # fmt: skip


def test_choices_by_hand() -> None:
    made = choices(by_hand())
    assert made["its own traced layer (mlp)"].tolist() == [0.9, 0.2, 0.7]
    # two of three traced layers are layer 0
    assert made["the traced layers dealt at random (mlp)"] == pytest.approx([1.9 / 3, 1.2 / 3, 1.3 / 3])
    assert made["layer 0, which tracing names on average (mlp)"].tolist() == [0.9, 0.2, 0.3]
    assert made["the layer that is best for the other facts"].tolist() == [0.1, 0.2, 0.3]
    assert made["the best layer for itself, known afterwards"].tolist() == [0.9, 0.8, 0.7]


def test_a_fact_that_no_layer_serves_has_no_best_layer() -> None:
    found = by_hand()
    none = replace(found, score=np.array([[0.9, 0.1], [0.2, 0.8], [0.0, 0.0]]))
    assert none.best().tolist() == [0, 1, -1]


def test_variance_and_correlation_by_hand() -> None:
    found = by_hand()
    score = found.score
    residual = score - score.mean(axis=0)
    alone, together = explained(found, "mlp")
    assert alone == pytest.approx(1 - (residual**2).sum() / ((score - score.mean()) ** 2).sum())
    assert alone < together <= 1
    # of layer 0 the order of effects is 0.5, 0.4, 0.0, that of scores 0.9, 0.2, 0.3; of layer 2 it is 0.1, 0.0, 0.6
    assert correlations(found, "mlp") == pytest.approx([0.5, -0.5])


def test_trials_stand_by_fact_and_layer_and_a_score_is_a_harmonic_mean() -> None:
    trials = [
        Trial(prompt=prompt, layer=layer, edit=layer / 100, rephrased=0.5, kept=float(prompt == "a"))
        for prompt in "ab"
        for layer in LAYERS
    ]
    found = measured([{"mlp": [0.0] * 30}, {"mlp": [1.0] * 30}], trials)
    assert found.edit.tolist() == [[layer / 100 for layer in LAYERS]] * 2
    assert found.score[0] == pytest.approx([3 / (100 / layer + 2 + 1) for layer in LAYERS])
    assert found.score[1].tolist() == [0] * len(LAYERS)


def test_what_was_measured_is_gone_on_with(tmp_path: Path) -> None:
    Log(tmp_path / "log", {"of": (1, 2)}).add({"a": 1})
    assert Log(tmp_path / "log", {"of": (1, 2)}).rows == [{"a": 1}]
    with pytest.raises(ConfigError, match="is of something else"):
        Log(tmp_path / "log", {"of": (1, 3)})
