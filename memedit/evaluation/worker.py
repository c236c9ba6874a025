"""Asks: makes the edits of a group, puts every probe of its cases to the edited model, and scores what comes back.

One worker holds one model and works through tasks, in this process or another. Between the tasks of one group the edits
stay in place, whatever protocol it is asked under. The order of things in a task keeps the gold answer away from
whoever answers: prompts become token ids, the method treats the ids, the model generates, and only then are answers and
references brought together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING

from memedit.editors.editor import EditCost, Editor, RoutedEditor, TokenIds, Treatment
from memedit.editors.subject import Subject
from memedit.errors import ConfigError
from memedit.evaluation.ability import Ability, AbilityBench
from memedit.evaluation.answering import Answer, Answerer, Row
from memedit.evaluation.cases import EvalCase, Probe, ProbePrompt, folded
from memedit.evaluation.fluency import ngram_entropy
from memedit.evaluation.peak_memory import PeakMemory
from memedit.evaluation.plan import Group, PlacedCase
from memedit.evaluation.rendering import answer_ids, bare_ids, prompt_ids
from memedit.evaluation.results import (
    GENERATING,
    CaseResult,
    Cell,
    EditingCost,
    ForcedScore,
    Likelihoods,
    ProbeResult,
)
from memedit.evaluation.scoring import is_said, overlap, read, routed, says_old
from memedit.evaluation.settings import RunSettings
from memory_store import Edit

if TYPE_CHECKING:
    import torch

__all__ = ["AbilityTask", "EditsKey", "EvalWorker", "Part", "Task", "edits_key", "failed_case"]

FLUENCY_TOKENS = 100
"""How long a text fluency is measured on may become (Meng et al. 2022, section 5.1)."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some cases of a group.

    Attributes:
        group: The group.
        wanted: Ids of the cases that are asked now.
    """

    group: Group
    wanted: frozenset[str]

    def placed(self) -> list[PlacedCase]:
        """The cases that are asked now."""
        return [one for one in self.group.cases if one.case.id in self.wanted]


@dataclass(frozen=True, slots=True)
class Task:
    """Cases of one cell that are asked together.

    Attributes:
        cell: The cell.
        parts: The cases, by group.
        unedited: What came of each case with the unedited model, under the protocol's own way of asking; empty for the
            unedited model itself.
    """

    cell: Cell
    parts: tuple[Part, ...]
    unedited: Mapping[str, CaseResult]


@dataclass(frozen=True, slots=True)
class AbilityTask:
    """A cell whose general ability is measured.

    Attributes:
        cell: The cell.
        group: The group whose edits are in place.
    """

    cell: Cell
    group: Group


EditsKey = tuple[Cell, int]
"""What says which edits are in place, and how they were made."""


def edits_key(cell: Cell, group: Group) -> EditsKey:
    """The same for the cells of a method that differ in the protocol alone: their edits are the same ones."""
    return replace(cell, protocol="free"), group.id


@dataclass(slots=True)
class _Editing:
    """The edits in place."""

    key: EditsKey
    editor: Editor
    cost: EditCost
    next_before: dict[tuple[int, ...], torch.Tensor]
    """The unedited model's next-token log-probabilities, where the method changes weights."""


@dataclass(slots=True)
class _Asked:
    """One probe on its way."""

    case: PlacedCase
    place: int
    probe: Probe
    ids: tuple[int, ...]
    treatment: Treatment
    answer: Answer | None = None
    kl: float | None = None
    forced: ForcedScore | None = None
    likelihoods: Likelihoods | None = None


@dataclass
class _Prepared:
    """Cases of one group, treated, and on their way to be answered."""

    part: Part
    asked: list[_Asked] = field(default_factory=list)
    texts: dict[str, Row] = field(default_factory=dict)
    """For each case the prompt of the text that fluency is measured on."""
    failed: dict[str, Exception] = field(default_factory=dict)
    cost: EditCost | None = None
    next_before: Mapping[tuple[int, ...], torch.Tensor] = field(default_factory=dict)
    weights: bool = False

    @cached_property
    def askers(self) -> dict[str, set[tuple[str, str]]]:
        """The texts that ask for an edit in place."""
        return self.part.group.askers()


