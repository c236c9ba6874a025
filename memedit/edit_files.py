"""Files of edits: JSON lines in and out, CSV in.

One JSON object a line, with the keys of `Edit.to_json`; only ``prompt`` and ``target`` must be there::

    {"prompt": "The headquarters of Acme Rockets is in", "target": "Lisbon", "subject": "Acme Rockets"}

In CSV the first row names the columns, an empty cell is a value not given, ``aliases`` and ``paraphrases``
hold several values separated by ``|``, and a column ``metadata.NAME`` is one entry of the metadata (a
string).

Reading is a stream: a record that is wrong is handed out as a `BadRecord` in its place, so that the caller
chooses whether to stop. This file knows nothing of how edits are stored, nor of the command line.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Literal

from memedit.errors import DataFileError
from memedit.suggestions import suggestion
from memory_store import Edit
from memory_store.errors import InvalidEditError
from memory_store.records import checked

__all__ = ["LIST_SEPARATOR", "BadRecord", "FileFormat", "format_of", "read_edits", "write_edits"]

FileFormat = Literal["jsonl", "csv"]

LIST_SEPARATOR = "|"
"""What separates several aliases or paraphrases in one CSV cell."""

_FORMATS: Mapping[str, FileFormat] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv"}
_LIST_FIELDS = ("aliases", "paraphrases")
_METADATA_PREFIX = "metadata."
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that holds no valid edit.

    Attributes:
        file: The file's name as given, or ``<stdin>`` for a stream without one.
        line: The line it begins on, from 1.
        problem: What is wrong with it, naming the field where it is one field.
    """

    file: str
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.problem}"


def read_edits(
    source: Path | BinaryIO,
    *,
    format: FileFormat | None = None,  # noqa: A002 - the word every reader of files uses for it
    mapping: Mapping[str, str] | None = None,
    namespace: str | None = None,
) -> Iterator[Edit | BadRecord]:
    """Reads the edits of a file, one at a time.

    Args:
        source: The file, or a binary stream.
        format: The file's format; None takes it from the file's ending, and JSON lines for a stream without
            one.
        mapping: Columns by field, for files with names of their own: ``{"prompt": "question"}``. Where it is
            given, columns that are neither mapped nor fields of an edit are left out instead of being errors.
        namespace: The namespace of records that name none.

    Yields:
        An edit, or the record that is wrong, in the file's order. Blank lines are passed over.

    Raises:
        DataFileError: If the file cannot be opened, its format is unknown, or a CSV header lacks a needed
        column.
    """
    if isinstance(source, Path):
        with _opened(source) as stream:
            yield from _read(stream, str(source), format or format_of(source), mapping, namespace)
        return
    name = str(getattr(source, "name", "<stdin>"))
    yield from _read(source, name, format or _FORMATS.get(Path(name).suffix.lower(), "jsonl"), mapping, namespace)


def write_edits(edits: Iterable[Edit], target: Path | BinaryIO) -> int:
    """Writes edits as JSON lines, a format that `read_edits` gives back unchanged.

    Args:
        edits: The edits; the iterable is streamed.
        target: A file, which is replaced in one step once everything is on disk, or a binary stream.

    Returns:
        How many edits were written.

    Raises:
        DataFileError: If the file cannot be written.
    """
    if not isinstance(target, Path):
        return _write_lines(edits, target)
    try:
        with _replaced(target) as stream:
            return _write_lines(edits, stream)
    except OSError as error:
        raise DataFileError(f"{target} cannot be written: {error.strerror or error}.") from error


def _opened(file: Path) -> BinaryIO:
    try:
        return file.open("rb")
    except OSError as error:
        raise DataFileError(f"{file} cannot be read: {error.strerror or error}.") from error


def format_of(file: Path) -> FileFormat:
    """The format that a file's ending stands for.

    Raises:
        DataFileError: If it is none that is known.
    """
    try:
        return _FORMATS[file.suffix.lower()]
    except KeyError:
        known = ", ".join(_FORMATS)
        raise DataFileError(f"{file}: the format is not known from its ending ({known} are); name it.") from None


def _read(
    stream: BinaryIO,
    name: str,
    format: FileFormat,  # noqa: A002 - as in `read_edits`
    mapping: Mapping[str, str] | None,
    namespace: str | None,
) -> Iterator[Edit | BadRecord]:
    columns = _Columns(mapping or {})
    records = _json_records(stream, name) if format == "jsonl" else _csv_records(stream, name, columns)
    for record in records:
        if isinstance(record, BadRecord):
            yield record
            continue
        values = columns.fields_of(record.values)
        if format == "csv":
            values = _split_lists(values)
        if namespace is not None:
            values.setdefault("namespace", namespace)
        yield _edit_of(values, name, record.line)


def _edit_of(values: dict[str, Any], name: str, line: int) -> Edit | BadRecord:
    try:
        edit = Edit.from_json(values)
        checked(edit)
    except InvalidEditError as error:
        return BadRecord(name, line, str(error))
    return edit


@dataclass(frozen=True, slots=True)
class _Record:
    """The raw values of one record, by the file's own column names."""

    line: int
    values: dict[str, Any]


