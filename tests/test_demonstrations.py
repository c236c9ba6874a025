from __future__ import annotations

import json
from pathlib import Path

import pytest
from hashing_encoder import HashingEncoder

from memedit.demonstrations import DemonstrationSet, default_demonstrations, read_demonstrations
from memedit.errors import DataFileError

RECORD = {
    "prompt": "The capital of Belmora is",
    "target": "Tallis",
    "subject": "Belmora",
    "paraphrase": "Belmora is governed from",
    "unrelated": "The capital of Norway is",
    "unrelated_answer": "Oslo",
}


def write(path: Path, *records: dict[str, str]) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path


def test_a_file_is_read_in_order(tmp_path: Path) -> None:
    path = write(tmp_path / "own.jsonl", RECORD, RECORD | {"target": "Vell\u2028e"})
    path.write_text("\ufeff" + path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert [demonstration.target for demonstration in read_demonstrations(path)] == ["Tallis", "Vell\u2028e"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not JSON"),
        ("[1]", "list"),
        (json.dumps(RECORD | {"paraphrse": "x"}), "'paraphrase'"),
        (json.dumps(RECORD | {"zzz": "x"}), "known fields"),
        (json.dumps({key: RECORD[key] for key in RECORD if key != "subject"}), "'subject' is missing"),
        (json.dumps(RECORD | {"target": 3}), "'target' is 3"),
        (json.dumps(RECORD | {"target": "  "}), "'target'"),
    ],
)
def test_a_malformed_line_names_file_line_and_field(tmp_path: Path, line: str, said: str) -> None:
    path = write(tmp_path / "bad.jsonl", RECORD)
    path.write_text(path.read_text(encoding="utf-8") + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(DataFileError) as raised:
        read_demonstrations(path)
    assert str(raised.value).startswith(f"{path}:3: ")
    assert said in str(raised.value)


def test_an_unreadable_file_is_a_data_file_error(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="nowhere"):
        read_demonstrations(tmp_path / "nowhere.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9"}')
    with pytest.raises(DataFileError, match="UTF-8"):
        read_demonstrations(tmp_path / "latin.jsonl")


def test_the_own_set_is_sound() -> None:
    demonstrations = default_demonstrations()
    assert len(demonstrations) >= 24
    assert len({demonstration.prompt for demonstration in demonstrations}) == len(demonstrations)
    for demonstration in demonstrations:
        assert demonstration.subject in demonstration.prompt
        assert demonstration.subject in demonstration.paraphrase
        assert demonstration.subject not in demonstration.unrelated
        assert demonstration.target not in demonstration.paraphrase


def test_nearest_is_the_exact_order() -> None:
    encoder = HashingEncoder()
    demonstrations = DemonstrationSet(default_demonstrations(), encoder=encoder)
    query = "The currency of Larkany is the"
    vector = encoder.encode([query])[0]
    similarities = [
        float(encoder.encode([f"{one.prompt} {one.target}"])[0] @ vector) for one in demonstrations.demonstrations
    ]
    wanted = sorted(range(len(demonstrations)), key=lambda place: (-round(similarities[place], 5), place))[:3]
    assert demonstrations.nearest(query, 3) == tuple(demonstrations.demonstrations[place] for place in wanted)
    assert demonstrations.nearest(query, 1)[0].subject == "Larkany"


def test_equally_similar_demonstrations_come_in_file_order(tmp_path: Path) -> None:
    path = write(
        tmp_path / "same.jsonl", RECORD | {"unrelated_answer": "first"}, RECORD | {"unrelated_answer": "second"}
    )
    encoder = HashingEncoder()
    demonstrations = DemonstrationSet(read_demonstrations(path), encoder=encoder)
    query = RECORD["prompt"]
    assert [one.unrelated_answer for one in demonstrations.nearest(query, 9)] == ["first", "second"]
    assert demonstrations.nearest(query, 0) == ()


def test_an_empty_set_has_no_nearest() -> None:
    encoder = HashingEncoder()
    demonstrations = DemonstrationSet((), encoder=encoder)
    assert len(demonstrations) == 0
    assert demonstrations.nearest("anything", 3) == ()
