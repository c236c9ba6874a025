"""Cases and probes: what they refuse, their JSON, what a model may see of them, and probes behind a context."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memedit import InvalidCaseError
from memedit.evaluation import (
    CaseSource,
    Condition,
    EvalCase,
    Probe,
    ProbeGroup,
    ProbePrompt,
    Reference,
    Turn,
    after_document,
    after_passage,
    after_turns,
    coinciding_probes,
    conflicting,
)
from memory_store import Edit

EDIT = Edit(prompt="The headquarters of Acme Rockets is in", target="Lisbon", subject="Acme Rockets")


def asked(kind: Any = "edit", text: str = EDIT.prompt, answers: tuple[str, ...] = ("Lisbon",), **others: Any) -> Probe:
    old = others.pop("old", ("Porto",))
    return Probe(
        kind=kind, prompt=ProbePrompt(text=text), reference=Reference(answers=answers, old_answers=old), **others
    )


def case(*probes: Probe, name: str = "1", edit: Edit = EDIT) -> EvalCase:
    return EvalCase(id=name, edits=(edit,), probes=probes)


FULL = EvalCase(
    id="full",
    edits=(EDIT, replace(EDIT, prompt="Acme Rockets was founded by", target="Ada")),
    probes=(
        asked(of_edit=0, subject="Acme Rockets"),
        Probe(
            kind="multi_hop",
            prompt=ProbePrompt(
                text="Which river?", form="question", turns=(Turn("user", "Hi"), Turn("assistant", "Yes"))
            ),
            reference=Reference(answers=("Tagus", "Tejo"), old_answers=("Douro",)),
            hops=2,
            group=ProbeGroup("rivers", "any"),
            conditions=(
                Condition(
                    prompt=ProbePrompt(text="Which river runs through Lisbon?", form="question"),
                    reference=Reference(answers=("Tagus",)),
                ),
            ),
        ),
        Probe(
            kind="yes_no",
            prompt=ProbePrompt(text="Is it in Lisbon?", form="question"),
            reference=Reference(answers=("yes",), form="yes_no"),
            of_edit=1,
        ),
        after_turns(asked(of_edit=0)),
        asked("unrelated", "The capital of Peru is", (), old=()),
    ),
    source=CaseSource("own", "records.jsonl", 7),
    topic="companies",
)


def test_json_gives_a_case_back() -> None:
    assert EvalCase.from_json(json.loads(json.dumps(FULL.to_json()))) == FULL


TEXT = st.text(min_size=1).filter(lambda text: text.strip() and "\0" not in text)


@given(text=TEXT, answers=st.lists(TEXT, min_size=1), old=st.lists(TEXT), hops=st.none() | st.integers(0, 9))
def test_json_gives_any_probe_back(text: str, answers: list[str], old: list[str], hops: int | None) -> None:
    probe = asked("paraphrase", text, tuple(answers), old=tuple(old), hops=hops)
    assert Probe.from_json(json.loads(json.dumps(probe.to_json()))) == probe


def test_json_says_what_may_be_left_out() -> None:
    read = EvalCase.from_json(
        {
            "id": "1",
            "edits": [{"prompt": "a", "target": "b"}],
            "probes": [
                {"kind": "paraphrase", "prompt": "Who?", "answers": ["b"]},
                {"kind": "yes_no", "prompt": "Is it b?", "answers": ["yes"]},
            ],
        }
    )
    assert [probe.prompt.form for probe in read.probes] == ["question", "question"]
    assert [probe.reference.form for probe in read.probes] == ["short", "yes_no"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"probs": []}, "no field 'probs'. Did you mean 'probes'?"),
        ({"id": None}, "'id' is missing"),
        ({"id": 7}, "'id' must be text, not int"),
        ({"id": " "}, "'id' is empty"),
        ({"edits": {}}, "'edits' must be a list"),
        ({"edits": ["x"]}, "'edits[0]'"),
        ({"edits": [{"prompt": "a", "target": ""}]}, "'edits[0]': target is empty"),
        (
            {"edits": [{"prompt": "a", "taget": "b"}]},
            "'edits[0]': An edit has no field 'taget'. Did you mean 'target'?",
        ),
        ({"probes": [{}]}, "'probes[0]': 'prompt' is missing"),
        ({"probes": [{"kind": "edit", "prompt": "a"}]}, "'probes[0]': 'answers' is empty"),
        ({"probes": [{"kind": "edit", "prompt": "a", "answer": ["b"]}]}, "Did you mean 'answers'?"),
        ({"probes": [{"kind": "edit", "prompt": "a", "answers": "b"}]}, "'answers' must be a list"),
        ({"probes": [{"kind": "edit", "prompt": "a", "answers": [1]}]}, "'answers' must be text, not int"),
        ({"probes": [{"kind": "edit", "prompt": 1, "answers": ["b"]}]}, "'prompt' must be text"),
        ({"probes": [{"kind": "paraphase", "prompt": "a", "answers": ["b"]}]}, "Did you mean 'paraphrase'?"),
        ({"probes": [{"kind": "edit", "prompt": "a", "answers": ["b"], "form": "chat"}]}, "'form' is one of"),
        ({"probes": [{"kind": "edit", "prompt": "a", "answers": ["b"], "of_edit": 1}]}, "the case has 1 edits"),
        ({"probes": [{"kind": "edit", "prompt": "a", "answers": ["b"], "of_edit": -1}]}, "not negative"),
        ({"probes": [{"kind": "edit", "prompt": "a", "answers": ["b"], "hops": True}]}, "'hops' must be a number"),
        ({"probes": [{"kind": "edit", "prompt": "a", "answers": ["b"], "group": {"id": "x"}}]}, "'rule' is missing"),
        ({"probes": [{"kind": "edit", "prompt": "a", "answers": ["b"], "turns": [{"role": "me"}]}]}, "'turns[0]'"),
        ({"probes": [{"kind": "yes_no", "prompt": "a", "answers": ["maybe"]}]}, "'yes' or 'no'"),
        ({"probes": [{"kind": "after_turns", "prompt": "a", "answers": ["b"]}]}, "'base_kind'"),
        ({"probes": [{"kind": "edit", "prompt": "a", "answers": ["b"], "base_kind": "edit"}]}, "'base_kind'"),
        ({"source": {"file": "x"}}, "'dataset' is missing"),
        ({"source": {"dataset": "x", "file": "y", "line": "3"}}, "'line' must be a number"),
        ({"topic": 3}, "'topic' must be text"),
    ],
)
def test_a_wrong_case_is_told(change: dict[str, Any], complaint: str) -> None:
    whole = {"id": "1", "edits": [{"prompt": "a", "target": "b"}], "probes": [], **change}
    with pytest.raises(InvalidCaseError) as caught:
        EvalCase.from_json(whole)
    assert complaint in str(caught.value)


def test_a_case_is_an_object() -> None:
    with pytest.raises(InvalidCaseError, match="must be a JSON object, not list"):
        EvalCase.from_json([])  # type: ignore[arg-type] # what is tested


def test_one_answer_is_still_a_list() -> None:
    with pytest.raises(InvalidCaseError, match="'answers' must be several texts"):
        Reference(answers="Lisbon")  # type: ignore[arg-type] # what is tested


def test_a_prompt_has_no_room_for_an_answer() -> None:
    """What a runner hands on cannot reach the reference: no field of a prompt holds one, nor does what it makes."""
    assert {one.name for one in fields(ProbePrompt)} == {"text", "turns", "form"}
    for probe in FULL.probes:
        if probe.kind != "yes_no":
            assert not any(answer in repr(probe.prompt.messages()) for answer in probe.reference.answers)


def test_an_edit_may_not_hold_the_question_it_is_tested_with() -> None:
    told = replace(EDIT, paraphrases=("Where is  Acme Rockets based?",))
    with pytest.raises(InvalidCaseError, match=r"probes\[0\].*paraphrase that the edit itself holds"):
        case(asked("paraphrase", "where is Acme Rockets based?"), edit=told)
    case(asked("paraphrase", "In which city is Acme Rockets?"), edit=told)


def test_messages_end_with_the_text() -> None:
    assert FULL.probes[1].prompt.messages() == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes"},
        {"role": "user", "content": "Which river?"},
    ]


@pytest.mark.parametrize("kind", ["same_subject", "same_relation", "forgetfulness", "unrelated"])
def test_near_misses_are_out_of_scope_and_need_no_answer(kind: str) -> None:
    probe = asked(kind, "The capital of Peru is", ())
    assert not probe.in_scope
    assert not after_passage(probe, ["A passage."]).in_scope


def test_coinciding_probes_are_those_that_ask_for_an_edit() -> None:
    other = Edit(prompt="The capital of Peru is", target="Cusco")
    cases = [
        case(asked("same_relation", "The  capital of PERU is", ()), asked("unrelated", "Who?", ()), name="first"),
        case(asked("paraphrase", "Peru's capital:", ("Cusco",)), name="second", edit=other),
        case(asked("unrelated", "Peru's capital:", ()), asked("paraphrase", "The capital of Peru is"), name="third"),
    ]
    assert coinciding_probes(cases) == {"first": (0,), "third": (0,)}
    assert coinciding_probes(cases[:1]) == {}


def test_a_conflict_has_the_old_answer_first() -> None:
    made = conflicting(case(asked(of_edit=0)))
    assert made is not None
    assert [edit.target for edit in made.edits] == ["Porto", "Lisbon"]
    assert [edit.prompt for edit in made.edits] == [EDIT.prompt] * 2
    (probe,) = made.probes
    assert (probe.kind, probe.of_edit, probe.reference.answers) == ("conflict", 1, ("Lisbon",))
    assert conflicting(case(asked(of_edit=0, old=()))) is None
    assert conflicting(case()) is None


PASSAGES = ["Rain fell on the hills.", "Lisbon is large.", "PORTO is old.", "Cats sleep a lot.", "On acme rockets."]


def test_a_passage_stands_before_the_question() -> None:
    base = asked(of_edit=0, subject="Acme Rockets")
    made = after_passage(base, PASSAGES, seed=3)
    passage, _, question = made.prompt.text.partition("\n\n")
    assert question == base.prompt.text
    assert passage in {"Rain fell on the hills.", "Cats sleep a lot."}
    assert (made.kind, made.base_kind, made.reference) == ("after_passage", "edit", base.reference)
    assert made == after_passage(base, PASSAGES, seed=3)
    assert len({after_passage(base, PASSAGES, seed=seed).prompt.text for seed in range(20)}) == 2
    with pytest.raises(InvalidCaseError, match="'passages'"):
        after_passage(base, PASSAGES[1:3])
    with pytest.raises(InvalidCaseError, match="behind a context already"):
        after_passage(made, PASSAGES)


def test_only_words_are_passed_over() -> None:
    """ "yes" and "no" are no names, and a name inside another word is none."""
    verdict = Probe(
        kind="yes_no", prompt=ProbePrompt(text="Is it?"), reference=Reference(answers=("no",), form="yes_no")
    )
    assert after_passage(verdict, ["There is no snow."]).prompt.text.startswith("There is no snow.")
    assert after_passage(asked(answers=("Rome",)), ["Chrome shines."]).prompt.text.startswith("Chrome")


def test_a_document_is_as_long_as_asked_and_repeats_nothing() -> None:
    paragraphs = [f"Paragraph {number} has five words." for number in range(100)]
    made = after_document(asked(), paragraphs, words=50, seed=1)
    *document, question = made.prompt.text.split("\n\n")
    assert question == EDIT.prompt
    assert len(document) == len(set(document)) == 10
    assert set(document) <= set(paragraphs)
    assert made == after_document(asked(), paragraphs, words=50, seed=1)
    assert made != after_document(asked(), paragraphs, words=50, seed=2)
    with pytest.raises(InvalidCaseError, match="hold 500 usable words"):
        after_document(asked(), paragraphs, words=501)


def test_turns_mention_the_old_answer_only() -> None:
    made = after_turns(asked(of_edit=0), seed=5)
    assert [turn.role for turn in made.prompt.turns] == ["user", "assistant"]
    assert all("Porto" in turn.content and "Lisbon" not in turn.content for turn in made.prompt.turns)
    assert made.prompt.text == EDIT.prompt
    assert made == after_turns(asked(of_edit=0), seed=5)
    assert len({after_turns(asked(), seed=seed).prompt.turns for seed in range(30)}) > 3
    with pytest.raises(InvalidCaseError, match="'old_answers' is empty"):
        after_turns(asked(old=()))
