"""A small search for a method's own hyperparameters on one model: ``memedit tune METHOD``.

A method that can be searched is a module with, besides what every method has, ``SEARCH``, the values to try of some
fields of its config; ``default_config(model)``; and ``create(subject, config)`` (`Tunable`). A value of ``layer`` is a
depth between 0, the first layer, and 1, the last; one of ``layers`` is two depths, of the lowest layer and the highest.

Every combination is tried on some records, one edit at a time, and the best few on twice as many others. Each record's
prompts are asked as in an evaluation: as a user would, with free greedy decoding. What is counted: the edit's prompt
and its paraphrases whose answer begins with the target; the prompts about other subjects whose answer is, word for
word, the unedited model's, and those whose answer begins with the target, which is wrong there. A combination's score
is the harmonic mean of four shares, the last one counted from 1, each with one success and one failure more than were
seen, so that a share of 0 on few records does not hide the other three.

Records are taken from the beginning of a dataset; nothing may be reported on them. What was tried is kept, record by
record, in the output folder: a search that was stopped goes on when it is started again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from statistics import harmonic_mean
from typing import Any, Protocol, runtime_checkable

from memedit.architectures import architecture_of
from memedit.editors.editor import Editor, MethodInfo
from memedit.editors.registry import load_method, method_names
from memedit.editors.subject import Subject
from memedit.errors import ConfigError, DataFileError
from memedit.evaluation.answering import Answerer, Row
from memedit.evaluation.cases import EvalCase, Probe, Reference
from memedit.evaluation.rendering import prompt_ids
from memedit.evaluation.scoring import read

__all__ = ["FINALISTS", "Trial", "Tunable", "Tuning", "candidates", "tune"]

FINALISTS = 3
"""How many combinations go into the second round."""

ANSWER_TOKENS = 12
"""The most tokens of an answer: targets are short, and what comes behind them is not looked at."""

RULE = (
    "the highest harmonic mean of edit, paraphrase, neighbour_same and 1 - neighbour_target in the second round, each "
    "with one success and one failure added"
)
"""By what a combination is chosen, in the table's words."""

Progress = Callable[[str, int, int], None]


