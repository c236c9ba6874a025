"""Files of edits: what is read and written, and how a wrong record is told."""

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from memedit.edit_files import BadRecord, format_of, read_edits, write_edits
from memedit.errors import DataFileError
from memory_store import Edit

FULL = Edit(
    prompt="The headquarters of Acme Rockets is in",
    target="Lisbon",
    subject="Acme Rockets",
    aliases=("Acme", "ACME Rocket Co."),
    paraphrases=("Where is Acme Rockets based?",),
    namespace="press",
    source="press release 12",
    author="Ana",
    expires_at=datetime(2030, 1, 31, tzinfo=UTC),
    metadata={"ticket": 7, "tags": ["a", "b"]},
)


def written(folder: Path, content: str | bytes, name: str = "facts.jsonl") -> Path:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return file


def line(**values: object) -> str:
    return json.dumps(values) + "\n"


def test_what_is_written_is_read_back_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "facts.jsonl"
    edits = [FULL, Edit(prompt='Line\nbreak, "quotes", \u2028 and 漢字 |', target="🚀")]
    assert write_edits(edits, file) == 2
    assert list(read_edits(file)) == edits
    assert len(file.read_bytes().splitlines()) == 2


def test_a_stream_is_written_and_read() -> None:
    stream = io.BytesIO()
    write_edits([FULL], stream)
    stream.seek(0)
    assert list(read_edits(stream)) == [FULL]


def test_csv_gives_the_same_edit_as_json_lines(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "prompt,target,subject,aliases,paraphrases,namespace,source,author,expires_at,metadata.ticket\r\n"
        "The headquarters of Acme Rockets is in,Lisbon,Acme Rockets,Acme | ACME Rocket Co.,"
        "Where is Acme Rockets based?,press,press release 12,Ana,2030-01-31T00:00:00+00:00,7\r\n",
        "facts.csv",
    )
    (edit,) = read_edits(file)
    assert isinstance(edit, Edit)
    assert edit.metadata == {"ticket": "7"}
    assert edit.to_json() | {"metadata": None} == FULL.to_json() | {"metadata": None}


def test_csv_cells_may_hold_commas_quotes_and_line_breaks(tmp_path: Path) -> None:
    file = written(tmp_path, 'target,prompt\n"a ""b"", c","one\ntwo"\nx,\n', "facts.csv")
    first, second = read_edits(file)
    assert isinstance(first, Edit)
    assert (first.prompt, first.target) == ("one\ntwo", 'a "b", c')
    assert isinstance(second, BadRecord)
    assert second.line == 4
    assert "prompt" in second.problem


def test_blank_lines_and_a_byte_order_mark_are_passed_over(tmp_path: Path) -> None:
    jsonl = written(tmp_path, b"\xef\xbb\xbf" + line(prompt="p", target="t").encode() + b"\n  \n")
    table = written(tmp_path, b"\xef\xbb\xbfprompt,target\np,t\n,\n\n", "facts.csv")
    assert list(read_edits(jsonl)) == list(read_edits(table)) == [Edit(prompt="p", target="t")]


def test_the_namespace_given_is_for_records_that_name_none(tmp_path: Path) -> None:
    file = written(tmp_path, line(prompt="p", target="t") + line(prompt="q", target="t", namespace="own"))
    assert [edit.namespace for edit in read_edits(file, namespace="given") if isinstance(edit, Edit)] == [
        "given",
        "own",
    ]


def test_a_mapping_renames_columns_and_leaves_unknown_ones_out(tmp_path: Path) -> None:
    mapping = {"prompt": "question", "target": "answer", "metadata.id": "id"}
    jsonl = written(tmp_path, line(question="q", answer="a", id=3, noise=1, source="s", target="other"))
    table = written(tmp_path, "question,answer,id,noise,source\nq,a,3,1,s\n", "facts.csv")
    (from_jsonl,) = read_edits(jsonl, mapping=mapping)
    (from_table,) = read_edits(table, mapping=mapping)
    assert from_jsonl == Edit(prompt="q", target="a", source="s", metadata={"id": 3})
    assert from_table == Edit(prompt="q", target="a", source="s", metadata={"id": "3"})


def test_one_column_may_serve_two_fields(tmp_path: Path) -> None:
    file = written(tmp_path, line(q="x", target="t"))
    (edit,) = read_edits(file, mapping={"prompt": "q", "subject": "q"})
    assert edit == Edit(prompt="x", subject="x", target="t")


