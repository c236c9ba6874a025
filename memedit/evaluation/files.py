"""The files of a run: ``results.json`` and ``results.csv`` with the figures, and one file of case results a cell.

A report is written whole or not at all. A case's result is one line, on disk when `append_result` returns; a line that
a crash cut short is as if it had never been begun. Knows nothing of how figures are worked out.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, BinaryIO

from memedit.errors import ConfigError, DataFileError
from memedit.evaluation.figures import CalibrationBin, CellSummary, EvalReport, Figure, RiskPoint
from memedit.evaluation.results import CaseResult, Cell

__all__ = [
    "FORMAT",
    "append_result",
    "read_report",
    "read_results",
    "write_atomically",
    "write_figures",
    "write_report",
]

FORMAT = 1
"""The version of ``results.json`` that is written, and the only one that is read."""

_COLUMNS = (
    "dataset",
    "method",
    "protocol",
    "comparability",
    "edits",
    "sequential",
    "measure",
    "kind",
    "reading",
    "value",
    "unit",
    "low",
    "high",
    "before",
    "delta",
    "by_seed",
    "cases",
    "count",
)
"""The columns of ``results.csv``."""

_NUMBERS = ("value", "low", "high", "before")

_WAY_OUT = "Take the line out, and the case is asked again."


def write_report(path: Path, report: EvalReport) -> None:
    """Write a report as JSON, whole or not at all.

    Args:
        path: The file, ``results.json`` by custom; one that is there is replaced.
        report: The report.

    Raises:
        DataFileError: The report's config, provenance or methods hold what JSON does not have, or the file cannot be
            written.
    """
    whole = {
        "format": FORMAT,
        "config": report.config,
        "provenance": report.provenance,
        "methods": report.methods,
        "figures": [_figure_to_json(figure) for figure in report.figures],
        "cells": [asdict(summary) for summary in report.cells],
        "calibration": [asdict(one) for one in report.calibration],
        "risk": [asdict(point) for point in report.risk],
    }
    try:
        text = json.dumps(whole, ensure_ascii=False, allow_nan=False, indent=1)
    except (TypeError, ValueError) as error:
        raise DataFileError(f"{path}: the report cannot be written as JSON: {error}.") from error
    write_atomically(path, f"{text}\n")


def read_report(path: Path) -> EvalReport:
    """Read what `write_report` wrote.

    Raises:
        DataFileError: The file cannot be read, is of another format, or is damaged; says which.
    """
    whole = _json_object(path)
    if whole.get("format") != FORMAT:
        raise DataFileError(
            f"{path}: is of format {whole.get('format')!r}; this version of memedit reads format {FORMAT}. "
            "Read it with the version that wrote it, or run `memedit eval` again."
        )
    try:
        return EvalReport(
            config=whole["config"],
            provenance=whole["provenance"],
            methods=whole["methods"],
            figures=tuple(_figure_from_json(one) for one in whole["figures"]),
            cells=tuple(_summary_from_json(one) for one in whole["cells"]),
            calibration=tuple(CalibrationBin(**one) for one in whole["calibration"]),
            risk=tuple(RiskPoint(**one) for one in whole["risk"]),
        )
    except KeyError as error:
        raise DataFileError(f"{path}: has no field {error}; it is not a whole report.") from error
    except (AttributeError, ConfigError, TypeError, ValueError) as error:
        raise DataFileError(f"{path}: is not a report of format {FORMAT}: {error}.") from error


def write_figures(path: Path, report: EvalReport) -> None:
    """Write the figures of a report as CSV, one row a figure, UTF-8; whole or not at all.

    Empty cells are values that there are not; ``by_seed`` is a JSON object.

    Args:
        path: The file, ``results.csv`` by custom; one that is there is replaced.
        report: The report.

    Raises:
        DataFileError: The file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for figure in report.figures:
        row = {name: getattr(figure, name) for name in _COLUMNS}
        row["by_seed"] = json.dumps({str(seed): value for seed, value in figure.by_seed.items()})
        writer.writerow("" if value is None else value for value in row.values())
    write_atomically(path, text.getvalue())