@runtime_checkable
class Tunable(Protocol):
    """A method whose hyperparameters can be searched.

    Attributes:
        INFO: What is known of the method.
        SEARCH: The values to try, by the config's fields.
    """

    INFO: MethodInfo
    SEARCH: Mapping[str, Sequence[Any]]

    def default_config(self, model: Any) -> Any:
        """The config for a model, a dataclass, whose other fields stay as they are."""

    def create(self, subject: Subject, config: Any) -> Editor:
        """Attaches the method to a model with a config."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """What came of one combination on one record."""

    case: str
    edit: tuple[int, int]
    paraphrase: tuple[int, int]
    neighbour_same: tuple[int, int]
    neighbour_target: tuple[int, int]
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A combination and what it came to in a round; each count with the number of prompts.

    Attributes:
        values: The combination, layers as they are counted in the model.
        cases: How many records.
        edit: Edit prompts answered with the target.
        paraphrase: Paraphrases answered with it.
        neighbour_same: Prompts about others answered as before.
        neighbour_target: Prompts about others answered with the target.
        failed: Records on which no edit could be made.
        seconds: An edit on average.
    """

    values: Mapping[str, Any]
    cases: int
    edit: tuple[int, int]
    paraphrase: tuple[int, int]
    neighbour_same: tuple[int, int]
    neighbour_target: tuple[int, int]
    failed: int
    seconds: float

    @property
    def score(self) -> float:
        """The harmonic mean by which combinations are compared."""
        wrong, neighbours = self.neighbour_target
        counts = (self.edit, self.paraphrase, self.neighbour_same, (neighbours - wrong, neighbours))
        return harmonic_mean([(right + 1) / (of + 2) for right, of in counts])


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What a search found.

    Attributes:
        method: The method's name.
        model: The model's.
        data: The dataset.
        first: The trials of the first round, on its first records.
        second: Those of the second, on the records behind them, the best first.
        table: The table's entry, as TOML: what is chosen, and the figures that chose it.
    """

    method: str
    model: str
    data: str
    first: tuple[Trial, ...]
    second: tuple[Trial, ...]
    table: str = field(repr=False)

    @property
    def best(self) -> Trial:
        """The trial that won."""
        return self.second[0]


def candidates(
    search: Mapping[str, Sequence[Any]], layers: int, *, also_layers: Sequence[int] = ()
) -> list[dict[str, Any]]:
    """Every combination of the values to try.

    Args:
        search: The values by field; those of ``layer`` are depths, those of ``layers`` pairs of them.
        layers: How many layers the model has.
        also_layers: Layers to try besides those.
    """

    def placed_at(depth: float) -> int:
        return round(depth * (layers - 1))

    placed = {name: list(values) for name, values in search.items()}
    if "layer" in placed:
        placed["layer"] = [*map(placed_at, placed["layer"]), *also_layers]
    if "layers" in placed:
        placed["layers"] = [tuple(range(placed_at(low), placed_at(high) + 1)) for low, high in placed["layers"]]
    made = [dict(zip(placed, values, strict=True)) for values in product(*placed.values())]
    return [one for place, one in enumerate(made) if one not in made[:place]]


def tune(
    method: str,
    subject: Subject,
    cases: Sequence[EvalCase],
    *,
    out: Path,
    data: str = "cases",
    limit: int = 8,
    also_layers: Sequence[int] = (),
    progress: Progress = lambda stage, done, total: None,  # noqa: ARG005 - tells nobody
) -> Tuning:
    """Search for a method's hyperparameters.

    Args:
        method: The method's name.
        subject: The model, with nothing edited.
        cases: Records with one edit each, three times as many as `limit`. Nothing may be reported on them.
        out: The folder of what was tried; it is continued if it is there. The chosen table is written there too.
        data: What the records are called in the table.
        limit: How many records are in the first round; the second has twice as many, others.
        also_layers: Layers to try besides those that the method tries, such as one that causal tracing names.
        progress: Told how far the search has come.

    Raises:
        ConfigError: The method cannot be searched, or has no layer to choose; there are too few records, or the folder
            has another search.
    """
    module = _tunable(method)
    if also_layers and "layer" not in module.SEARCH:
        raise ConfigError(f"{method} has no layer to choose; it searches {', '.join(module.SEARCH)}.")
    usable = [case for case in cases if len(case.edits) == 1]
    if limit < 1 or len(usable) < 3 * limit:
        raise ConfigError(
            f"a search with {limit} records in the first round needs {3 * limit} with one edit each; there are "
            f"{len(usable)}. Take fewer with limit."
        )
    log = _Log(out / "trials.jsonl", {"method": method, "model": subject.fingerprint, "data": data})
    layers = architecture_of(subject.model).layer_count(subject.model)
    combinations = candidates(module.SEARCH, layers, also_layers=also_layers)
    search = _Search(module, subject, log)
    first_cases, second_cases = usable[:limit], usable[limit : 3 * limit]
    first = search.round("first round", combinations, first_cases, progress)
    ranked = sorted(first, key=lambda trial: -trial.score)
    finalists = [dict(trial.values) for trial in ranked[:FINALISTS]]
    second = sorted(search.round("second round", finalists, second_cases, progress), key=lambda trial: -trial.score)
    made = Tuning(method=method, model=subject.name, data=data, first=tuple(first), second=tuple(second), table="")
    told = (_told(data, first_cases), _told(data, second_cases))
    made = replace(made, table=_table(made, module, subject, told))
    (out / f"{method.replace('-', '_')}.toml").write_text(made.table, encoding="utf-8")
    return made


def _tunable(method: str) -> Tunable:
    module: Any = load_method(method)
    if not isinstance(module, Tunable):
        others = [name for name in method_names() if isinstance(load_method(name), Tunable)]
        raise ConfigError(f"{method} has no hyperparameters to search. Those that have: {', '.join(others)}.")
    return module


class _Log:
    """What came of each combination on each record, one line each, behind a line that says what is searched."""

    def __init__(self, path: Path, about: Mapping[str, str]) -> None:
        self._path = path
        self._known: dict[tuple[str, str], _Outcome] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        if not lines:
            path.write_text(json.dumps(about) + "\n", encoding="utf-8")
            return
        if json.loads(lines[0]) != about:
            raise ConfigError(f"{path} is of another search: {lines[0]}. Take another folder, or remove it.")
        for number, line in enumerate(lines[1:], start=2):
            try:
                key, told = json.loads(line)
                values: dict[str, Any] = {
                    name: tuple(value) if isinstance(value, list) else value for name, value in told.items()
                }
                self._known[key, values["case"]] = _Outcome(**values)
            except (ValueError, TypeError, KeyError, IndexError) as error:
                if number == len(lines):  # the search was stopped while it was written
                    continue
                raise DataFileError(f"{path}:{number} is no outcome: {error}. Remove the line.") from error

    def outcome(self, values: Mapping[str, Any], case: EvalCase, work: Callable[[], _Outcome]) -> _Outcome:
        """What is known of a combination on a record, or else what the work gives."""
        key = json.dumps(values, sort_keys=True)
        if (key, case.id) not in self._known:
            made = work()
            self._known[key, case.id] = made
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n" if not self._ends_a_line() else "")
                file.write(json.dumps([key, asdict(made)]) + "\n")
        return self._known[key, case.id]

    def _ends_a_line(self) -> bool:
        return self._path.read_bytes().endswith(b"\n")


class _Search:
    """One search: tries combinations on records."""

    def __init__(self, module: Tunable, subject: Subject, log: _Log) -> None:
        self._module = module
        self._subject = subject
        self._log = log
        self._answerer = Answerer(subject, max_new_tokens=ANSWER_TOKENS)
        self._base = module.default_config(subject.model)
        self._unedited: dict[str, list[str]] = {}
        self._made: tuple[Mapping[str, Any], Editor] | None = None

    def round(
        self, stage: str, combinations: Sequence[Mapping[str, Any]], cases: Sequence[EvalCase], progress: Progress
    ) -> list[Trial]:
        """Every combination on the same records."""
        trials = []
        for number, values in enumerate(combinations):
            outcomes = []
            for place, case in enumerate(cases):
                progress(stage, number * len(cases) + place, len(combinations) * len(cases))
                outcomes.append(self._log.outcome(values, case, lambda: self._tried(values, case)))  # noqa: B023
            trials.append(_trial(values, outcomes))
        progress(stage, len(combinations) * len(cases), len(combinations) * len(cases))
        return trials

    def _tried(self, values: Mapping[str, Any], case: EvalCase) -> _Outcome:
        """One edit made, asked for, and undone."""
        neighbours = [probe for probe in case.probes if not probe.in_scope]
        if case.id not in self._unedited:
            self._unedited[case.id] = self._answers(neighbours)
        before = self._unedited[case.id]
        editor = self._editor(values)
        started = time.perf_counter()
        try:
            editor.edit(case.edits)
        except ConfigError as error:  # such as training that diverges: a bad combination, and no end of the search
            return _failed(case, str(error), time.perf_counter() - started)
        seconds = time.perf_counter() - started
        try:
            after = self._answers(neighbours)
            told = {kind: [probe for probe in case.probes if probe.kind == kind] for kind in ("edit", "paraphrase")}
            right = {kind: (self._right(probes), len(probes)) for kind, probes in told.items()}
        finally:
            editor.undo()
        target = Reference(answers=(case.edits[0].target,))
        wrong = sum(_begins(text, probe, target) for text, probe in zip(after, neighbours, strict=True))
        same = sum(a == b for a, b in zip(before, after, strict=True))
        return _Outcome(
            case=case.id,
            edit=right["edit"],
            paraphrase=right["paraphrase"],
            neighbour_same=(same, len(neighbours)),
            neighbour_target=(wrong, len(neighbours)),
            seconds=seconds,
        )

    def _editor(self, values: Mapping[str, Any]) -> Editor:
        """The method with a combination; what it sets up once serves all records."""
        if self._made is None or self._made[0] != values:
            self._made = (values, self._module.create(self._subject, replace(self._base, **values)))
        return self._made[1]

    def _right(self, probes: Sequence[Probe]) -> int:
        """How many are answered with the target."""
        answers = self._answers(probes)
        return sum(_begins(text, probe, probe.reference) for text, probe in zip(answers, probes, strict=True))

    def _answers(self, probes: Sequence[Probe]) -> list[str]:
        """What the model says to some prompts, as it is now."""
        rows = [Row(prompt_ids(self._subject, probe.prompt)) for probe in probes]
        return [answer.text for answer in self._answerer.answer(rows)] if rows else []


def _begins(answer: str, probe: Probe, reference: Reference) -> bool:
    match = read(answer, probe.prompt, reference)
    return match is not None and match.start


def _failed(case: EvalCase, error: str, seconds: float) -> _Outcome:
    """The outcome of a record on which no edit could be made: nothing is learnt, and nothing moved."""
    counts = {kind: sum(probe.kind == kind for probe in case.probes) for kind in ("edit", "paraphrase")}
    neighbours = sum(not probe.in_scope for probe in case.probes)
    return _Outcome(
        case=case.id,
        edit=(0, counts["edit"]),
        paraphrase=(0, counts["paraphrase"]),
        neighbour_same=(neighbours, neighbours),
        neighbour_target=(0, neighbours),
        seconds=seconds,
        error=error,
    )


def _trial(values: Mapping[str, Any], outcomes: Sequence[_Outcome]) -> Trial:
    def summed(name: str) -> tuple[int, int]:
        pairs = [getattr(one, name) for one in outcomes]
        return sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)

    return Trial(
        values=values,
        cases=len(outcomes),
        edit=summed("edit"),
        paraphrase=summed("paraphrase"),
        neighbour_same=summed("neighbour_same"),
        neighbour_target=summed("neighbour_target"),
        failed=sum(one.error is not None for one in outcomes),
        seconds=sum(one.seconds for one in outcomes) / len(outcomes),
    )


def _told(data: str, cases: Sequence[EvalCase]) -> str:
    """Which records, in words."""
    return f"{len(cases)} records of {data}, {cases[0].id} to {cases[-1].id}"


def _table(made: Tuning, module: Tunable, subject: Subject, told: tuple[str, str]) -> str:
    """The entry of a table: the config's fields that differ from its defaults, and the figures."""
    architecture = architecture_of(subject.model)
    config = replace(module.default_config(subject.model), **made.best.values)
    defaults = {name: one.default for name, one in type(config).__dataclass_fields__.items()}
    values = {
        name: value for name, value in ((name, getattr(config, name)) for name in defaults) if value != defaults[name]
    }
    lines = [
        f"# How {made.method} works on a model: `values` holds the fields of {type(config).__name__}; `chosen` is for",
        "# people: nothing reads it. A model that has no entry takes the nearest one's values, which were not chosen",
        "# for it. Found by `memedit tune`: one edit at a time, asked as a user would, greedy decoding. edit and",
        "# paraphrase: the answer begins with the target. neighbour_same: the answer is the unedited model's, word for",
        "# word. neighbour_target: it begins with the target, which is wrong there.",
        "",
        "[[models]]",
        f"name = {json.dumps(subject.name)}",
        f"model_type = {json.dumps(architecture.model_type)}",
        f"layers = {architecture.layer_count(subject.model)}",
        f"hidden_size = {subject.model.config.get_text_config().hidden_size}",
        "",
        "[models.values]",
        *(f"{name} = {_toml(value)}" for name, value in values.items()),
        "",
        "[models.chosen]",
        f"rule = {json.dumps(RULE)}",
        f"first_records = {json.dumps(told[0])}",
        f"second_records = {json.dumps(told[1])}",
        "first_round = [",
        *(f"    {_row(trial)}," for trial in made.first),
        "]",
        "second_round = [",
        *(f"    {_row(trial)}," for trial in made.second),
        "]",
    ]
    return "\n".join(lines) + "\n"


def _row(trial: Trial) -> str:
    """A trial as an inline table."""
    counts = {name: getattr(trial, name)[0] for name in ("edit", "paraphrase", "neighbour_same", "neighbour_target")}
    failed = {"failed": trial.failed} if trial.failed else {}
    told = {**trial.values, **counts, **failed, "seconds": round(trial.seconds, 1), "score": round(trial.score, 3)}
    return "{ " + ", ".join(f"{name} = {_toml(value)}" for name, value in told.items()) + " }"


def _toml(value: Any) -> str:
    """A value as TOML has it."""
    return json.dumps(list(value) if isinstance(value, tuple) else value)
