"""Tracing a file of facts: those that the model knows, one after the other, in a folder that can be gone on with.

::

    run.json               what is traced, with which model and settings
    known.json             which facts of the file the model knows, as far as it was asked
    facts/000012.json      the trace of the file's fact 12, counted from 0
    averages.json          the average effects

A fact is known if the model itself says the whole expected answer, choosing the likeliest token each time. The others
are left out and counted, as in Meng et al. 2022, section 2.2. Every file is written whole or not at all, so that a run
that was killed goes on with the fact that it was at. One process writes at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from memedit.edit_files import BadRecord
from memedit.errors import ConfigError, DataFileError, InvalidCaseError
from memedit.evaluation.datasets.source import Source
from memedit.evaluation.files import write_atomically
from memedit.fingerprints import model_fingerprint
from memedit.json_object import read_json_object
from memedit.locate.answers import answers_known
from memedit.locate.averages import Averages, averages_of
from memedit.locate.precision import computing
from memedit.locate.records import Fact, FactTrace
from memedit.locate.tracing import Tracer
from memedit.one_writer import one_writer

__all__ = ["TraceFolder", "read_facts", "trace_facts", "traced_layer"]

_BLOCK = 64
"""Facts that the model is asked together whether it knows them."""

Progress = Callable[[str, int, int | None], None]


def read_facts(path: Path) -> list[Fact]:
    """Read facts from JSON Lines, a JSON list or CSV, with the fields ``prompt``, ``subject`` and ``attribute``.

    The expected answer may also be called ``answer`` or ``target``.

    Raises:
        DataFileError: The file cannot be read, or a record lacks a field; names file and line.
    """
    facts = []
    for record in Source(name=path.stem, root=path.parent, files=(path,), seed=0).records():
        if isinstance(record, BadRecord):
            raise DataFileError(str(record))
        fields = record.fields
        try:
            answer = fields.text("attribute", "answer", "target")
            facts.append(Fact(prompt=fields.text("prompt"), subject=fields.text("subject"), answer=answer))
        except InvalidCaseError as error:
            raise DataFileError(f"{path}:{record.source.line}: {error}") from error
    if not facts:
        raise DataFileError(f"{path}: holds no facts.")
    return facts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """How far the model was asked what it knows.

    Attributes:
        asked: How many facts of the file, from its beginning.
        known: The places of those that it knows.
        unreadable: The places of those whose subject does not stand in their prompt.
    """

    asked: int = 0
    known: tuple[int, ...] = ()
    unreadable: tuple[int, ...] = ()


class TraceFolder:
    """The folder of traces.

    Args:
        path: The folder; made where it is not there.

    Raises:
        DataFileError: It cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            (path / "facts").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataFileError(f"{path} cannot be the folder of traces: {error}") from error

    def locked(self) -> AbstractContextManager[None]:
        """Keeps other processes from writing; see `one_writer`."""
        return one_writer(self.path)

    def begin(self, settings: dict[str, Any]) -> None:
        """Write down what is traced, or see that it is what was traced before.

        Raises:
            ConfigError: The folder holds traces of something else.
        """
        file = self.path / "run.json"
        if file.is_file():
            held = read_json_object(file)
            changed = sorted(name for name in {*held, *settings} if held.get(name) != settings.get(name))
            if changed:
                told = ", ".join(f"{name} ({held.get(name)!r} there)" for name in changed)
                raise ConfigError(
                    f"{self.path} holds traces that differ in {told}; they cannot stand beside these. "
                    "Name another folder."
                )
        else:
            write_atomically(file, json.dumps(settings, indent=1))

    def asked(self) -> _Asked:
        """How far the model was asked what it knows."""
        file = self.path / "known.json"
        if not file.is_file():
            return _Asked()
        held = read_json_object(file)
        try:
            return _Asked(asked=held["asked"], known=tuple(held["known"]), unreadable=tuple(held.get("unreadable", ())))
        except (KeyError, TypeError) as error:
            raise DataFileError(f"{file} is damaged: {error}. Delete it, and the model is asked again.") from error

    def keep_asked(self, asked: _Asked) -> None:
        """Write down how far the model was asked."""
        write_atomically(self.path / "known.json", json.dumps(asdict(asked)))

    def trace(self, place: int) -> FactTrace | None:
        """The trace of a fact; None where there is none.

        Raises:
            DataFileError: It cannot be read.
        """
        file = self._file(place)
        if not file.is_file():
            return None
        try:
            return FactTrace.from_json(read_json_object(file))
        except DataFileError as error:
            raise DataFileError(f"{file}: {error}. Delete it, and the fact is traced again.") from error

    def keep_trace(self, place: int, trace: FactTrace) -> None:
        """Write down the trace of a fact."""
        write_atomically(self._file(place), json.dumps(trace.to_json(), ensure_ascii=False))

    def keep_averages(self, averages: Averages) -> None:
        """Write down the averages."""
        write_atomically(self.path / "averages.json", json.dumps(averages.to_json(), ensure_ascii=False, indent=1))

    def _file(self, place: int) -> Path:
        return self.path / "facts" / f"{place:06d}.json"