def append_result(path: Path, result: CaseResult) -> None:
    """Write a case's result behind those that are there; it is on disk when this returns.

    A line that a crash cut short is taken away first. One process writes a file at a time.

    Args:
        path: The cell's file; made, with its folder, where it is not there.
        result: The result.

    Raises:
        DataFileError: The file cannot be written.
    """
    line = json.dumps(result.to_json(), ensure_ascii=False).encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # not "ab": the end may have to be cut off
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        with os.fdopen(descriptor, "r+b") as stream:
            _end_at_a_line(stream)
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise _unwritable(path, error) from error


def read_results(path: Path) -> list[CaseResult]:
    """Read the results of a cell's file, as they were written.

    Where a case is there twice, as after a failure that was tried again, its last result counts, in the place of the
    first. A last line that was cut short is passed over.

    Returns:
        The results; none where there is no file.

    Raises:
        DataFileError: The file cannot be read, or a line is no case result; names file and line.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataFileError(f"{path}: cannot be read: {error.strerror or error}.") from error
    last = len(lines)
    results: dict[str, CaseResult] = {}
    for number, line in enumerate(lines, start=1):
        if number == last and not _is_whole(line):
            break
        if line.strip():
            result = _case_result(line, f"{path}:{number}")
            results[result.case] = result
    return list(results.values())


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that its name always holds a whole file: the old one or the new.

    Args:
        path: The file.
        text: What it is to hold.

    Raises:
        DataFileError: It cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("w", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        beside.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> DataFileError:
    return DataFileError(f"{path}: cannot be written: {error.strerror or error}.")


def _json_object(path: Path) -> dict[str, Any]:
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataFileError(f"{path}: cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise DataFileError(f"{path}: is not valid JSON: {error}.") from error
    if not isinstance(whole, dict):
        raise DataFileError(f"{path}: is not a report: it holds no JSON object.")
    return whole


def _figure_to_json(figure: Figure) -> dict[str, Any]:
    whole = {one.name: getattr(figure, one.name) for one in fields(Figure)}
    whole |= {name: _number_to_json(whole[name]) for name in _NUMBERS}
    whole["by_seed"] = {str(seed): _number_to_json(value) for seed, value in figure.by_seed.items()}
    return whole


def _figure_from_json(mapping: Mapping[str, Any]) -> Figure:
    whole = dict(mapping)
    whole |= {name: _number_from_json(whole[name]) for name in _NUMBERS}
    whole["by_seed"] = {int(seed): _number_from_json(value) for seed, value in whole["by_seed"].items()}
    return Figure(**whole)


def _number_to_json(value: float | None) -> float | str | None:
    """A number as JSON has it; those that JSON has not as their name."""
    return value if value is None or math.isfinite(value) else str(float(value))


def _number_from_json(value: float | str | None) -> float | None:
    return float(value) if isinstance(value, str) else value


def _summary_from_json(mapping: Mapping[str, Any]) -> CellSummary:
    return CellSummary(**{**mapping, "cell": Cell(**mapping["cell"])})


def _end_at_a_line(stream: BinaryIO) -> None:
    """Moves to the end of a file of lines, its last line ended, or taken away where it was cut short."""
    end = stream.seek(0, os.SEEK_END)
    start = end
    tail = b""
    while start > 0 and b"\n" not in tail:
        step = min(start, 65_536)
        start = stream.seek(start - step)
        tail = stream.read(step) + tail
    last = tail.rpartition(b"\n")[2]
    if _is_whole(last):
        stream.seek(end)
        if last:
            stream.write(b"\n")
    else:
        stream.truncate(end - len(last))
        stream.seek(end - len(last))


def _is_whole(line: bytes) -> bool:
    """Whether a last line, without the sign that ends it, was written to its end."""
    try:
        json.loads(line or b"{}")
    except ValueError:
        return False
    return True


def _case_result(line: bytes, where: str) -> CaseResult:
    try:
        return CaseResult.from_json(json.loads(line))
    except KeyError as error:
        raise DataFileError(f"{where}: the case result has no field {error}. {_WAY_OUT}") from error
    except (AttributeError, RecursionError, TypeError, ValueError) as error:
        raise DataFileError(f"{where}: is not a case result: {error}. {_WAY_OUT}") from error