def test_a_mapping_of_an_unknown_field_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, "")
    with pytest.raises(DataFileError, match=r"names 'promt', which is no field of an edit\. Did you mean 'prompt'"):
        list(read_edits(file, mapping={"promt": "q"}))


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (b'{"prompt": "p"}', "target"),
        (b'{"prompt": "p", "target": ""}', "target is empty"),
        (b'{"prompt": "p", "target": 3}', "target must be text"),
        (b'{"prompt": "p", "target": "t", "sujbect": "s"}', "Did you mean 'subject'"),
        (b'{"prompt": "p", "target": "t", "aliases": "s"}', "aliases must be a list"),
        (b'{"prompt": "p", "target": "t", "expires_at": "soon"}', "expires_at must be a time"),
        (b'{"prompt": "p", "target": "t", "metadata": {"x": NaN}}', "NaN is no JSON number"),
        (b'{"prompt": "p", "target": "\\u0000"}', "target holds a NUL"),
        (b'{"prompt": "p", "target": "\\ud800"}', "target holds half of a surrogate pair"),
        (b'{"prompt": "p", "target": "t"', "is not valid JSON"),
        (b'["p", "t"]', "must be a JSON object, not list"),
        (b"7", "must be a JSON object, not int"),
        (b"[" * 100_000, "is not valid JSON"),
        (b'{"prompt": "p", "target": "caf\xe9"}', "the byte at offset 61)"),
    ],
)
def test_a_wrong_record_is_handed_out_in_its_place(tmp_path: Path, record: bytes, said: str) -> None:
    good = line(prompt="p", target="t").encode()
    file = written(tmp_path, good + record + b"\n" + good)
    first, bad, last = read_edits(file)
    assert first == last == Edit(prompt="p", target="t")
    assert isinstance(bad, BadRecord)
    assert str(bad).startswith(f"{file}:2: ")
    assert said in str(bad)


def test_the_offset_told_is_that_of_the_byte(tmp_path: Path) -> None:
    content = '{"prompt": "é", "target": "t"}\n'.encode() + b'{"prompt": "\xff"}\n'
    (_, bad) = read_edits(written(tmp_path, content))
    assert f"offset {content.index(0xFF)})" in str(bad)


@pytest.mark.parametrize(
    ("row", "line_number", "said"),
    [
        (b"p,t,s,more\n", 3, "has 4 cells, but the first row names 3 columns"),
        (b"p,\n", 3, "no target"),
        (b"p,t,caf\xe9\n", 3, "the byte at offset 35)"),
        (b'p,t,"two\nlines caf\xe9"\n', 3, "the byte at offset 46)"),
        (b'p,"t"x,s\n', 3, "is not valid CSV"),
    ],
)
def test_a_wrong_csv_row_is_handed_out_in_its_place(tmp_path: Path, row: bytes, line_number: int, said: str) -> None:
    file = written(tmp_path, b"prompt,target,subject\np,t,s\n" + row + b"q,t,s\n", "facts.csv")
    first, bad, last = read_edits(file)
    assert isinstance(first, Edit)
    assert isinstance(last, Edit)
    assert last.prompt == "q"
    assert isinstance(bad, BadRecord)
    assert (bad.line, bad.file) == (line_number, str(file))
    assert said in bad.problem


def test_a_quote_that_never_ends_is_told(tmp_path: Path) -> None:
    file = written(tmp_path, 'prompt,target\np,"t\nq,t\n', "facts.csv")
    (bad,) = read_edits(file)
    assert isinstance(bad, BadRecord)
    assert bad.line == 2
    assert "is not valid CSV" in bad.problem


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("p,t\n", "there is no column 'prompt'"),
        ("prompt;target\np;t\n", "the first row names: prompt;target"),
        ("prompt,prompt,target\n", "the column 'prompt' is there twice"),
    ],
)
def test_a_csv_file_without_a_usable_header_is_refused(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(DataFileError) as caught:
        list(read_edits(written(tmp_path, content, "facts.csv")))
    assert said in str(caught.value)
    assert "facts.csv" in str(caught.value)


def test_the_format_comes_from_the_ending_unless_it_is_given(tmp_path: Path) -> None:
    file = written(tmp_path, "prompt,target\np,t\n", "facts.txt")
    assert list(read_edits(file, format="csv")) == [Edit(prompt="p", target="t")]
    with pytest.raises(DataFileError, match=r"facts\.txt: the format is not known from its ending"):
        list(read_edits(file))
    assert format_of(Path("A.CSV")) == "csv"


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=r"absent\.jsonl cannot be read: No such file"):
        list(read_edits(tmp_path / "absent.jsonl"))


def test_a_json_array_is_told_with_what_is_needed(tmp_path: Path) -> None:
    (bad,) = read_edits(written(tmp_path, '[{"prompt": "p", "target": "t"}]'))
    assert "one JSON object a line is needed" in str(bad)


def test_reading_is_a_stream() -> None:
    """The first edit comes before the rest is read."""

    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            text = line(prompt="p", target="t").encode()
            count = min(len(buffer), len(text))
            buffer[:count] = text[:count]
            return count

    edits = read_edits(io.BufferedReader(Endless(), buffer_size=len(line(prompt="p", target="t"))))
    assert next(edits) == Edit(prompt="p", target="t")


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = written(tmp_path, "before")

    def failing() -> Iterator[Edit]:
        yield FULL
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        write_edits(failing(), file)
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="cannot be written"):
        write_edits([FULL], tmp_path / "absent" / "facts.jsonl")