def trace_facts(
    tracer: Tracer,
    facts: Sequence[Fact],
    folder: TraceFolder,
    *,
    name: str,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Averages:
    """Trace the facts that the model knows, and average over them.

    Args:
        tracer: The tracer.
        facts: The facts, each with its answer.
        folder: Where the traces are kept; those that are there are not made again.
        name: What the model is called.
        limit: How many known facts are traced, in the order given; None for all.
        progress: Is told how far it has come.

    Raises:
        ConfigError: The folder holds traces of another model, or with other settings.
    """
    report: Progress = progress if progress is not None else _silent
    settings = {
        "model": name,
        "fingerprint": model_fingerprint(tracer.model),
        "facts": _digest(facts),
        "config": json.loads(json.dumps(asdict(tracer.config))),
        "deviation": tracer.deviation,
    }
    with folder.locked():
        folder.begin(settings)
        asked = _ask(tracer, facts, folder, limit, report)
        places = asked.known[:limit]
        traces = []
        for number, place in enumerate(places):
            report("tracing", number, len(places))
            trace = folder.trace(place)
            if trace is None:
                trace = tracer.trace(facts[place])
                folder.keep_trace(place, trace)
            traces.append(trace)
        report("tracing", len(places), len(places))
        averages = averages_of(traces, model=name, asked=asked.asked, known=len(asked.known))
        folder.keep_averages(averages)
    return averages


def traced_layer(path: Path, *, fingerprint: str) -> int:
    """The layer that a folder of traces names, `Averages.traced_layer`.

    Args:
        path: The folder, as `trace_facts` left it.
        fingerprint: That of the model which is asked about.

    Raises:
        DataFileError: It holds no averages, or none of MLPs.
        ConfigError: Its traces are of another model.
    """
    held, averages = read_json_object(path / "run.json"), read_json_object(path / "averages.json")
    if held.get("fingerprint") != fingerprint:
        raise ConfigError(f"{path} holds traces of another model, {held.get('model')!r}; trace this one.")
    try:
        return Averages.from_json(averages).traced_layer()
    except KeyError as error:
        raise DataFileError(f"{path / 'averages.json'} has no averages of MLPs; trace the facts with mlp.") from error


def _ask(tracer: Tracer, facts: Sequence[Fact], folder: TraceFolder, limit: int | None, report: Progress) -> _Asked:
    """Ask the model what it knows until enough is known."""
    asked = folder.asked()
    while asked.asked < len(facts) and (limit is None or len(asked.known) < limit):
        report("asking what is known", asked.asked, len(facts))
        places = range(asked.asked, min(len(facts), asked.asked + _BLOCK))
        readable = [place for place in places if _readable(facts[place])]
        with computing("float32", tracer.model.device):
            answers = answers_known(tracer.model, tracer.tokenizer, [facts[place] for place in readable])
        known = [place for place, is_known in zip(readable, answers, strict=True) if is_known]
        asked = _Asked(
            asked=places.stop,
            known=(*asked.known, *known),
            unreadable=(*asked.unreadable, *(place for place in places if place not in readable)),
        )
        folder.keep_asked(asked)
    return asked


def _readable(fact: Fact) -> bool:
    return fact.subject.strip() in fact.prompt


def _digest(facts: Sequence[Fact]) -> str:
    whole = json.dumps([asdict(fact) for fact in facts], ensure_ascii=False)
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def _silent(_: str, __: int, ___: int | None) -> None:
    """Tells nobody."""