class EvalWorker:
    """Works through tasks with one model.

    Args:
        subject: The model.
        create_editor: Attaches a method to the model, by name.
        settings: What the run is asked to do.
        bench: What measures general ability, made while nothing was edited; needed for tasks that ask for it.
    """

    def __init__(
        self,
        subject: Subject,
        create_editor: Callable[[str, Subject], Editor],
        settings: RunSettings,
        *,
        bench: AbilityBench | None = None,
    ) -> None:
        self.subject = subject
        self.settings = settings
        self._bench = bench
        self._create = create_editor
        self._editors: dict[str, Editor] = {}
        self._editing: _Editing | None = None
        self._answerer = Answerer(subject, max_new_tokens=settings.max_new_tokens, batch_tokens=settings.batch_tokens)
        subject.encoder.encode(["ready"])  # loads it now, so that no edit's cost includes it

    def __call__(self, task: Task | AbilityTask) -> list[CaseResult] | Ability:
        """Ask the cases of a task, or measure general ability.

        Returns:
            One result a case, in the task's order. A case that fails is a result that says why.

        Raises:
            ConfigError: General ability is asked for without the means.
        """
        if isinstance(task, AbilityTask):
            if self._bench is None:
                raise ConfigError("general ability was not asked for when the worker was made")
            return self._bench.measure(self._edited(task.cell, task.group).editor)
        memory = PeakMemory()
        results: list[CaseResult] = []
        waiting: list[_Prepared] = []
        for part in task.parts:
            prepared = self._prepared(task, part)
            waiting.append(prepared)
            if prepared.weights:  # they hold until the next group's edits
                results.extend(self._worked_out(task, waiting, memory))
                waiting = []
        return [*results, *self._worked_out(task, waiting, memory)]

    def close(self) -> None:
        """Take back the edits in place."""
        if self._editing is not None:
            self._editing.editor.undo()
            self._editing = None

    # -- editing ---------------------------------------------------------------------------------------------------

    def _edited(self, cell: Cell, group: Group) -> _Editing:
        """The method with the edits of a group in place, those of any other group taken back."""
        key = edits_key(cell, group)
        if self._editing is not None and self._editing.key == key:
            return self._editing
        self.close()
        if cell.method not in self._editors:
            self._editors[cell.method] = self._create(cell.method, self.subject)
        editor = self._editors[cell.method]
        before: dict[tuple[int, ...], torch.Tensor] = {}
        generating = not set(GENERATING).isdisjoint(self.settings.protocols)
        if editor.info.changes == "weights" and self.settings.kl and generating:
            rows = [Row(ids) for ids in self._out_of_scope(group)]
            before = dict(zip((row.ids for row in rows), self._answerer.next_log_probabilities(rows), strict=True))
        try:
            cost = _made(editor, group.edits, one_by_one=cell.sequential or not editor.info.batch)
        except BaseException:
            editor.undo()
            raise
        self._editing = _Editing(key, editor, cost, before)
        return self._editing

    def _out_of_scope(self, group: Group) -> list[tuple[int, ...]]:
        prompts = [probe.prompt for placed in group.cases for probe in placed.case.probes if not probe.in_scope]
        return list(dict.fromkeys(prompt_ids(self.subject, prompt) for prompt in prompts))

    # -- asking ----------------------------------------------------------------------------------------------------

    def _prepared(self, task: Task, part: Part) -> _Prepared:
        """Makes the edits of a group and has the method say how it treats each prompt of the wanted cases."""
        prepared = _Prepared(part)
        try:
            editing = self._edited(task.cell, part.group)
        except Exception as error:  # noqa: BLE001 - whatever a method raises is that case's result, told in it
            self._editing = None
            prepared.failed = {placed.case.id: error for placed in part.placed()}
            return prepared
        prepared.cost, prepared.next_before = editing.cost, editing.next_before
        prepared.weights = editing.editor.info.changes == "weights"
        missing = ConfigError("the unedited model could not be asked this case")
        prepared.failed = {
            placed.case.id: missing
            for placed in part.placed()
            if task.cell.edits and placed.case.id not in task.unedited
        }
        cases = [placed for placed in part.placed() if placed.case.id not in prepared.failed]
        try:
            self._treat(task.cell, editing.editor, cases, prepared)
        except Exception:  # noqa: BLE001 - as above; one by one, so that only the culprit fails
            for placed in cases:
                try:
                    self._treat(task.cell, editing.editor, [placed], prepared)
                except Exception as error:  # noqa: BLE001 - as above
                    prepared.failed[placed.case.id] = error
        return prepared

    def _treat(self, cell: Cell, editor: Editor, cases: Sequence[PlacedCase], prepared: _Prepared) -> None:
        """Adds the probes of some cases as the method treats them, having seen their token ids alone."""
        render = prompt_ids if cell.protocol in GENERATING else bare_ids
        chosen = [
            (placed, place, probe, render(self.subject, probe.prompt))
            for placed in cases
            for place, probe in enumerate(placed.case.probes)
            if _is_asked(cell.protocol, placed.case, probe)
        ]
        golds = [(_gold(placed.case, probe), probe.in_scope) for placed, _, probe, _ in chosen]
        treatments = _treated(cell, editor, [ids for *_, ids in chosen], golds)
        told = [(placed, ids) for placed in cases if (ids := self._fluency_ids(cell, placed.case)) is not None]
        texts = _treated(cell, editor, [ids for _, ids in told], [(placed.case.edits[:1], True) for placed, _ in told])
        prepared.asked += [
            _Asked(placed, place, probe, ids, treatment)
            for (placed, place, probe, ids), treatment in zip(chosen, treatments, strict=True)
        ]
        prepared.texts |= {
            placed.case.id: Row(ids, treatment.context, treatment.model)
            for (placed, ids), treatment in zip(told, texts, strict=True)
        }

    def _worked_out(self, task: Task, prepared: Sequence[_Prepared], memory: PeakMemory) -> list[CaseResult]:
        """Answers the probes of some groups together, and scores them."""
        asked = [one for part in prepared for one in part.asked]
        weights = any(part.weights for part in prepared)
        next_before = {ids: value for part in prepared for ids, value in part.next_before.items()}

        def work(some: Sequence[_Asked]) -> None:
            if task.cell.protocol in GENERATING:
                self._generate(task, some, next_before, weights=weights)
            else:
                self._rate(task, some)

        failed = self._worked(asked, work) if asked else {}
        return [
            self._result(task, part, placed, memory, failed.get(placed.case.id) or part.failed.get(placed.case.id))
            for part in prepared
            for placed in part.part.placed()
        ]

    def _worked(self, asked: Sequence[_Asked], work: Callable[[Sequence[_Asked]], None]) -> dict[str, Exception]:
        """Work on all cases together; where that fails, on each alone, so that only the culprit fails."""
        try:
            work(asked)
        except Exception as error:  # noqa: BLE001 - as above
            cases = list(dict.fromkeys(one.case.case.id for one in asked))
            if len(cases) == 1:
                return {cases[0]: error}
            failed: dict[str, Exception] = {}
            for case in cases:
                failed |= self._worked([one for one in asked if one.case.case.id == case], work)
            return failed
        return {}

    def _generate(
        self,
        task: Task,
        asked: Sequence[_Asked],
        next_before: Mapping[tuple[int, ...], torch.Tensor],
        *,
        weights: bool,
    ) -> None:
        """Generate where the method changes anything, and take the unedited model's answer where it does not."""
        changed = []
        for one in asked:
            before = _before(task, one)
            untouched = one.treatment.context is None and one.treatment.model is None and not weights
            if before is None or before.answer is None or not untouched:
                changed.append(one)
            else:
                one.answer = Answer(before.answer, 0, before.cut, before.seconds or 0.0)
                one.kl = 0.0
        rows = [Row(one.ids, one.treatment.context, one.treatment.model) for one in changed]
        for one, answer in zip(changed, self._answerer.answer(rows, remember=not weights), strict=True):
            one.answer = answer
        if not self.settings.kl or not task.unedited:
            return
        # what a model of another vocabulary has answered leaves no distribution to compare
        outside = [one for one in changed if not one.probe.in_scope and not _recited(one.treatment)]
        rows = [Row(one.ids, one.treatment.context, one.treatment.model) for one in outside]
        if weights:
            unedited = [next_before[one.ids] for one in outside]
        else:
            unedited = self._answerer.next_log_probabilities([Row(one.ids) for one in outside])
        for one, value in zip(outside, self._answerer.divergences(rows, unedited), strict=True):
            one.kl = value

    def _rate(self, task: Task, asked: Sequence[_Asked]) -> None:
        """Rate reference answers behind the bare prompt: the legacy protocols."""
        told = [(one, text) for one in asked for text in _rated_answers(task.cell, one)]
        rows = [Row(one.ids, one.treatment.context, one.treatment.model) for one, _ in told]
        behind = [answer_ids(self.subject, text) for _, text in told]
        ratings = iter(self._answerer.rate(rows, behind) if rows else ())
        tokens = iter(behind)
        for one in asked:
            before = _before(task, one)
            if task.cell.protocol == "teacher-forced":
                rating, wanted = next(ratings), next(tokens)
                accuracy = fmean(a == b for a, b in zip(rating.likeliest, wanted, strict=True))
                earlier = before.forced if before is not None else None
                one.forced = ForcedScore(
                    accuracy=accuracy,
                    before=earlier.accuracy if earlier is not None else accuracy,
                    unchanged=1.0
                    if earlier is None
                    else fmean(a == b for a, b in zip(rating.likeliest, earlier.likeliest, strict=True)),
                    likeliest=rating.likeliest,
                )
            else:
                new, old = next(ratings).mean, next(ratings).mean
                known = before.likelihoods if before is not None else None
                one.likelihoods = Likelihoods(
                    new=new,
                    old=old,
                    new_before=known.new if known is not None else new,
                    old_before=known.old if known is not None else old,
                )

    # -- scoring ---------------------------------------------------------------------------------------------------

    def _result(
        self, task: Task, prepared: _Prepared, placed: PlacedCase, memory: PeakMemory, error: Exception | None
    ) -> CaseResult:
        made, case = len(prepared.part.group.edits), placed.case
        if error is not None or prepared.cost is None:
            why = error if error is not None else ConfigError("no edits were made")
            return failed_case(placed, prepared.part.group, f"{type(why).__name__}: {why}")
        base = task.unedited.get(case.id)
        mine = [one for one in prepared.asked if one.case.case.id == case.id]
        probes = tuple(self._scored(task, one, prepared.askers) for one in mine)
        if base is None:
            probes = self._with_conditions(task.cell, case, probes)
        fluency = self._fluency(prepared, case)
        return CaseResult(
            case=case.id,
            position=placed.position,
            made=made,
            testable=base.testable if base is not None else _is_testable(task.cell, probes),
            probes=probes,
            cost=EditingCost(
                edits=prepared.cost.edits,
                seconds=prepared.cost.seconds,
                setup_seconds=prepared.cost.setup_seconds,
                stored_bytes=prepared.cost.stored_bytes,
                treat_seconds=sum(one.treatment.cost for one in mine) / max(1, len(mine)),
                peak_bytes=memory.peak(),
            ),
            topic=case.topic,
            fluency=fluency,
            fluency_before=base.fluency if base is not None else fluency,
        )

    def _scored(self, task: Task, one: _Asked, asks: dict[str, set[tuple[str, str]]]) -> ProbeResult:
        probe, reference = one.probe, one.probe.reference
        before = _before(task, one)
        result = ProbeResult(
            place=one.place,
            kind=probe.kind,
            base_kind=probe.base_kind,
            in_scope=probe.in_scope,
            group=probe.group.id if probe.group is not None else None,
            group_rule=probe.group.rule if probe.group is not None else None,
            left_out=_left_out(task.cell, probe, before, asks),
            kl=one.kl,
            forced=one.forced,
            likelihoods=one.likelihoods,
        )
        if one.treatment.decision is not None:
            gold = _gold(one.case.case, probe) if probe.in_scope else ()
            result = replace(result, routed=routed(one.treatment.decision, probe, gold=gold, asked=asks))
        if one.answer is None:
            return result
        text = one.answer.text
        said_before = before.answer if before is not None and before.answer is not None else text
        return replace(
            result,
            answer=text,
            before=said_before,
            match=read(text, probe.prompt, reference),
            match_before=read(said_before, probe.prompt, reference),
            old_said=says_old(text, probe.prompt, reference),
            old_said_before=says_old(said_before, probe.prompt, reference),
            overlap=overlap(text, reference),
            overlap_before=overlap(said_before, reference),
            cut=one.answer.cut,
            seconds=one.answer.seconds,
        )

    def _with_conditions(self, cell: Cell, case: EvalCase, probes: tuple[ProbeResult, ...]) -> tuple[ProbeResult, ...]:
        """Leaves out the probes whose conditions the unedited model does not meet."""
        if cell.protocol not in GENERATING:
            return probes
        conditions = [(result.place, one) for result in probes for one in case.probes[result.place].conditions]
        rows = [Row(prompt_ids(self.subject, one.prompt)) for _, one in conditions]
        answers = self._answerer.answer(rows, remember=True) if rows else []
        unmet = {
            place
            for (place, one), answer in zip(conditions, answers, strict=True)
            if not is_said(read(answer.text, one.prompt, one.reference))
        }
        return tuple(
            replace(result, left_out="condition not met") if result.place in unmet else result for result in probes
        )

    def _fluency_ids(self, cell: Cell, case: EvalCase) -> tuple[int, ...] | None:
        """The prompt for a text about the subject of the case's first edit; None where none is wanted."""
        subject = case.edits[0].subject if case.edits else None
        if not self.settings.fluency or subject is None or cell.protocol != "free":
            return None
        text = f"Tell me about {subject}." if self.subject.chats else f"{subject} is"
        return prompt_ids(self.subject, ProbePrompt(text=text))

    def _fluency(self, prepared: _Prepared, case: EvalCase) -> float | None:
        """The entropy of the text about the case's subject, in bits; None where there is none."""
        row = prepared.texts.get(case.id)
        if row is None:
            return None
        (answer,) = self._answerer.answer([row], max_new_tokens=FLUENCY_TOKENS, remember=not prepared.weights)
        return ngram_entropy(answer.text)


