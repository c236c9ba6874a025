from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from chat_templates import FAMILIES, Family, family_tokenizer
from tiny import tiny_tokenizer

from memedit.chat_format import ChatFormat, Turn

SYSTEM = {"role": "system", "content": "Answer briefly,\nin one line."}
USER = {"role": "user", "content": "Where is Acme based?\n\nSay the city: [a] or <b>."}
ASSISTANT = {"role": "assistant", "content": "In Lisbon."}
FOLLOWING = {"role": "user", "content": "And since when?"}

CONVERSATIONS = {
    "question": [USER],
    "second question": [USER, ASSISTANT, FOLLOWING],
    "answered": [USER, ASSISTANT],
    "system": [SYSTEM, USER],
    "system and second question": [SYSTEM, USER, ASSISTANT, FOLLOWING],
}


def expected(family: Family, messages: list[dict[str, str]]) -> list[tuple[str, str]] | None:
    """The turns that a parse has to find; None where the template refuses the conversation."""
    turns = [(message["role"], message["content"]) for message in messages]
    if messages[0]["role"] != "system":
        return [("system", family.default_system), *turns] if family.default_system else turns
    match family.system:
        case "refused":
            return None
        case "merged":
            return [("user", f"{turns[0][1]}\n\n{turns[1][1]}"), *turns[2:]]
        case _:
            return turns


def learnt(family: Family) -> tuple[ChatFormat, Any]:
    tokenizer = family_tokenizer(family)
    chat_format = ChatFormat.from_tokenizer(tokenizer)
    assert chat_format is not None
    return chat_format, tokenizer


def parse(chat_format: ChatFormat, text: str) -> tuple[Turn, ...]:
    turns = chat_format.parse(text)
    assert turns is not None
    return turns


@pytest.mark.parametrize("generation_prompt", [True, False])
@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", FAMILIES)
def test_parse_gives_back_what_was_rendered(name: str, conversation: str, generation_prompt: bool) -> None:
    family, messages = FAMILIES[name], CONVERSATIONS[conversation]
    chat_format, tokenizer = learnt(family)
    turns = expected(family, messages)
    if turns is None or (generation_prompt and messages[-1]["role"] == "assistant"):
        return
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation_prompt)
    parsed = parse(chat_format, text)
    assert [(turn.role, turn.content) for turn in parsed] == turns
    assert all(text[turn.start : turn.end] == turn.content for turn in parsed)


@pytest.mark.parametrize("name", FAMILIES)
def test_an_unfinished_answer_is_a_turn(name: str) -> None:
    chat_format, tokenizer = learnt(FAMILIES[name])
    text = tokenizer.apply_chat_template([USER], tokenize=False, add_generation_prompt=True)
    assert parse(chat_format, text)[-1].role == "user"
    last = parse(chat_format, text + "Acme is in")[-1]
    assert (last.role, last.content.strip()) == ("assistant", "Acme is in")


@pytest.mark.parametrize("name", FAMILIES)
def test_the_text_may_lack_its_begin_of_text_token(name: str) -> None:
    family = FAMILIES[name]
    chat_format, tokenizer = learnt(family)
    messages = [USER, ASSISTANT, FOLLOWING]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    if chat_format.bos:
        text = text.removeprefix(chat_format.bos)
    assert [turn.content for turn in parse(chat_format, text) if turn.role != "system"] == [
        message["content"] for message in messages
    ]


@pytest.mark.parametrize("name", FAMILIES)
def test_turns_can_be_spliced_in_with_the_learnt_markup(name: str) -> None:
    chat_format, tokenizer = learnt(FAMILIES[name])
    text = tokenizer.apply_chat_template([FOLLOWING], tokenize=False, add_generation_prompt=True)
    start = parse(chat_format, text)[-1].start
    between = (USER["content"], chat_format.user_to_assistant, ASSISTANT["content"], chat_format.assistant_to_user)
    spliced = text[:start] + "".join(between) + text[start:]
    whole = tokenizer.apply_chat_template([USER, ASSISTANT, FOLLOWING], tokenize=False, add_generation_prompt=True)
    assert spliced == whole


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "text", ["", "The capital of France is", "Q: Where?\nA:", "a[0] = <b>", "I said: [inst] is no marker", "</s>"]
)
def test_plain_text_is_not_templated(name: str, text: str) -> None:
    chat_format, _ = learnt(FAMILIES[name])
    assert chat_format.parse(text) is None


def test_a_template_of_words_must_stand_at_the_beginning() -> None:
    chat_format, _ = learnt(FAMILIES["words"])
    assert chat_format.parse("He wrote: User: hello") is None
    assert parse(chat_format, "User: hello\nAssistant:")[0].content == "hello"


def test_no_template_no_format() -> None:
    assert ChatFormat.from_tokenizer(tiny_tokenizer(chat_template=None)) is None


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no conversations here') }}",
        "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}",
        "{% for m in messages %}{{ m['content'] }}{% endfor %}",
    ],
)
def test_a_template_that_cannot_be_learnt_gives_none(template: str) -> None:
    assert ChatFormat.from_tokenizer(tiny_tokenizer(chat_template=template)) is None


def test_markers_are_bracketed_and_not_only_special_tokens() -> None:
    chat_format, _ = learnt(FAMILIES["llama2"])
    assert {"[INST]", "[/INST]", "<SYS>", "</SYS>", "<s>"} <= set(chat_format.markers)
    zephyr, _ = learnt(FAMILIES["zephyr"])
    assert "<|user|>" in zephyr.markers


def test_formats_compare_by_their_markup() -> None:
    chat_format, _ = learnt(FAMILIES["phi3"])
    again, _ = learnt(FAMILIES["phi3"])
    assert chat_format == again
    assert chat_format != replace(again, closing="")
