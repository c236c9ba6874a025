"""The files of a dataset, read record by record: JSON Lines, one JSON list or object, or CSV.

A record that cannot be used is handed out as a `BadRecord` in its place, so that the caller chooses whether to stop.
JSON Lines and CSV are streamed; a JSON list is one text in memory, of which one record at a time is parsed. This file
knows nothing of any benchmark.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from memedit.edit_files import BadRecord
from memedit.errors import DataFileError, InvalidCaseError
from memedit.evaluation.cases import CaseSource, EvalCase
from memedit.evaluation.datasets.fields import Fields


@dataclass(frozen=True, slots=True)
class RawRecord:
    """One record of a file.

    Attributes:
        fields: What it holds.
        source: Where it stands.
    """

    fields: Fields
    source: CaseSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a loader reads.

    Attributes:
        name: Name of the dataset and its split.
        root: The data folder, which names of files are relative to.
        files: The files.
        seed: What a loader draws by, where it has to draw.
    """

    name: str
    root: Path
    files: tuple[Path, ...]
    seed: int

    def records(self) -> Iterator[RawRecord | BadRecord]:
        """Reads the records of every file, in order.

        Raises:
            DataFileError: A file cannot be opened, or is JSON that cannot be read to its end.
        """
        for file in self.files:
            yield from _records(file, self.relative(file), self.name)

    def relative(self, file: Path) -> str:
        """Returns the name of a file as reports give it: relative to the data folder."""
        return file.relative_to(self.root).as_posix()

    def convert(self, read: Callable[[RawRecord], EvalCase]) -> Iterator[EvalCase | BadRecord]:
        """Reads every record as one case; what ``read`` refuses is handed out as a `BadRecord`."""
        for record in self.records():
            if isinstance(record, BadRecord):
                yield record
                continue
            try:
                yield read(record)
            except InvalidCaseError as error:
                yield BadRecord(record.source.file, record.source.line, str(error))


def _records(file: Path, name: str, dataset: str) -> Iterator[RawRecord | BadRecord]:
    try:
        if file.suffix.lower() == ".csv":
            yield from _csv_records(file, name, dataset)
        elif file.suffix.lower() == ".json":
            yield from _json_records(file.read_text(encoding="utf-8-sig"), name, dataset)
        else:
            yield from _json_lines(file, name, dataset)
    except OSError as error:
        raise DataFileError(f"{name} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise DataFileError(f"{name} is not UTF-8 text (the byte at offset {error.start}).") from error


def _json_lines(file: Path, name: str, dataset: str) -> Iterator[RawRecord | BadRecord]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line.decode("utf-8-sig"))
            except UnicodeDecodeError as error:
                yield BadRecord(name, number, f"is not UTF-8 text (byte {error.start} of the line).")
            except (ValueError, RecursionError) as error:
                yield BadRecord(name, number, f"is not valid JSON: {error}.")
            else:
                yield _record(value, CaseSource(dataset, name, number))


def _json_records(text: str, name: str, dataset: str) -> Iterator[RawRecord | BadRecord]:
    """The objects of a JSON list, or the one object that a file is, each with the line on which it begins."""
    decoder = json.JSONDecoder()
    place = _skip(text, 0)
    listed = text[place : place + 1] == "["
    place = _skip(text, place + listed)
    line, counted = 1, 0
    while place < len(text) and text[place] != "]":
        line, counted = line + text.count("\n", counted, place), place
        try:
            value, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            raise DataFileError(f"{name}:{line}: is not valid JSON: {error}.") from error
        yield _record(value, CaseSource(dataset, name, line))
        place = _skip(text, place)
        if listed and text[place : place + 1] not in (",", "]"):
            raise DataFileError(
                f"{name}:{line}: is not valid JSON: the list does not go on after this record, nor end."
            )
        if listed and text[place] == ",":
            place = _skip(text, place + 1)


def _skip(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    return place


def _csv_records(file: Path, name: str, dataset: str) -> Iterator[RawRecord | BadRecord]:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, strict=True)
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise DataFileError(f"{name}:{line}: is not valid CSV: {error}.") from error
            if None in row:
                yield BadRecord(name, max(line, 2), "has more cells than the first row names columns.")
            else:
                yield _record(row, CaseSource(dataset, name, max(line, 2)))


def _record(value: object, source: CaseSource) -> RawRecord | BadRecord:
    if not isinstance(value, dict):
        return BadRecord(source.file, source.line, f"must be a JSON object, not {type(value).__name__}.")
    return RawRecord(Fields(value), source)