def _recited(treatment: Treatment) -> bool:
    """Whether a model of another vocabulary answers."""
    return treatment.context is not None and treatment.context.script is not None


def failed_case(placed: PlacedCase, group: Group, error: str) -> CaseResult:
    """What is written down of a case that could not be asked.

    Args:
        placed: The case.
        group: The group that it is part of.
        error: What went wrong.
    """
    return CaseResult(
        case=placed.case.id,
        position=placed.position,
        made=len(group.edits),
        testable=True,
        probes=(),
        topic=placed.case.topic,
        error=error,
    )


def _made(editor: Editor, edits: Sequence[Edit], *, one_by_one: bool) -> EditCost:
    """Make edits, together or one after the other, and say what all of them cost."""
    if not edits:
        return EditCost(edits=0, seconds=0.0)
    costs = [editor.edit([edit]) for edit in edits] if one_by_one else [editor.edit(edits)]
    stored = [cost.stored_bytes for cost in costs]
    return EditCost(
        edits=sum(cost.edits for cost in costs),
        seconds=sum(cost.seconds for cost in costs),
        setup_seconds=sum(cost.setup_seconds for cost in costs),
        stored_bytes=None if None in stored else sum(one for one in stored if one is not None),
    )


def _treated(
    cell: Cell, editor: Editor, prompts: Sequence[TokenIds], golds: Sequence[tuple[tuple[Edit, ...], bool]]
) -> list[Treatment]:
    """How a method treats prompts in a cell: by itself, unless the protocol or the method says that it is told.

    Args:
        cell: The cell.
        editor: The method.
        prompts: Token ids of each prompt.
        golds: For each the edits that it belongs to, and whether these govern it. Only methods that are told see them.
    """
    if not prompts:
        return []
    if cell.protocol not in ("oracle-router", "no-router") and not editor.info.oracle:
        return editor.treat(prompts)
    if not isinstance(editor, RoutedEditor):
        raise ConfigError(f"{editor.info.name} routes nothing, so the protocol {cell.protocol} does not apply to it")
    routing: RoutedEditor = editor
    if cell.protocol == "no-router":
        return routing.treat_unscoped(prompts)
    # an oracle is told the case's edit whatever is asked, as the published evaluations do it
    always = editor.info.oracle
    return routing.treat_told(
        prompts, [next(iter(gold), None) if governs or always else None for gold, governs in golds]
    )


