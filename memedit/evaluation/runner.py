"""Runs an evaluation: reads the data, plans the cells, has the tasks worked through, writes down what comes, reports.

    report = evaluate("smollm2-135m-instruct", methods=["ike", "ft-m"], cases="counterfact:dev", limit=50)

The unedited model is asked first, once; what it said is handed to every other cell, where it is the column beside each
figure, and the answer itself wherever a method leaves a prompt alone. What has been asked before is not asked again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from memedit.editors.editor import Editor, MethodInfo, RoutedEditor
from memedit.editors.registry import Method, create_editor, method_info
from memedit.editors.subject import Subject
from memedit.errors import ConfigError
from memedit.evaluation.ability import Ability, AbilityBench
from memedit.evaluation.ability_data import AbilityData
from memedit.evaluation.cases import EvalCase
from memedit.evaluation.datasets.registry import DataFile, Dataset, data_folder, load_cases
from memedit.evaluation.executors import Executor, InProcess, Processes, RayCluster, TaskError
from memedit.evaluation.figures import CellSummary, EvalReport
from memedit.evaluation.plan import Group, PlacedCase, chosen_cases, groups_of
from memedit.evaluation.provenance import machine, revision, versions
from memedit.evaluation.report.page import render_page
from memedit.evaluation.reporting import report_of
from memedit.evaluation.results import GENERATING, CaseResult, Cell
from memedit.evaluation.results import Protocol as ProtocolName
from memedit.evaluation.runfolder import RunFolder
from memedit.evaluation.settings import RunSettings
from memedit.evaluation.variants import Paragraphs, with_conflicts, with_contexts
from memedit.evaluation.worker import AbilityTask, EditsKey, EvalWorker, Part, Task, edits_key, failed_case

if TYPE_CHECKING:
    from memedit.evaluation.judge import Judge

__all__ = ["Progress", "evaluate", "republish"]

CASES_A_TASK = 32
"""Cases that are asked together: enough for full batches, few enough to lose little when stopped."""


class Progress(Protocol):
    """Told how a run goes on."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """``stage`` is what is at work, ``done`` of ``total`` cases are asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeWorker:
    """Builds a worker in another process.

    Attributes:
        settings: The run's settings.
        data: The data folder, where general ability is measured.
        device: Where the model is put.
    """

    settings: RunSettings
    data: str | None
    device: str | None

    def __call__(self) -> EvalWorker:
        """Loads the model."""
        settings = self.settings
        subject = Subject.load(settings.model, encoder=settings.encoder, dtype=settings.dtype, device=self.device)
        infos = [method_info(name) for name in settings.methods]
        return _worker(subject, settings, self.data, create_editor, infos)


