"""What an evaluation runs on: a case with its edits, its probes, and what counts as an answer to each.

What a model may read and what only a scorer may read are two objects of a `Probe`: ``probe.prompt`` holds what a user
would type and nothing else, ``probe.reference`` holds the answers. A runner that hands on ``probe.prompt`` cannot hand
on an answer. Plain values: this file knows nothing of files, benchmarks, models or scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from memedit.errors import InvalidCaseError
from memedit.suggestions import nearest, suggestion
from memory_store import Edit
from memory_store.errors import InvalidEditError
from memory_store.records import checked

ProbeKind = Literal[
    "edit",
    "paraphrase",
    "detail",
    "opinion",
    "alias",
    "one_hop",
    "multi_hop",
    "reversed",
    "logical",
    "yes_no",
    "conflict",
    "same_subject",
    "same_relation",
    "forgetfulness",
    "unrelated",
    "after_passage",
    "after_turns",
    "after_document",
]
"""What a probe asks, seen from the edit: see docs/datasets.md for each."""

ContextKind = Literal["after_passage", "after_turns", "after_document"]
"""Kinds of probes that put another probe behind a context."""

OutOfScopeKind = Literal["same_subject", "same_relation", "forgetfulness", "unrelated"]
"""Kinds of probes that no edit may change the answer to."""

PromptForm = Literal["question", "completion"]
"""Whether a prompt asks, or begins a statement that the model goes on with."""

AnswerForm = Literal["short", "yes_no", "long", "replies"]
"""How answers are read: a phrase to match, yes or no, a text to compare with, replies to rate by likelihood."""

Role = Literal["user", "assistant"]
"""Who said a turn."""

_CONTEXT_KINDS = frozenset(get_args(ContextKind))
_OUT_OF_SCOPE_KINDS = frozenset(get_args(OutOfScopeKind))

DIRECT_KINDS: frozenset[ProbeKind] = frozenset({"edit", "paraphrase", "detail", "opinion", "alias"})
"""Kinds of probes that ask for an edit itself."""


@dataclass(frozen=True, slots=True)
class Turn:
    """An earlier turn of a conversation.

    Attributes:
        role: Who said it.
        content: What was said.
    """

    role: Role
    content: str

    def __post_init__(self) -> None:
        _check_choice("role", self.role, get_args(Role))
        _check_text("content", self.content)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbePrompt:
    """What a user would type, and all that a model or a router may see of a probe.

    Attributes:
        text: The last thing typed, a passage before it included.
        turns: What was said before, oldest first.
        form: Whether ``text`` asks, or begins a statement.
    """

    text: str
    turns: tuple[Turn, ...] = ()
    form: PromptForm = "completion"

    def __post_init__(self) -> None:
        _check_text("prompt", self.text)
        _check_choice("form", self.form, get_args(PromptForm))

    def messages(self) -> list[dict[str, str]]:
        """Returns the conversation as a chat template takes it, the text as the last user turn."""
        said = [*self.turns, Turn("user", self.text)]
        return [{"role": turn.role, "content": turn.content} for turn in said]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What counts as an answer; for scorers only.

    Attributes:
        answers: Answers and their aliases; any one of them counts. Where an edit governs the probe, those that hold
            after the edit; elsewhere those that hold anyway, and none where the benchmark has none.
        old_answers: What was true before the edit, or what the benchmark's base model said.
        form: How the answers are read.
    """

    answers: tuple[str, ...] = ()
    old_answers: tuple[str, ...] = ()
    form: AnswerForm = "short"

    def __post_init__(self) -> None:
        for name in ("answers", "old_answers"):
            if isinstance(getattr(self, name), str):
                raise InvalidCaseError(f"'{name}' must be several texts, not one.")
            for answer in getattr(self, name):
                _check_text(name, answer)
        _check_choice("answer_form", self.form, get_args(AnswerForm))
        if self.form == "yes_no" and not set(self.answers) <= {"yes", "no"}:
            raise InvalidCaseError(f"'answers' of a yes-no probe are 'yes' or 'no', not {self.answers!r}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A question that the unedited model must answer, or the probe tests nothing.

    Attributes:
        prompt: The question.
        reference: What counts as an answer to it.
    """

    prompt: ProbePrompt
    reference: Reference


@dataclass(frozen=True, slots=True)
class ProbeGroup:
    """Probes of a case that are one test together.

    Attributes:
        id: What names the group within its case.
        rule: Whether one right answer passes the test, or all must be right.
    """

    id: str
    rule: Literal["any", "all"]

    def __post_init__(self) -> None:
        _check_text("group.id", self.id)
        _check_choice("group.rule", self.rule, ("any", "all"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One question put to the edited model.

    Attributes:
        kind: What it asks, seen from the edit.
        prompt: What is typed; all that a model may see.
        reference: What counts as an answer; never shown to a model.
        of_edit: Place of the edit that it belongs to among the case's edits; None where it belongs to none or several.
        subject: What it asks about, where the benchmark says so.
        hops: How many facts its answer chains, for ``one_hop`` and ``multi_hop`` probes.
        group: The test that it is part of, where several probes are one.
        conditions: What the unedited model must know for the probe to count.
        base_kind: Kind of the probe that was put behind a context, for the ``after_...`` kinds.
    """

    kind: ProbeKind
    prompt: ProbePrompt
    reference: Reference
    of_edit: int | None = None
    subject: str | None = None
    hops: int | None = None
    group: ProbeGroup | None = None
    conditions: tuple[Condition, ...] = ()
    base_kind: ProbeKind | None = None

    def __post_init__(self) -> None:
        _check_choice("kind", self.kind, get_args(ProbeKind))
        if self.base_kind is not None:
            _check_choice("base_kind", self.base_kind, get_args(ProbeKind))
        if (self.kind in _CONTEXT_KINDS) != (self.base_kind is not None) or self.base_kind in _CONTEXT_KINDS:
            raise InvalidCaseError(
                f"'base_kind' is the kind that was put behind a context ({', '.join(sorted(_CONTEXT_KINDS))}); "
                f"a probe of kind {self.kind!r} has {self.base_kind!r}."
            )
        if self.in_scope and not self.reference.answers:
            raise InvalidCaseError(f"'answers' is empty; a probe of kind {self.kind!r} needs at least one.")
        if self.kind == "yes_no" and self.reference.form != "yes_no":
            raise InvalidCaseError("'answer_form' of a probe of kind 'yes_no' is 'yes_no'.")
        for name in ("of_edit", "hops"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
                raise InvalidCaseError(f"'{name}' must be a number that is not negative, not {value!r}.")
        if self.subject is not None:
            _check_text("subject", self.subject)

    @property
    def in_scope(self) -> bool:
        """Whether the edit governs the probe, so that its answer is to be the edited one."""
        return (self.base_kind or self.kind) not in _OUT_OF_SCOPE_KINDS

    def to_json(self) -> dict[str, Any]:
        """Returns the probe as a JSON object; what is unset or empty is left out."""
        whole: dict[str, Any] = {"kind": self.kind, **_question_to_json(self.prompt, self.reference)}
        for name in ("of_edit", "subject", "hops", "base_kind"):
            if getattr(self, name) is not None:
                whole[name] = getattr(self, name)
        if self.group is not None:
            whole["group"] = {"id": self.group.id, "rule": self.group.rule}
        if self.conditions:
            whole["conditions"] = [_question_to_json(one.prompt, one.reference) for one in self.conditions]
        return whole

    @classmethod
    def from_json(cls, mapping: Mapping[str, Any]) -> Probe:
        """Reads a probe from a JSON object as ``to_json`` writes it.

        Raises:
            InvalidCaseError: An unknown key (the message names the nearest known one), or a value that is missing or
                wrong.
        """
        _check_keys("A probe", mapping, ("kind", *_QUESTION_KEYS, *_PROBE_KEYS))
        prompt, reference = _question_from_json(mapping)
        conditions = tuple(
            _located(f"conditions[{place}]", _condition_from_json, one)
            for place, one in enumerate(_list(mapping, "conditions"))
        )
        return cls(
            kind=_required(mapping, "kind"),
            prompt=prompt,
            reference=reference,
            of_edit=mapping.get("of_edit"),
            subject=mapping.get("subject"),
            hops=mapping.get("hops"),
            group=None if mapping.get("group") is None else _group_from_json(mapping["group"]),
            conditions=conditions,
            base_kind=mapping.get("base_kind"),
        )


@dataclass(frozen=True, slots=True)
class CaseSource:
    """Where a case was read.

    Attributes:
        dataset: Name of the dataset.
        file: The file, relative to the data folder.
        line: The line on which the record begins, from 1.
    """

    dataset: str
    file: str
    line: int

    def __post_init__(self) -> None:
        _check_text("dataset", self.dataset)
        _check_text("file", self.file)
        if not isinstance(self.line, int) or self.line < 1:
            raise InvalidCaseError(f"'line' must be a number from 1, not {self.line!r}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalCase:
    """One test record: the edits that are made, and what is asked afterwards.

    Edits are drafts that hold what a user would enter. None of their paraphrases may be a probe of the case: a memory
    that holds the very question it is tested with proves nothing.

    Attributes:
        id: What names the case within its dataset.
        source: Where it was read; None for a case made in code.
        edits: The edits, in the order in which they are made; none for traffic that no edit concerns.
        probes: What is asked.
        topic: What the benchmark sorts it under, where it does.
    """

    id: str
    edits: tuple[Edit, ...]
    probes: tuple[Probe, ...]
    source: CaseSource | None = None
    topic: str | None = None

    def __post_init__(self) -> None:
        _check_text("id", self.id)
        if self.topic is not None:
            _check_text("topic", self.topic)
        for place, edit in enumerate(self.edits):
            try:
                checked(edit)
            except InvalidEditError as error:
                raise InvalidCaseError(f"'edits[{place}]': {error}") from error
        told = {folded(text) for edit in self.edits for text in edit.paraphrases}
        for place, probe in enumerate(self.probes):
            if probe.of_edit is not None and probe.of_edit >= len(self.edits):
                raise InvalidCaseError(
                    f"'probes[{place}].of_edit' is {probe.of_edit}, but the case has {len(self.edits)} edits, from 0."
                )
            if folded(probe.prompt.text) in told:
                raise InvalidCaseError(
                    f"'probes[{place}].prompt' is a paraphrase that the edit itself holds; "
                    "take it out of the edit, or the memory is asked what it was told."
                )

    def to_json(self) -> dict[str, Any]:
        """Returns the case as a JSON object; what is unset or empty is left out."""
        whole: dict[str, Any] = {
            "id": self.id,
            "edits": [edit.to_json() for edit in self.edits],
            "probes": [probe.to_json() for probe in self.probes],
        }
        if self.source is not None:
            whole["source"] = {one.name: getattr(self.source, one.name) for one in fields(CaseSource)}
        if self.topic is not None:
            whole["topic"] = self.topic
        return whole

    @classmethod
    def from_json(cls, mapping: Mapping[str, Any]) -> EvalCase:
        """Reads a case from a JSON object as ``to_json`` writes it.

        Raises:
            InvalidCaseError: An unknown key (the message names the nearest known one), or a value that is missing or
                wrong.
        """
        _check_keys("A case", mapping, [one.name for one in fields(cls)])
        source = mapping.get("source")
        if source is not None:
            _check_keys("'source'", source, [one.name for one in fields(CaseSource)])
            source = CaseSource(*(_required(source, one.name) for one in fields(CaseSource)))
        return cls(
            id=_required(mapping, "id"),
            edits=tuple(
                _located(f"edits[{place}]", Edit.from_json, one) for place, one in enumerate(_list(mapping, "edits"))
            ),
            probes=tuple(
                _located(f"probes[{place}]", Probe.from_json, one) for place, one in enumerate(_list(mapping, "probes"))
            ),
            source=source,
            topic=mapping.get("topic"),
        )


def coinciding_probes(cases: Iterable[EvalCase]) -> dict[str, tuple[int, ...]]:
    """Finds out-of-scope probes that ask, word for word, what an edit of any of the cases is about.

    They are the prompt of an edit, or a probe that asks for an edit directly. With all edits in one memory such a probe
    has no untouched answer, and an edit that fires for it fires rightly.

    Returns:
        The places of such probes, by the id of their case; cases without one are left out.
    """
    every = list(cases)
    edited = {folded(edit.prompt) for case in every for edit in case.edits}
    edited |= {folded(probe.prompt.text) for case in every for probe in case.probes if probe.kind in DIRECT_KINDS}
    found = {}
    for case in every:
        places = tuple(
            place
            for place, probe in enumerate(case.probes)
            if not probe.in_scope and folded(probe.prompt.text) in edited
        )
        if places:
            found[case.id] = places
    return found


def folded(text: str) -> str:
    """A text in the form in which prompts are compared: case and white space aside."""
    return " ".join(text.split()).casefold()


def conflicting(case: EvalCase, *, of_edit: int = 0) -> EvalCase | None:
    """Makes a case in which an edit comes after one that contradicts it; the later one is to win.

    The earlier edit says what held before, as the edit's own probe tells it.

    Args:
        case: The case.
        of_edit: Which of its edits.

    Returns:
        A case with the two edits and one probe of kind ``conflict``; None where nothing is known of what held before.
    """
    for probe in case.probes:
        if probe.kind == "edit" and probe.of_edit == of_edit and probe.reference.old_answers:
            edit = case.edits[of_edit]
            earlier = replace(edit, target=probe.reference.old_answers[0])
            return replace(
                case,
                id=f"{case.id}/conflict-{of_edit}",
                edits=(earlier, edit),
                probes=(replace(probe, kind="conflict", of_edit=1),),
            )
    return None


_QUESTION_KEYS = ("prompt", "turns", "form", "answers", "old_answers", "answer_form")
_PROBE_KEYS = ("of_edit", "subject", "hops", "group", "conditions", "base_kind")


def _question_to_json(prompt: ProbePrompt, reference: Reference) -> dict[str, Any]:
    whole: dict[str, Any] = {"prompt": prompt.text, "form": prompt.form}
    if prompt.turns:
        whole["turns"] = prompt.messages()[:-1]
    for name in ("answers", "old_answers"):
        if getattr(reference, name):
            whole[name] = list(getattr(reference, name))
    if reference.form != "short":
        whole["answer_form"] = reference.form
    return whole


def _question_from_json(mapping: Mapping[str, Any]) -> tuple[ProbePrompt, Reference]:
    text = _required(mapping, "prompt")
    _check_text("prompt", text)
    prompt = ProbePrompt(
        text=text,
        turns=tuple(
            _located(f"turns[{place}]", _turn_from_json, one) for place, one in enumerate(_list(mapping, "turns"))
        ),
        form=mapping.get("form", form_of(text)),
    )
    reference = Reference(
        answers=tuple(_list(mapping, "answers")),
        old_answers=tuple(_list(mapping, "old_answers")),
        form=mapping.get("answer_form", "yes_no" if mapping.get("kind") == "yes_no" else "short"),
    )
    return prompt, reference


def form_of(text: str) -> PromptForm:
    """Returns the form that a prompt has by its last character: a question mark asks."""
    return "question" if text.rstrip().endswith(("?", "？", "؟")) else "completion"


def _turn_from_json(mapping: Mapping[str, Any]) -> Turn:
    _check_keys("A turn", mapping, ("role", "content"))
    return Turn(_required(mapping, "role"), _required(mapping, "content"))


def _condition_from_json(mapping: Mapping[str, Any]) -> Condition:
    _check_keys("A condition", mapping, _QUESTION_KEYS)
    prompt, reference = _question_from_json(mapping)
    return Condition(prompt=prompt, reference=reference)


def _group_from_json(mapping: Mapping[str, Any]) -> ProbeGroup:
    _check_keys("'group'", mapping, ("id", "rule"))
    return ProbeGroup(_required(mapping, "id"), _required(mapping, "rule"))


def _located(where: str, read: Any, mapping: Mapping[str, Any]) -> Any:
    try:
        return read(mapping)
    except (InvalidCaseError, InvalidEditError) as error:
        raise InvalidCaseError(f"'{where}': {error}") from error


def _list(mapping: Mapping[str, Any], key: str) -> Sequence[Any]:
    value = mapping.get(key, ())
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InvalidCaseError(f"'{key}' must be a list, not {type(value).__name__}.")
    return value


def _required(mapping: Mapping[str, Any], key: str) -> Any:
    if mapping.get(key) is None:
        raise InvalidCaseError(f"'{key}' is missing.")
    return mapping[key]


def _check_keys(what: str, mapping: object, known: Sequence[str]) -> None:
    if not isinstance(mapping, Mapping):
        raise InvalidCaseError(f"{what} must be a JSON object, not {type(mapping).__name__}.")
    for key in mapping:
        if key not in known:
            raise InvalidCaseError(f"{what} has no field '{key}'. {suggestion(key, known)}")


def _check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        near = nearest(value, choices)
        hint = "" if near is None else f" Did you mean '{near}'?"
        raise InvalidCaseError(f"'{name}' is one of {', '.join(choices)}, not {value!r}.{hint}")


def _check_text(name: str, text: object) -> None:
    if not isinstance(text, str):
        raise InvalidCaseError(f"'{name}' must be text, not {type(text).__name__}.")
    if not text.strip():
        raise InvalidCaseError(f"'{name}' is empty.")