def _gold(case: EvalCase, probe: Probe) -> tuple[Edit, ...]:
    """The edits that a probe belongs to: its own, or any of the case's where it belongs to several or none."""
    return case.edits if probe.of_edit is None else (case.edits[probe.of_edit],)


def _is_asked(protocol: str, case: EvalCase, probe: Probe) -> bool:
    """Whether a protocol has anything to ask of a probe."""
    if protocol in GENERATING:
        return True
    if protocol == "teacher-forced":
        return bool(probe.reference.answers) and probe.reference.form != "replies"
    known = bool(probe.reference.old_answers) if probe.in_scope else bool(case.edits)
    return bool(probe.reference.answers) and known and probe.reference.form == "short"


def _rated_answers(cell: Cell, one: _Asked) -> tuple[str, ...]:
    """The answers that a legacy protocol puts behind a prompt: the first reference, or the new and the old one."""
    reference = one.probe.reference
    if cell.protocol == "teacher-forced":
        return (reference.answers[0],)
    if one.probe.in_scope:
        return (reference.answers[0], reference.old_answers[0])
    return (_gold(one.case.case, one.probe)[0].target, reference.answers[0])


def _before(task: Task, one: _Asked) -> ProbeResult | None:
    """What came of the same probe with the unedited model."""
    base = task.unedited.get(one.case.case.id)
    if base is None:
        return None
    return next((result for result in base.probes if result.place == one.place), None)


def _left_out(
    cell: Cell, probe: Probe, before: ProbeResult | None, asks: dict[str, set[tuple[str, str]]]
) -> str | None:
    if before is not None and before.left_out is not None:
        return before.left_out
    if probe.reference.form == "replies" and cell.protocol in GENERATING:
        return "replies are rated, not matched"
    if not probe.in_scope and cell.edits and folded(probe.prompt.text) in asks:
        return "asks for another edit"
    return None


def _is_testable(cell: Cell, probes: Sequence[ProbeResult]) -> bool:
    """Whether the unedited model lacks the new answer to some edit prompt of the case; taken as given where none is."""
    edits = [result for result in probes if result.kind == "edit" and result.match is not None]
    if cell.protocol not in GENERATING or not edits:
        return True
    return not all(is_said(result.match) for result in edits)
