from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_store import Edit, EditMemory, InvalidEditError
from memory_store.identity import content_hash, keys_of
from memory_store.records import (
    MAX_METADATA_BYTES,
    MAX_NAMESPACE_CHARACTERS,
    MAX_OTHER_TEXTS,
    MAX_TEXT_CHARACTERS,
    checked,
)

CAPITAL = Edit(prompt="The capital of France is", target="Lyon")
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40).filter(str.strip)


def test_a_fact_joins_prompt_and_target_with_one_space():
    assert CAPITAL.fact == "The capital of France is Lyon"
    assert Edit(prompt="Where is Acme based? ", target=" Lisbon").fact == "Where is Acme based? Lisbon"


def test_texts_are_prompt_fact_paraphrases_and_aliases_without_duplicates():
    edit = Edit(
        prompt="Acme is based in",
        target="Lisbon",
        subject="Acme",
        aliases=("Acme Corp", "ACME"),
        paraphrases=("Where is Acme?", "Acme is based in", "Acme is based in Lisbon"),
    )
    assert [(text.kind, text.text) for text in edit.texts()] == [
        ("prompt", "Acme is based in"),
        ("fact", "Acme is based in Lisbon"),
        ("paraphrase", "Where is Acme?"),
        ("alias", "Acme Corp is based in"),
        ("alias", "ACME is based in"),
    ]


def test_an_alias_needs_the_subject_in_the_prompt():
    assert len(replace(CAPITAL, subject="Gaul", aliases=("Gallia",)).texts()) == 2
    assert len(replace(CAPITAL, aliases=("Gallia",)).texts()) == 2


@given(
    prompt=TEXT,
    target=TEXT,
    aliases=st.lists(TEXT, max_size=3),
    expires=st.none() | st.datetimes(timezones=st.just(UTC)),
    metadata=st.dictionaries(TEXT, st.none() | st.integers() | TEXT | st.lists(st.booleans()), max_size=3),
)
def test_json_and_back_is_the_same_edit(prompt, target, aliases, expires, metadata):
    edit = checked(Edit(prompt=prompt, target=target, aliases=tuple(aliases), expires_at=expires, metadata=metadata))
    assert Edit.from_json(json.loads(json.dumps(edit.to_json()))) == edit


def test_an_unknown_key_names_the_nearest_known_one():
    with pytest.raises(InvalidEditError, match=r"'promt'.*Did you mean 'prompt'"):
        Edit.from_json({"promt": "x", "target": "y"})
    with pytest.raises(InvalidEditError, match="Did you mean 'subject'"):
        CAPITAL.changed(subjekt="France")


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"prompt": "x"}, "no target"),
        ({"target": "x"}, "no prompt"),
        ({"prompt": "x", "target": "y", "aliases": "z"}, "aliases must be a list"),
        ({"prompt": "x", "target": "y", "aliases": [1]}, "aliases must hold texts"),
        ({"prompt": "x", "target": "y", "expires_at": "soon"}, "ISO 8601"),
        ({"prompt": "x", "target": "y", "expires_at": "2030-01-01T00:00:00"}, "time zone"),
        ({"prompt": "x", "target": "y", "state": "gone"}, "state is one of"),
        (["prompt"], "JSON object"),
    ],
)
def test_json_that_is_no_edit_is_refused(mapping, message):
    with pytest.raises(InvalidEditError, match=message):
        Edit.from_json(mapping)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"target": " \n\t"}, "target is empty"),
        ({"prompt": "a\0b"}, "NUL character at position 1"),
        ({"target": "a\ud800"}, "surrogate pair at position 1"),
        ({"target": "x" * (MAX_TEXT_CHARACTERS + 1)}, "20,001 characters"),
        ({"prompt": "x" * 1_000_000}, "1,000,000 characters"),
        ({"subject": ""}, "subject is empty"),
        ({"prompt": 3}, "prompt must be text, not int"),
        ({"paraphrases": "abc"}, "list of texts"),
        ({"paraphrases": ("ok", " ")}, "paraphrases is empty"),
        ({"aliases": ("a",) * 500, "paraphrases": ("b",) * (MAX_OTHER_TEXTS - 499)}, "1,001"),
        ({"namespace": ""}, "1 to 200"),
        ({"namespace": "n" * (MAX_NAMESPACE_CHARACTERS + 1)}, "1 to 200"),
        ({"namespace": "a\nb"}, "printable"),
        ({"expires_at": datetime(2030, 1, 1)}, "time zone"),  # noqa: DTZ001 - what is refused
        ({"metadata": {"a": float("nan")}}, "JSON"),
        ({"metadata": {"a": object()}}, "JSON"),
        ({"metadata": {1: "a"}}, "mapping from strings"),
        ({"metadata": {"a": "x" * MAX_METADATA_BYTES}}, "65,5"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_name(changes, message):
    with pytest.raises(InvalidEditError, match=message):
        checked(replace(CAPITAL, **changes))


def test_the_largest_allowed_edit_is_accepted():
    largest = replace(
        CAPITAL,
        target="x" * MAX_TEXT_CHARACTERS,
        paraphrases=tuple(f"{n}" for n in range(MAX_OTHER_TEXTS)),
        namespace="n" * MAX_NAMESPACE_CHARACTERS,
    )
    assert checked(largest) == largest


def test_times_are_brought_to_utc():
    east = timezone(timedelta(hours=2))
    assert checked(replace(CAPITAL, expires_at=datetime(2030, 1, 1, 2, tzinfo=east))).expires_at == datetime(
        2030, 1, 1, tzinfo=UTC
    )


def test_a_draft_does_not_share_its_metadata():
    mutable = {"tags": ["a"]}
    kept = checked(replace(CAPITAL, metadata=mutable))
    mutable["tags"].append("b")
    assert kept.metadata == {"tags": ["a"]}


def test_composition_spacing_and_prompt_case_do_not_make_another_fact():
    composed = Edit(prompt="Caf\u00e9 Zo\u00eb is in", target="Paris")
    decomposed = Edit(prompt="cafe\u0301   zoe\u0308 IS in\n", target=" Paris")
    assert keys_of(composed) == keys_of(decomposed)
    assert keys_of(composed).fact != keys_of(replace(composed, target="paris")).fact
    assert content_hash(composed) == content_hash(replace(composed, prompt="Cafe\u0301 Zoe\u0308  is in"))
    assert content_hash(composed) != content_hash(replace(composed, namespace="other"))


def test_an_edit_can_be_a_member_of_a_set():
    assert len({CAPITAL, replace(CAPITAL), replace(CAPITAL, target="Nice")}) == 2


def test_texts_are_stored_as_given():
    with EditMemory() as memory:
        assert memory.count() == 0
    draft = Edit(prompt="  Cafe\u0301  is in ", target=" Paris ")
    assert checked(draft).prompt == draft.prompt
