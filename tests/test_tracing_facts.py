"""Tracing a file of facts: which are known, going on after a kill, and averages against sums by hand."""

from __future__ import annotations

import json
import string
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_model, tiny_tokenizer

from memedit.errors import ConfigError, DataFileError
from memedit.fingerprints import model_fingerprint
from memedit.locate.answers import answers_known
from memedit.locate.averages import CATEGORIES, Averages, averages_of, category_of
from memedit.locate.facts import TraceFolder, read_facts, trace_facts, traced_layer
from memedit.locate.records import Fact
from memedit.locate.tracing import TraceConfig, Tracer

CONFIG = TraceConfig(kinds=("hidden", "mlp"), window=2, samples=2)
PROMPTS = (("I see AB now", "AB"), ("AB is CD", "AB"), ("The ABC", "ABC"), ("Of A he said", "A"))


def said(model: Any, prompt: str) -> str:
    """The model's likeliest next token."""
    tokenizer = tiny_tokenizer(None)
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer(prompt)["input_ids"]])).logits[0, -1]
    return str(tokenizer.decode([int(logits.argmax())]))


@pytest.fixture
def tracer() -> Tracer:
    return Tracer(tiny_model(), tiny_tokenizer(None), CONFIG)


@pytest.fixture
def facts(tracer: Tracer) -> list[Fact]:
    """Five facts: the model knows the first and the third; the subject of the last is not in its prompt.

    Prompts that end in a space, so that a random model can be right about what follows.
    """
    told = [
        (prompt, said(tracer.model, prompt)) for prompt in (f"{letter} AB sees " for letter in string.ascii_letters)
    ]
    known = [(prompt, answer) for prompt, answer in told if answer.strip() and answer.isascii()]
    (first, one), (second, two) = known[:2]
    return [
        Fact(prompt=first, subject="AB", answer=one),
        Fact(prompt=first, subject="AB", answer=f"{one}?!"),
        Fact(prompt=second, subject="AB", answer=two),
        Fact(prompt=second, subject="AB", answer="?" if two != "?" else "!"),
        Fact(prompt=first, subject="Z", answer=one),
    ]