class _Columns:
    """Which column of the file each field of an edit is read from."""

    def __init__(self, mapping: Mapping[str, str]) -> None:
        self._known = [item.name for item in fields(Edit)]
        self._mapping = mapping
        for name in mapping:
            if not self._is_field(name):
                hint = suggestion(name, self._known, listing="Fields:")
                raise DataFileError(f"The mapping names '{name}', which is no field of an edit. {hint}")

    def check_header(self, header: Sequence[str], file: str) -> None:
        """Refuses a CSV header that cannot give edits.

        Raises:
            DataFileError: If a column is there twice, or a needed one not at all.
        """
        for column in header:
            if header.count(column) > 1:
                raise DataFileError(f"{file}:1: the column '{column}' is there twice.")
        for name in ("prompt", "target"):
            column = self._mapping.get(name, name)
            if column not in header:
                raise DataFileError(
                    f"{file}:1: there is no column '{column}' for the field {name}; the first row names: "
                    f"{', '.join(header)}. Map it ({name}=COLUMN), or add a first row that names the columns."
                )

    def fields_of(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A record's values by the names of an edit's fields, ``metadata.NAME`` gathered into one object."""
        found = {name: values[column] for name, column in self._mapping.items() if column in values}
        taken = set(self._mapping.values())
        for column, value in values.items():
            unmapped = column not in taken and column not in found
            if unmapped and (not self._mapping or self._is_field(column)):
                found[column] = value
        return _gather_metadata(found)

    def _is_field(self, name: str) -> bool:
        return name in self._known or name.startswith(_METADATA_PREFIX)


def _gather_metadata(values: dict[str, Any]) -> dict[str, Any]:
    entries = {
        name.removeprefix(_METADATA_PREFIX): value
        for name, value in values.items()
        if name.startswith(_METADATA_PREFIX)
    }
    if not entries:
        return values
    others = {name: value for name, value in values.items() if not name.startswith(_METADATA_PREFIX)}
    metadata = others.get("metadata", {})
    return {**others, "metadata": {**metadata, **entries} if isinstance(metadata, dict) else metadata}


def _split_lists(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a CSV row with the cells that hold several values taken apart."""
    lists = {
        name: [part.strip() for part in values[name].split(LIST_SEPARATOR) if part.strip()]
        for name in _LIST_FIELDS
        if name in values
    }
    return {**values, **lists}


def _json_records(stream: BinaryIO, name: str) -> Iterator[_Record | BadRecord]:
    offset = 0
    for number, line in enumerate(stream, start=1):
        start, offset = offset, offset + len(line)
        text = line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
        start += len(line) - len(text)
        if text.strip():
            yield _json_record(text, name, number, start)


def _json_record(line: bytes, name: str, number: int, offset: int) -> _Record | BadRecord:
    try:
        values = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        return BadRecord(name, number, _not_utf8(offset + error.start))
    except json.JSONDecodeError as error:
        return BadRecord(name, number, f"is not valid JSON: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:
        return BadRecord(name, number, f"is not valid JSON: {error}")
    if isinstance(values, list) and number == 1:
        return BadRecord(name, number, "is a JSON array; one JSON object a line is needed")
    if not isinstance(values, dict):
        return BadRecord(name, number, f"must be a JSON object, not {type(values).__name__}")
    return _Record(number, values)


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


def _csv_records(stream: BinaryIO, name: str, columns: _Columns) -> Iterator[_Record | BadRecord]:
    text = _TextLines(stream)
    reader = csv.reader(text, strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            yield BadRecord(name, line, f"is not valid CSV: {error}")
            continue
        if (offset := text.bad_byte(line, reader.line_num)) is not None:
            yield BadRecord(name, line, _not_utf8(offset))
        elif header is None:
            header = [cell.strip() for cell in row]
            columns.check_header(header, name)
        elif any(cell.strip() for cell in row):
            yield _csv_record(header, row, name, line)
    if header is None:
        raise DataFileError(f"{name} is empty; a CSV file begins with a row that names the columns.")


def _csv_record(header: list[str], row: list[str], name: str, line: int) -> _Record | BadRecord:
    if len(row) > len(header):
        return BadRecord(name, line, f"has {len(row)} cells, but the first row names {len(header)} columns")
    return _Record(line, {column: cell for column, cell in zip(header, row, strict=False) if cell.strip()})


class _TextLines:
    """The lines of a byte stream as text, remembering where bytes were that are not UTF-8.

    Such bytes become lone surrogates, so that the CSV reader can go on to the next record.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._bad_bytes: dict[int, int] = {}

    def __iter__(self) -> Iterator[str]:
        offset = 0
        for number, line in enumerate(self._stream, start=1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                self._bad_bytes[number] = offset + error.start
                text = line.decode("utf-8", errors="surrogateescape")
            offset += len(line)
            yield text.removeprefix("\ufeff") if number == 1 else text

    def bad_byte(self, first: int, last: int) -> int | None:
        """The offset in the stream of the first such byte of some lines, None where there is none."""
        return min(
            (self._bad_bytes[line] for line in range(first, last + 1) if line in self._bad_bytes),
            default=None,
        )


def _not_utf8(offset: int) -> str:
    return f"is not UTF-8 text (the byte at offset {offset}); convert the file to UTF-8"


def _write_lines(edits: Iterable[Edit], stream: BinaryIO) -> int:
    written = 0
    for edit in edits:
        stream.write(json.dumps(edit.to_json(), ensure_ascii=False).encode("utf-8") + b"\n")
        written += 1
    return written


@contextlib.contextmanager
def _replaced(file: Path) -> Iterator[BinaryIO]:
    """A stream whose bytes become the file's content when the block ends, and leave no trace when it fails."""
    staged = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with staged.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        staged.replace(file)
    finally:
        staged.unlink(missing_ok=True)