def evaluate(
    model: str | Path | Subject,
    *,
    methods: str | Method | Sequence[str | Method],
    cases: str | Dataset | Sequence[str | Dataset],
    protocol: ProtocolName | Sequence[ProtocolName] = "free",
    out: str | Path | None = None,
    data: str | Path | None = None,
    workers: int = 1,
    ray: str | None = None,
    device: str | None = None,
    judge: Judge | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> EvalReport:
    """Compare editing methods on the same cases.

    Args:
        model: Name or folder of a model, or a loaded one.
        methods: Names of methods, as `memedit methods` lists them, or objects that are one (with ``INFO`` and
            ``create``); the unedited model is always measured beside them.
        cases: Datasets, by name and split or read already.
        protocol: How models are asked and answers are read; one or several.
        out: The run's folder. What is there already is not asked again; other methods, sizes and seeds are added. None
            keeps nothing but the report.
        data: The data folder; None takes the one that ``MEMEDIT_DATA`` names.
        workers: Processes that work side by side, each with a model of its own.
        ray: Address of a Ray cluster to work on, ``"local"`` for one on this machine; ``workers`` then counts its
            actors.
        device: Where the model is put; None for the CPU.
        judge: A model that says of each answer in scope whether it states the reference.
        progress: Told how the run goes on.
        **settings: Other fields of `memedit.evaluation.settings.RunSettings`: ``edits``, ``limit``, ``seeds``,
            ``sequential``, ``distractors``, ``traffic``, ``max_new_tokens``, ``kl``, ``fluency``, ``ability``, ...

    Returns:
        The report over everything in the folder.

    Raises:
        ConfigError: A setting, method, dataset or protocol that is wrong, or a folder whose results cannot stand beside
            these.
        DataFileError: A data file that cannot be read.
        MemeditError: A method cannot edit this model.
    """
    listed = [cases] if isinstance(cases, (str, Dataset)) else list(cases)
    given = [methods] if isinstance(methods, (str, Method)) else list(methods)
    own = {one.INFO.name: one for one in given if not isinstance(one, str)}
    wanted = RunSettings(
        model=model.name if isinstance(model, Subject) else str(model),
        methods=tuple(one if isinstance(one, str) else one.INFO.name for one in given),
        data=tuple(one if isinstance(one, str) else one.name for one in listed),
        protocols=(protocol,) if isinstance(protocol, str) else tuple(protocol),
        **_known(settings),
    )
    with contextlib.ExitStack() as stack:
        folder = RunFolder(Path(out if out is not None else stack.enter_context(tempfile.TemporaryDirectory())))
        stack.enter_context(folder.locked())
        run = _Run(
            wanted,
            folder,
            own=own,
            data=data,
            workers=workers,
            ray=ray,
            device=device,
            judge=judge,
            progress=progress,
        )
        return run.run(model, listed)


def republish(path: Path, *, data: str | Path | None = None) -> EvalReport:
    """Work out the report of a run from its folder, and write it anew.

    Args:
        path: The folder.
        data: The data folder, for the texts of the records that the page shows; without it only their ids are shown.

    Returns:
        The report.

    Raises:
        ConfigError: Nothing was run in the folder.
        DataFileError: A file of it cannot be read.
    """
    folder = RunFolder(path)
    with folder.locked():
        report, results = report_of(folder)
        texts: dict[tuple[str, str], EvalCase] = {}
        if data is not None:
            settings = RunSettings.from_json(report.config)
            traffic = _traffic(load_cases(settings.traffic, data=data), settings) if settings.traffic else []
            for name in settings.data:
                read = load_cases(name, data=data, skip_bad=settings.skip_bad)
                texts |= {(name, case.id): case for case in [*_asked_of(read, settings, str(data)), *traffic]}
        folder.publish(report, render_page(report, results, texts))
    return report


def _asked_of(dataset: Dataset, settings: RunSettings, data: str | None) -> list[EvalCase]:
    """The cases of a dataset that are asked, with the further probes that the settings ask for."""
    cases = chosen_cases(dataset.cases, settings.limit, seed=settings.sample_seed)
    if settings.conflicts:
        cases = with_conflicts(cases)
    if settings.contexts:
        paragraphs = Paragraphs.load(data_folder(data))
        seed, words = settings.sample_seed, settings.document_words
        cases = with_contexts(cases, settings.contexts, paragraphs, document_words=words, seed=seed)
    return cases


def _traffic(dataset: Dataset, settings: RunSettings) -> list[EvalCase]:
    """The questions that no edit concerns."""
    if any(case.edits for case in dataset.cases):
        raise ConfigError(f"'{dataset.name}' is no traffic: its cases have edits.")
    return chosen_cases(dataset.cases, settings.traffic_limit, seed=settings.sample_seed)


@dataclass(slots=True)
class _Job:
    """A cell that is to be asked, with its groups."""

    cell: Cell
    groups: list[Group]


class _Run:
    """One go at a run."""

    def __init__(
        self,
        settings: RunSettings,
        folder: RunFolder,
        *,
        own: Mapping[str, Method],
        data: str | Path | None,
        workers: int,
        ray: str | None,
        device: str | None,
        judge: Judge | None,
        progress: Progress | None,
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.own = own
        self.data = None if data is None else str(data)
        self.workers = workers
        self.ray = ray
        self.device = device
        self.judge = judge
        self.progress: Progress = progress if progress is not None else _silent
        self.texts: dict[tuple[str, str], EvalCase] = {}

    def run(self, model: str | Path | Subject, listed: Sequence[str | Dataset]) -> EvalReport:
        """Do it; see `evaluate`."""
        settings, started = self.settings, time.perf_counter()
        infos = {name: self._info(name) for name in ("base", *settings.methods)}
        datasets = [self._read(one) for one in listed]
        others = [self._read(name) for name in (settings.distractors, settings.traffic) if name is not None]
        jobs, skipped = self._planned(datasets, others, infos)
        if isinstance(model, Subject):
            subject = model
        else:
            self.progress("loading the model", 0, 0)
            subject = Subject.load(model, encoder=settings.encoder, dtype=settings.dtype, device=self.device)
        self._check(subject, infos)
        facts = {
            "model": subject.fingerprint,
            "encoder": subject.encoder.fingerprint,
            "data": {file.name: file.sha256 for one in [*datasets, *others] for file in one.files},
            "datasets": {one.name: {file.name: file.sha256 for file in one.files} for one in [*datasets, *others]},
            "bad_records": {one.name: len(one.bad) for one in [*datasets, *others] if one.bad},
            "methods": {name: asdict(info) for name, info in infos.items()},
        }
        run = self.folder.begin(settings, facts)
        self.folder.remember_cells(run, [job.cell for job in jobs], skipped)
        self.folder.note(
            run,
            {
                "began": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": None,
                "cases_asked": None,
                "workers": self.workers if self.ray is None else f"{self.workers} on Ray",
                "command": settings.command(),
                "versions": versions(),
                "revision": revision(),
                "machine": machine(),
            },
        )
        with self._executor(model, subject) as executor:
            asked = self._ask(executor, jobs)
        if self.judge is not None:
            self._have_judged(self.judge, jobs)
        self.folder.close_note(run, {"seconds": round(time.perf_counter() - started, 1), "cases_asked": asked})
        report, results = report_of(self.folder)
        self.folder.publish(report, render_page(report, results, self.texts))
        return report

    def _info(self, name: str) -> MethodInfo:
        return self.own[name].INFO if name in self.own else method_info(name)

    def _create(self, name: str, subject: Subject) -> Editor:
        return self.own[name].create(subject) if name in self.own else create_editor(name, subject)

    # -- data and plan ---------------------------------------------------------------------------------------------

    def _read(self, given: str | Dataset) -> Dataset:
        if isinstance(given, Dataset):
            return given if given.files else replace(given, files=(_hashed(given),))
        return load_cases(given, data=self.data, skip_bad=self.settings.skip_bad)

    def _planned(
        self, datasets: Sequence[Dataset], others: Sequence[Dataset], infos: Mapping[str, MethodInfo]
    ) -> tuple[list[_Job], list[CellSummary]]:
        """What is to be asked, the unedited model first, and what is left out because it does not apply."""
        settings = self.settings
        named = {one.name: one for one in others}
        distractors = named[settings.distractors].cases if settings.distractors else ()
        traffic = _traffic(named[settings.traffic], settings) if settings.traffic else []
        first, then, skipped = [], [], []
        for dataset in datasets:
            asked = _asked_of(dataset, settings, self.data)
            ids = {case.id for case in asked}
            spare = [case for case in dataset.cases if case.id not in ids]
            everything = [*asked, *traffic]
            self.texts |= {(dataset.name, case.id): case for case in everything}
            for protocol in dict.fromkeys(_asking(one) for one in settings.protocols):
                whole = Group(0, (), tuple(PlacedCase(case, 0) for case in everything))
                first.append(_Job(Cell(dataset=dataset.name, method="base", protocol=protocol, edits=0), [whole]))
            for edits in settings.edits:
                for seed in range(settings.seeds):
                    groups = groups_of(
                        everything,
                        edits=edits,
                        seed=seed,
                        distractors=spare,
                        more=distractors,
                        where=f"'{dataset.name}'",
                    )
                    for method in (name for name in settings.methods if name != "base"):
                        for protocol in settings.protocols:
                            cell = Cell(
                                dataset=dataset.name,
                                method=method,
                                protocol=protocol,
                                edits=edits,
                                seed=seed,
                                sequential=settings.sequential,
                            )
                            why = _inapplicable(infos[method], protocol)
                            if why is not None:
                                skipped.append(_skipped(cell, why))
                            else:
                                then.append(_Job(cell, groups))
        return [*first, *then], skipped

    def _check(self, subject: Subject, infos: Mapping[str, MethodInfo]) -> None:
        """Attaches every method once, so that one that cannot work says so before anything is asked."""
        routed = {"oracle-router", "no-router"} & set(self.settings.protocols)
        for name in infos:
            editor = self._create(name, subject)
            told = infos[name].oracle or (routed and _inapplicable(infos[name], "oracle-router") is None)
            if told and not isinstance(editor, RoutedEditor):
                raise ConfigError(
                    f"The method '{name}' is told the edit, or changes a memory, but has no treat_told and "
                    "treat_unscoped; see memedit.editors.editor.RoutedEditor."
                )

    # -- work ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _executor(self, model: str | Path | Subject, subject: Subject) -> Iterator[Executor[Any, Any]]:
        """Who does the work; a model that was handed over is left as it was."""
        elsewhere = self.workers > 1 or self.ray is not None
        if elsewhere and isinstance(model, Subject):
            raise ConfigError("A loaded model cannot be sent to other processes; give its name or folder.")
        if elsewhere and self.own:
            raise ConfigError(
                f"Methods cannot be sent to other processes: {', '.join(self.own)}; register them under the entry "
                "point memedit.editors and give their names."
            )
        make = MakeWorker(settings=self.settings, data=self.data, device=self.device)
        executor: Executor[Any, Any]
        if self.ray is not None:
            executor = RayCluster(make, address=self.ray, workers=self.workers)
        elif elsewhere:
            executor = Processes(make, workers=self.workers)
        else:
            infos = [self._info(name) for name in self.settings.methods]
            worker = _worker(subject, self.settings, self.data, self._create, infos)
            executor = InProcess(lambda: worker)
        try:
            yield executor
        finally:
            executor.close()
            if not elsewhere:
                worker.close()

    def _ask(self, executor: Executor[Any, Any], jobs: Sequence[_Job]) -> int:
        """Ask and measure whatever has not been asked and measured; returns how many cases were asked."""
        left = sum(len(group.cases) for job in jobs for group in job.groups)
        total = left
        asked = 0
        unmeasured: list[str] = []
        unedited: dict[tuple[str, str], dict[str, CaseResult]] = {}
        for base in (True, False):
            tasks: list[Task | AbilityTask] = []
            for job in jobs:
                if (job.cell.method == "base") is not base:
                    continue
                there = {name: one for name, one in self.folder.results(job.cell).items() if one.error is None}
                before = {} if base else unedited[job.cell.dataset, _asking(job.cell.protocol)]
                apart = self._info(job.cell.method).changes == "weights"
                planned = _tasks(job, before, apart=apart)
                tasks += [rest for task in planned if (rest := _without(task, set(there))) is not None]
                if not base and self._lacks_ability(job.cell):
                    tasks.append(AbilityTask(job.cell, job.groups[0]))
                left -= sum(placed.case.id in there for group in job.groups for placed in group.cases)
            tasks = _by_edits(tasks)
            for place, outcome in executor.run(tasks):
                task = tasks[place]
                if isinstance(outcome, Ability):
                    self.folder.write_ability(task.cell, outcome)
                elif isinstance(task, AbilityTask):
                    unmeasured.append(f"{task.cell.key}: {outcome.message}")
                else:
                    for result in _results(task, outcome):
                        self.folder.append(task.cell, result)
                        asked += 1
                        left -= 1
                self.progress(f"{task.cell.dataset} {task.cell.method}", total - left, total)
            if base:
                for job in jobs:
                    if job.cell.method == "base":
                        found = self.folder.results(job.cell)
                        whole = {case: result for case, result in found.items() if result.error is None}
                        unedited[job.cell.dataset, job.cell.protocol] = whole
        if unmeasured:
            raise ConfigError(f"General ability could not be measured for {'; '.join(unmeasured)}")
        return asked

    def _lacks_ability(self, cell: Cell) -> bool:
        return self.settings.ability and cell.protocol == "free" and self.folder.ability(cell) is None

    def _have_judged(self, judge: Judge, jobs: Sequence[_Job]) -> None:
        """Adds the judge's verdicts on answers in scope, also to what was asked in an earlier run."""
        from memedit.evaluation.judge import Judgement

        chosen = [job.cell for job in jobs if job.cell.protocol in GENERATING]
        for number, cell in enumerate(chosen, start=1):
            results = self.folder.results(cell).values()
            waiting = {
                (result.case, probe.place): Judgement(asked.prompt.text, probe.answer, asked.reference.answers)
                for result in results
                for probe in result.probes
                if probe.in_scope and probe.answer and probe.verdict is None
                for asked in [self.texts[cell.dataset, result.case].probes[probe.place]]
            }
            told = dict(zip(waiting, judge.verdicts(list(waiting.values())), strict=True))
            for result in results:
                probes = tuple(
                    replace(probe, verdict=told.get((result.case, probe.place), probe.verdict))
                    for probe in result.probes
                )
                if probes != result.probes:
                    self.folder.append(cell, replace(result, probes=probes))
            self.progress("judge", number, len(chosen))


def _worker(
    subject: Subject,
    settings: RunSettings,
    data: str | None,
    create: Callable[[str, Subject], Editor],
    infos: Sequence[MethodInfo],
) -> EvalWorker:
    bench = None
    if settings.ability:
        changes = any(info.changes == "weights" for info in infos)
        bench = AbilityBench(subject, AbilityData.load(data), keep_model=changes)
    return EvalWorker(subject, create, settings, bench=bench)


def _by_edits(tasks: Sequence[Task | AbilityTask]) -> list[Task | AbilityTask]:
    """The tasks with those behind one another that ask of the same edits, so that these are made once."""
    order: dict[EditsKey, int] = {}

    def place(task: Task | AbilityTask) -> int:
        group = task.group if isinstance(task, AbilityTask) else task.parts[0].group
        return order.setdefault(edits_key(task.cell, group), len(order))

    return sorted(tasks, key=place)


def _tasks(job: _Job, unedited: Mapping[str, CaseResult], *, apart: bool) -> list[Task]:
    """A job in tasks of so many cases; which case is in which does not depend on what is done already.

    Args:
        job: The job.
        unedited: What the unedited model said.
        apart: Whether no task has cases of several groups, as where their edits cannot be in place together.
    """
    tasks: list[Task] = []
    parts: list[Part] = []

    def close() -> None:
        ids = {case for part in parts for case in part.wanted}
        tasks.append(Task(job.cell, tuple(parts), {name: one for name, one in unedited.items() if name in ids}))
        parts.clear()

    size = 0
    for group in job.groups:
        ids = [placed.case.id for placed in group.cases]
        for start in range(0, len(ids), CASES_A_TASK):
            some = ids[start : start + CASES_A_TASK]
            if parts and (apart or size + len(some) > CASES_A_TASK):
                close()
                size = 0
            parts.append(Part(group, frozenset(some)))
            size += len(some)
    if parts:
        close()
    return tasks


def _without(task: Task, done: set[str]) -> Task | None:
    """A task without the cases that are done; None where none is left."""
    parts = tuple(Part(part.group, part.wanted - done) for part in task.parts if part.wanted - done)
    return replace(task, parts=parts) if parts else None


def _results(task: Task, outcome: list[CaseResult] | TaskError) -> list[CaseResult]:
    """What came of a task's cases, also where the worker was lost."""
    if not isinstance(outcome, TaskError):
        return outcome
    return [
        failed_case(placed, part.group, f"{outcome.type}: {outcome.message}")
        for part in task.parts
        for placed in part.placed()
    ]


def _asking(protocol: ProtocolName) -> ProtocolName:
    """The protocol under which the unedited model is asked in the same way."""
    return "free" if protocol in GENERATING else protocol


def _inapplicable(info: MethodInfo, protocol: ProtocolName) -> str | None:
    """Why a protocol does not apply to a method; None where it does."""
    if protocol in ("oracle-router", "no-router"):
        if info.oracle:
            return "it is told the edit already"
        if info.changes != "memory":
            return "it routes nothing"
    return None


def _skipped(cell: Cell, why: str) -> CellSummary:
    return CellSummary(cell=cell, cases=0, not_testable=0, failed=0, skipped=why)


def _known(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name, numbers given alone taken as lists of one."""
    known = set(RunSettings.__dataclass_fields__) - {"model", "methods", "data", "protocols"}
    for name in settings:
        if name not in known:
            raise ConfigError(f"evaluate has no setting {name!r}; it has {', '.join(sorted(known))}.")
    edits = settings.get("edits", (1,))
    return {**settings, "edits": (edits,) if isinstance(edits, int) else tuple(edits)}


def _hashed(dataset: Dataset) -> DataFile:
    """Stands for the file of cases that were made in code."""
    text = json.dumps([case.to_json() for case in dataset.cases], sort_keys=True, default=str)
    return DataFile(name=f"({dataset.name}, made in code)", sha256=hashlib.sha256(text.encode()).hexdigest())


def _silent(stage: str, done: int, total: int) -> None:
    """Tells nobody."""