def test_known_facts_are_traced_and_the_others_counted(tracer: Tracer, facts: list[Fact], tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    averages = trace_facts(
        tracer, facts, TraceFolder(tmp_path), name="tiny", progress=lambda *report: told.append(report)
    )
    assert (averages.asked, averages.known, averages.facts, averages.samples) == (5, 2, 2, 2)
    assert sorted(file.name for file in (tmp_path / "facts").iterdir()) == ["000000.json", "000002.json"]
    traces = [tracer.trace(facts[place]) for place in (0, 2)]
    for place, trace in zip((0, 2), traces, strict=True):
        kept = TraceFolder(tmp_path).trace(place)
        assert kept is not None
        assert replace(kept, seconds=0) == replace(trace, seconds=0)
    assert averages == averages_of(traces, model="tiny", asked=5, known=2)
    assert json.loads((tmp_path / "known.json").read_text()) == {"asked": 5, "known": [0, 2], "unreadable": [4]}
    assert told[0] == ("asking what is known", 0, 5)
    assert told[-1] == ("tracing", 2, 2)
    assert Averages.from_json(json.loads((tmp_path / "averages.json").read_text())) == averages


def test_a_run_that_was_killed_goes_on(tracer: Tracer, facts: list[Fact], tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    calls = []
    trace = tracer.trace

    def counted(fact: Fact, **options: Any) -> Any:
        calls.append(fact.prompt)
        if len(calls) == 2:
            raise Killed
        return trace(fact, **options)

    tracer.trace = counted  # type: ignore[method-assign]
    with pytest.raises(Killed):
        trace_facts(tracer, facts, TraceFolder(tmp_path), name="tiny")
    averages = trace_facts(tracer, facts, TraceFolder(tmp_path), name="tiny")
    assert calls == [facts[0].prompt, facts[2].prompt, facts[2].prompt]
    again = trace_facts(tracer, facts, TraceFolder(tmp_path), name="tiny")
    assert len(calls) == 3
    assert again == averages


def test_no_more_facts_are_asked_than_are_wanted(tracer: Tracer, facts: list[Fact], tmp_path: Path) -> None:
    assert trace_facts(tracer, facts, TraceFolder(tmp_path), name="tiny", limit=1).facts == 1
    assert trace_facts(tracer, facts, TraceFolder(tmp_path), name="tiny", limit=2).facts == 2


def test_a_folder_names_the_layer_of_its_mlps(tracer: Tracer, facts: list[Fact], tmp_path: Path) -> None:
    trace_facts(tracer, facts, TraceFolder(tmp_path / "both"), name="tiny")
    fingerprint = model_fingerprint(tracer.model)
    at_subject = [
        np.array(trace.effect("mlp").indirect)[trace.subject_end - 1]
        for trace in (tracer.trace(facts[place]) for place in (0, 2))
    ]
    assert traced_layer(tmp_path / "both", fingerprint=fingerprint) == int(np.mean(at_subject, axis=0).argmax())
    with pytest.raises(ConfigError, match="holds traces of another model, 'tiny'"):
        traced_layer(tmp_path / "both", fingerprint="other")
    with pytest.raises(DataFileError, match=r"run\.json cannot be read"):
        traced_layer(tmp_path / "nowhere", fingerprint=fingerprint)
    tracer.config = replace(CONFIG, kinds=("hidden",))
    trace_facts(tracer, facts, TraceFolder(tmp_path / "hidden"), name="tiny")
    with pytest.raises(DataFileError, match="has no averages of MLPs; trace the facts with mlp"):
        traced_layer(tmp_path / "hidden", fingerprint=fingerprint)


@pytest.mark.parametrize("changed", [{"window": 1}, {"samples": 1}, {"seed": 1}])
def test_a_folder_of_other_traces_is_refused(
    changed: dict[str, Any], tracer: Tracer, facts: list[Fact], tmp_path: Path
) -> None:
    trace_facts(tracer, facts, TraceFolder(tmp_path), name="tiny", limit=1)
    other = Tracer(tracer.model, tracer.tokenizer, replace(CONFIG, **changed))
    with pytest.raises(ConfigError, match=r"holds traces that differ in config .*Name another folder"):
        trace_facts(other, facts, TraceFolder(tmp_path), name="tiny")
    with pytest.raises(ConfigError, match="differ in facts"):
        trace_facts(tracer, facts[:2], TraceFolder(tmp_path), name="tiny")
    with TraceFolder(tmp_path).locked(), pytest.raises(ConfigError, match="Another process is writing"):
        trace_facts(tracer, facts, TraceFolder(tmp_path), name="tiny")


def test_a_damaged_trace_is_named(tracer: Tracer, facts: list[Fact], tmp_path: Path) -> None:
    trace_facts(tracer, facts, TraceFolder(tmp_path), name="tiny")
    file = tmp_path / "facts" / "000000.json"
    for content in ("{", "[]", '{"prompt": "x"}'):
        file.write_text(content)
        with pytest.raises(DataFileError, match=r"000000\.json.*Delete it, and the fact is traced again"):
            trace_facts(tracer, facts, TraceFolder(tmp_path), name="tiny")


def test_a_model_that_knows_nothing(tracer: Tracer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="knows none of the 1 facts"):
        trace_facts(tracer, [Fact(prompt="AB is", subject="AB", answer="Rome")], TraceFolder(tmp_path), name="tiny")


def test_what_a_model_knows_is_asked_in_batches(tracer: Tracer, facts: list[Fact]) -> None:
    assert answers_known(tracer.model, tracer.tokenizer, facts[:4]) == [True, False, True, False]
    assert [tracer.knows(fact) for fact in facts[:4]] == [True, False, True, False]
    assert answers_known(tracer.model, tracer.tokenizer, []) == []


# Reading.


def test_facts_are_read(tmp_path: Path) -> None:
    file = tmp_path / "facts.jsonl"
    file.write_text('{"prompt": "A is in", "subject": "A", "attribute": "B", "known_id": 3}\n')
    assert read_facts(file) == [Fact(prompt="A is in", subject="A", answer="B")]
    file.write_text('{"prompt": "A is in", "subject": "A", "answer": "B"}\n{"prompt": "C is in", "subject": "C"}\n')
    with pytest.raises(DataFileError, match=r"facts\.jsonl:2: the field 'attribute' is missing"):
        read_facts(file)
    file.write_text("{\n")
    with pytest.raises(DataFileError, match=r"facts\.jsonl"):
        read_facts(file)
    file.write_text("")
    with pytest.raises(DataFileError, match="holds no facts"):
        read_facts(file)


# Averages.


def test_each_token_has_one_category(tracer: Tracer) -> None:
    trace = tracer.trace(Fact(prompt="I ABCD do so", subject="ABCD"))
    names = [category_of(token, trace) for token in range(len(trace.tokens))]
    first, middle, last, after, further, end = CATEGORIES
    assert names == [None, None, first, middle, middle, last, after, *[further] * 4, end]
    short = tracer.trace(Fact(prompt="I do A", subject="A"))
    assert [category_of(token, short) for token in (4, 5)] == [None, last]
    two = tracer.trace(Fact(prompt="A b", subject="A"))
    assert [category_of(token, two) for token in range(3)] == [last, after, end]


def test_averages_by_hand(tracer: Tracer) -> None:
    traces = [tracer.trace(Fact(prompt=prompt, subject=name)) for prompt, name in PROMPTS]
    averages = averages_of(traces, model="tiny", asked=9, known=4)
    assert averages.total_effect.value == pytest.approx(np.mean([one.clean - one.corrupted for one in traces]))
    for kind in CONFIG.kinds:
        rows = [one.effect(kind).indirect[one.subject_end - 1] for one in traces]
        effect = averages.effect(kind, "last subject token")
        assert effect.facts == 4
        assert [mean.value for mean in effect.layers] == pytest.approx(np.mean(rows, axis=0))
        # of "The ABC" and of one-letter subjects there is no token behind or before
        further = averages.effect(kind, "further tokens")
        grids = [np.array(one.effect(kind).indirect) for one in traces]
        assert further.facts == 3
        assert averages.effect(kind, "first subject token").facts == 3
        assert averages.effect(kind, "middle subject tokens").facts == 1
        expected = np.mean([grids[0][9:-1].mean(0), grids[1][3:-1].mean(0), grids[3][5:-1].mean(0)], axis=0)
        assert [mean.value for mean in further.layers] == pytest.approx(expected)
    for mean in averages.effect("hidden", "last token").layers:
        assert mean.low <= mean.value <= mean.high
    assert averages.total_effect.low < averages.total_effect.high
    (one,) = [averages_of(traces[:1], model="tiny", asked=1, known=1)]
    assert one.total_effect.low == one.total_effect.value == one.total_effect.high
    with pytest.raises(KeyError):
        averages.effect("attention", "last token")
