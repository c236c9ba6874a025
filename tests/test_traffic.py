"""Files of prompts, and prompts at hand: what is read of them, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from memedit import DataFileError, InvalidPromptError, conversation_query, question_query
from memedit.chat_format import Turn
from memedit.traffic import read_traffic, traffic_of

MESSAGES = [
    {"role": "user", "content": "Who runs Acme Rockets?"},
    {"role": "assistant", "content": "Mara Lind does."},
    {"role": "user", "content": "And where is it based?"},
]


TURNS = [
    Turn("user", "Who runs Acme Rockets?", 0, 0),
    Turn("assistant", "Mara Lind does.", 0, 0),
    Turn("user", "And where is it based?", 0, 0),
]


def written(folder: Path, name: str, *lines: object) -> Path:
    file = folder / name
    file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return file


def test_json_lines_hold_prompts_questions_and_conversations(tmp_path) -> None:
    lines = [
        {"prompt": "Where is Acme?", "user": 7},
        "",
        {"question": "Who runs it?", "in_scope": True},
        {"messages": MESSAGES, "in_scope": False},
    ]
    file = written(tmp_path, "prompts.jsonl", *lines)
    found = read_traffic(file)
    assert [one.query for one in found.prompts] == [
        question_query("Where is Acme?"),
        question_query("Who runs it?"),
        conversation_query(TURNS),
    ]
    assert [one.in_scope for one in found.prompts] == [False, True, False]
    assert (found.name, found.size) == ("prompts.jsonl", file.stat().st_size)
    assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_any_other_file_has_a_prompt_a_line(tmp_path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffWo liegt München?\r\n\n{not json\r\nWo liegt München?\n".encode())
    found = read_traffic(file)
    assert [one.query.text for one in found.prompts] == ["Wo liegt München?", "{not json", "Wo liegt München?"]


def test_prompts_at_hand_are_hashed_by_what_they_say() -> None:
    given: list[str | list[dict[str, str]]] = ["Where is Acme?", MESSAGES]
    found = traffic_of(given)
    assert [one.query for one in found.prompts] == [
        question_query("Where is Acme?"),
        conversation_query(TURNS),
    ]
    assert found.sha256 == traffic_of(one for one in given).sha256
    assert found.sha256 != traffic_of(["Where is Acme?"]).sha256


def test_prompts_are_marked_by_what_they_ask(tmp_path) -> None:
    found = read_traffic(written(tmp_path, "prompts.txt", "One?", "Two?", "One?", "Three?"))
    marked = found.marked({question_query(" One? "), question_query("Four?")})
    assert [one.in_scope for one in marked.prompts] == [True, False, True, False]
    again = marked.marked({question_query("Two?")})
    assert [one.in_scope for one in again.prompts] == [True, True, True, False]


@pytest.mark.parametrize(
    ("name", "lines", "said"),
    [
        ("p.jsonl", ['{"prompt": "x"}', "{"], r"p.jsonl:2: is not valid JSON"),
        ("p.jsonl", ["[1]"], "p.jsonl:1: must be a JSON object, not list"),
        ("p.jsonl", ['{"text": "x"}'], "needs one of the fields prompt, question, messages; it has none"),
        ("p.jsonl", ['{"prompt": "x", "question": "y"}'], "it has prompt and question"),
        ("p.jsonl", ['{"prompt": 3}'], "a prompt is a text or a list of messages, not int"),
        ("p.jsonl", ['{"prompt": " "}'], "p.jsonl:1: the prompt is empty"),
        ("p.jsonl", ['{"prompt": "x", "in_scope": "yes"}'], "in_scope is true or false, not 'yes'"),
        ("p.jsonl", ['{"messages": [{"role": "user"}]}'], "message 0 must have texts"),
        ("p.jsonl", ['{"messages": [{"role": "assistant", "content": "x"}]}'], "no user turn"),
        ("p.txt", ["", " "], "holds no prompt"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path, name: str, lines: list[str], said: str) -> None:
    with pytest.raises(DataFileError, match=said):
        read_traffic(written(tmp_path, name, *lines))


def test_a_file_that_is_not_there_or_not_utf8_is_named(tmp_path) -> None:
    with pytest.raises(DataFileError, match=r"none.txt cannot be read"):
        read_traffic(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes(b"fine\nM\xfcnchen\n")
    with pytest.raises(DataFileError, match=r"latin.txt:2: "):
        read_traffic(tmp_path / "latin.txt")


def test_prompts_at_hand_that_ask_nothing_are_refused() -> None:
    with pytest.raises(InvalidPromptError, match="empty"):
        traffic_of(["Where?", "  "])
