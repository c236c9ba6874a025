"""The folder of a run: what was asked, what came of each case, and the report; made to be added to and gone on with.

::

    run.json                 settings, provenance, what the data and the methods are
    cells/<cell>.jsonl       one case result a line
    ability/<cell>.json      general ability with the edits of the cell in place
    results.json, results.csv, report.html

One process writes at a time; a lock sees to it. Knows nothing of models.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from memedit.errors import ConfigError, DataFileError
from memedit.evaluation.ability import Ability
from memedit.evaluation.figures import CellSummary, EvalReport
from memedit.evaluation.files import append_result, read_results, write_atomically, write_figures, write_report
from memedit.evaluation.results import CaseResult, Cell
from memedit.evaluation.settings import RunSettings, differing
from memedit.json_object import read_json_object
from memedit.one_writer import one_writer

__all__ = ["RunFolder"]

_FORMAT = 1


class RunFolder:
    """A run on disk.

    Args:
        path: The folder; made where it is not there.

    Raises:
        DataFileError: It cannot be made, or holds something that is not a run's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            for part in ("cells", "ability"):
                (path / part).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataFileError(f"{path} cannot be a run's folder: {error}") from error

    def locked(self) -> AbstractContextManager[None]:
        """Keeps other processes from writing; see `one_writer`."""
        return one_writer(self.path)

    def begin(self, settings: RunSettings, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Write down what is asked for, beside what was asked for before.

        Args:
            settings: The settings.
            facts: Of what the results depend on: ``model``, ``encoder`` (fingerprints), ``data`` (hashes by file).
                What is a mapping, as the data and the methods are, is added to what is there.

        Returns:
            What ``run.json`` now holds.

        Raises:
            ConfigError: The folder holds results that cannot stand beside these.
        """
        run = self.read()
        if run is None:
            run = {"format": _FORMAT, "settings": settings.to_json(), "facts": {}, "runs": []}
        earlier = RunSettings.from_json(run["settings"])
        changed = [f"{name} ({getattr(earlier, name)!r} there)" for name in differing(earlier, settings)]
        held: dict[str, Any] = run["facts"]
        changed += [
            f"the {name}'s weights" for name in ("model", "encoder") if held.get(name, facts[name]) != facts[name]
        ]
        changed += [
            f"the data file {file}"
            for file, digest in facts["data"].items()
            if held.get("data", {}).get(file, digest) != digest
        ]
        changed += [
            f"the files of '{name}'"
            for name, files in facts.get("datasets", {}).items()
            if set(held.get("datasets", {}).get(name, files)) != set(files)
        ]
        if changed:
            raise ConfigError(
                f"{self.path} holds a run that differs in {', '.join(changed)}; its results cannot stand beside these. "
                "Name another folder."
            )
        run["facts"] = {name: _added(held.get(name), value) for name, value in {**held, **facts}.items()}
        run["settings"] = _joined(earlier, settings).to_json()
        self._write(run)
        return run

    def note(self, run: dict[str, Any], fields: Mapping[str, Any]) -> None:
        """Add an account of one go at the run, at its beginning: one that is stopped is accounted for too."""
        run["runs"].append(dict(fields))
        self._write(run)

    def close_note(self, run: dict[str, Any], fields: Mapping[str, Any]) -> None:
        """Add to the account of the go that ends what is known now."""
        run["runs"][-1].update(fields)
        self._write(run)

    def read(self) -> dict[str, Any] | None:
        """What ``run.json`` holds; None where nothing was begun.

        Raises:
            DataFileError: It cannot be read, or is of another version.
        """
        file = self.path / "run.json"
        if not file.is_file():
            return None
        run = read_json_object(file)
        if run.get("format") != _FORMAT:
            raise DataFileError(f"{file} has format {run.get('format')!r}; this version reads {_FORMAT}.")
        try:
            _check_parts(run)
        except KeyError as error:
            raise DataFileError(f"{file} is damaged: it has no {error}.") from error
        except (ConfigError, TypeError) as error:
            raise DataFileError(f"{file} is damaged: {error}") from error
        return run

    def append(self, cell: Cell, result: CaseResult) -> None:
        """Write down what came of a case; on disk when this returns."""
        append_result(self._cell_file(cell), result)

    def results(self, cell: Cell) -> dict[str, CaseResult]:
        """What is known of a cell's cases, by id; of a case that was asked again, the last result."""
        file = self._cell_file(cell)
        return {result.case: result for result in read_results(file)} if file.is_file() else {}

    def write_ability(self, cell: Cell, ability: Ability) -> None:
        """Write down a model's general ability with a cell's edits in place."""
        write_atomically(self.path / "ability" / f"{cell.key}.json", json.dumps(ability.to_json(), indent=1))

    def ability(self, cell: Cell) -> Ability | None:
        """What `write_ability` wrote; None where it did not.

        Raises:
            DataFileError: It cannot be read.
        """
        file = self.path / "ability" / f"{cell.key}.json"
        if not file.is_file():
            return None
        try:
            return Ability.from_json(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise DataFileError(f"{file} cannot be read: {error}. Delete it, and it is measured again.") from error

    def remember_cells(self, run: dict[str, Any], cells: Iterable[Cell], skipped: Iterable[CellSummary]) -> None:
        """Write down which cells there are, and which were left out and why.

        Args:
            run: What ``run.json`` holds.
            cells: The cells that are asked now.
            skipped: Those that do not apply.
        """
        known = {Cell(**one).key: one for one in run.get("cells", ())}
        known |= {cell.key: asdict(cell) for cell in cells}
        left = {Cell(**one["cell"]).key: one for one in run.get("skipped", ())}
        left |= {one.cell.key: {"cell": asdict(one.cell), "why": one.skipped} for one in skipped}
        run["cells"], run["skipped"] = list(known.values()), list(left.values())
        self._write(run)

    def cells(self, run: Mapping[str, Any]) -> list[Cell]:
        """The cells of the run that have results."""
        cells = [Cell(**one) for one in run.get("cells", ())]
        return [cell for cell in cells if self._cell_file(cell).is_file()]

    def skipped(self, run: Mapping[str, Any]) -> list[CellSummary]:
        """The cells that were left out."""
        return [
            CellSummary(cell=Cell(**one["cell"]), cases=0, not_testable=0, failed=0, skipped=one["why"])
            for one in run.get("skipped", ())
        ]

    def publish(self, report: EvalReport, page: str) -> None:
        """Write the report: JSON, CSV, HTML, each whole or not at all."""
        write_report(self.path / "results.json", report)
        write_figures(self.path / "results.csv", report)
        write_atomically(self.path / "report.html", page)

    def _write(self, run: Mapping[str, Any]) -> None:
        write_atomically(self.path / "run.json", json.dumps(run, indent=1, ensure_ascii=False))

    def _cell_file(self, cell: Cell) -> Path:
        return self.path / "cells" / f"{cell.key}.jsonl"


def _check_parts(run: Mapping[str, Any]) -> None:
    """Sees to it that what is in ``run.json`` is what `RunFolder` writes there.

    Raises:
        ConfigError: The settings, or those of a cell, are wrong.
        KeyError: A part is missing.
        TypeError: A part is of another kind.
    """
    for name, kind in (("settings", dict), ("facts", dict), ("runs", list)):
        if not isinstance(run[name], kind):
            raise TypeError(f"{name} is {run[name]!r}.")
    RunSettings.from_json(run["settings"])
    for name in ("model", "encoder", "data"):
        if name not in run["facts"]:
            raise KeyError(f"facts.{name}")
    for one in (*run.get("cells", ()), *(left["cell"] for left in run.get("skipped", ()))):
        Cell(**one)


def _added(held: Any, now: Any) -> Any:
    return {**held, **now} if isinstance(held, Mapping) and isinstance(now, Mapping) else now


def _joined(earlier: RunSettings, now: RunSettings) -> RunSettings:
    """The settings that give all that is in a folder."""
    lists = {
        name: tuple(dict.fromkeys([*getattr(earlier, name), *getattr(now, name)]))
        for name in ("methods", "data", "edits", "protocols")
    }
    flags = ("kl", "fluency", "ability", "sequential", "skip_bad")
    either = {name: getattr(earlier, name) or getattr(now, name) for name in flags}
    whole = {**now.to_json(), **lists, **either, "seeds": max(earlier.seeds, now.seeds)}
    return RunSettings.from_json({**whole, "edits": tuple(sorted(lists["edits"]))})
