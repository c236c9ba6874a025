"""What one case came to: plain records that are written down as soon as they are known, and read again.

Every answer is kept beside the unedited model's, so that any figure can be worked out again, in another way, from the
records alone. This file knows nothing of models, methods or statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from memedit.errors import ConfigError
from memedit.evaluation.cases import ProbeKind
from memedit.evaluation.matching import Match

__all__ = [
    "GENERATING",
    "CaseResult",
    "Cell",
    "EditingCost",
    "ForcedScore",
    "Likelihoods",
    "ProbeResult",
    "Protocol",
    "Routed",
]

Protocol = Literal["free", "teacher-forced", "probability", "oracle-router", "no-router"]
"""How a model is asked and how its answer is read: see docs/evaluation.md for each."""

GENERATING: tuple[Protocol, ...] = ("free", "no-router", "oracle-router")
"""The protocols under which answers are generated, the one nearest to use first."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cell:
    """One cell of a run: everything that holds for all of its cases.

    Attributes:
        dataset: Name and split, such as ``"counterfact:dev"``.
        method: Name of the method.
        protocol: How it is asked and scored.
        edits: How many edits the memory, or the model, holds when it is asked.
        seed: What chose the cases, the distractors and the order of the edits.
        sequential: Whether the edits were made one after the other; else together.
    """

    dataset: str
    method: str
    protocol: Protocol
    edits: int
    seed: int = 0
    sequential: bool = False

    def __post_init__(self) -> None:
        if self.protocol not in get_args(Protocol):
            raise ConfigError(f"protocol is one of {', '.join(get_args(Protocol))}, not {self.protocol!r}.")

    @property
    def key(self) -> str:
        """A name for it that files can have."""
        order = "-sequential" if self.sequential else ""
        dataset = self.dataset.replace(":", ".")
        return f"{dataset}~{self.method}~{self.protocol}~{self.edits}{order}~{self.seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """What the router did with a probe.

    Attributes:
        fired: Whether an edit governed the probe.
        right: Whether the edit that fired, or else the best candidate, is the edit the probe belongs to or, out of
            scope, one that is about that very prompt (a few neighbours are edits themselves). None where there was no
            candidate, and in results of before, where none fired.
        probability: That of the edit that fired, or else of the best candidate; 0 where there was none.
        threshold: The one it was compared with.
        rank: Place of the gold edit among the candidates by similarity, from 1; None where it is not among them, or the
            probe has no gold edit.
        edit: The prompt of the edit that governed, or of the best candidate.
        similarity: Cosine of that edit; None where there was none.
    """

    fired: bool
    right: bool | None
    probability: float
    threshold: float
    rank: int | None = None
    edit: str | None = None
    similarity: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForcedScore:
    """Token accuracy under teacher forcing: each token of the reference guessed with those before it given.

    The legacy measure of EasyEdit. It hands the answer's length and beginning to the model.

    Attributes:
        accuracy: Share of the tokens of the first reference answer that are the likeliest at their place.
        before: The unedited model's.
        unchanged: Share of the places where edited and unedited model have the same likeliest token.
        likeliest: The likeliest token at each place.
    """

    accuracy: float
    before: float
    unchanged: float
    likeliest: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "likeliest", tuple(self.likeliest))


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihoods:
    """Mean log-probability a token (natural logarithm) of the new and of the old answer behind the prompt.

    Attributes:
        new: Of the edit's target, after editing.
        old: Of what was true before, after editing.
        new_before: Of the edit's target, unedited.
        old_before: Of what was true before, unedited.
    """

    new: float
    old: float
    new_before: float
    old_before: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """What came of one probe.

    Attributes:
        place: The probe's place in its case.
        kind: Its kind.
        base_kind: The kind that was put behind a context, for those kinds.
        in_scope: Whether the edit governs it.
        answer: What the edited model said; None under protocols that generate nothing.
        before: What the unedited model said.
        match: How the answer matches the reference; None where there is none to match.
        match_before: The same for the unedited model.
        old_said: Whether an old answer stands anywhere in the answer; None where none is known.
        old_said_before: The same for the unedited model.
        cut: Whether the answer was still going on at the limit of new tokens.
        left_out: Why it does not count, where it does not (``"condition not met"``, ``"asks for another edit"``,
            ``"conflicting reference"``); None where it counts.
        group: The test that it is part of within its case, and how the test is passed (``any`` or ``all``).
        group_rule: See ``group``.
        routed: What the router did; None for methods without one.
        kl: Kullback-Leibler divergence of the next-token distribution, unedited from edited, in nats, for probes out of
            scope; None where it was not asked for.
        forced: Teacher-forced scores, under that protocol.
        likelihoods: Under the protocol ``probability``.
        verdict: The judge's, where one was asked.
        overlap: F1 of the words that answer and reference share (SQuAD's), for references that are whole texts.
        overlap_before: The same for the unedited model.
        seconds: What answering it took, its batch's time divided among its rows. Where the answer is the unedited
            model's because the method left the prompt alone, what that took. None where nothing was generated.
    """

    place: int
    kind: ProbeKind
    in_scope: bool
    base_kind: ProbeKind | None = None
    answer: str | None = None
    before: str | None = None
    match: Match | None = None
    match_before: Match | None = None
    old_said: bool | None = None
    old_said_before: bool | None = None
    cut: bool = False
    left_out: str | None = None
    group: str | None = None
    group_rule: Literal["any", "all"] | None = None
    routed: Routed | None = None
    kl: float | None = None
    forced: ForcedScore | None = None
    likelihoods: Likelihoods | None = None
    verdict: bool | None = None
    overlap: float | None = None
    overlap_before: float | None = None
    seconds: float | None = None

    @property
    def identical(self) -> bool | None:
        """Whether the answer is, character for character, the unedited model's; None where nothing was generated."""
        return None if self.answer is None or self.before is None else self.answer == self.before


@dataclass(frozen=True, slots=True, kw_only=True)
class EditingCost:
    """What the edits cost that were in place when a case was asked, for the whole memory or model.

    Attributes:
        edits: How many were made.
        seconds: How long it took.
        setup_seconds: What was done once.
        stored_bytes: What they take.
        treat_seconds: What the method spent on a prompt before the model answered, on average (routing).
        peak_bytes: The most memory that the process held while the cases were asked that were asked together; None
            where the system does not say.
    """

    edits: int
    seconds: float
    setup_seconds: float = 0.0
    stored_bytes: int | None = None
    treat_seconds: float = 0.0
    peak_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """What came of one case in one cell.

    Attributes:
        case: Its id.
        position: Place of its first edit in the order of editing, from 0; ``made - 1 - position`` edits came after it.
        made: How many edits were in place when it was asked.
        testable: Whether the unedited model lacks the new answer; a case that it already answers tests nothing.
        probes: What came of each probe.
        cost: What the edits cost.
        topic: What the benchmark sorts it under.
        fluency: n-gram entropy of a longer text about the edit's subject, in bits; None where none was asked for.
        fluency_before: The same of the unedited model.
        error: What went wrong, where the case failed; it then has no probes.
    """

    case: str
    position: int
    made: int
    testable: bool
    probes: tuple[ProbeResult, ...]
    cost: EditingCost | None = None
    topic: str | None = None
    fluency: float | None = None
    fluency_before: float | None = None
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns it as a JSON object; what is None is left out."""
        whole: dict[str, Any] = _without_none(asdict(self))
        return whole

    @classmethod
    def from_json(cls, mapping: Mapping[str, Any]) -> CaseResult:
        """Reads what `to_json` wrote.

        Raises:
            TypeError: A field is unknown or missing.
        """
        fields = dict(mapping)
        fields["probes"] = tuple(_probe(one) for one in fields["probes"])
        if fields.get("cost") is not None:
            fields["cost"] = EditingCost(**fields["cost"])
        return cls(**fields)


_PARTS: dict[str, Any] = {
    "match": Match,
    "match_before": Match,
    "routed": Routed,
    "forced": ForcedScore,
    "likelihoods": Likelihoods,
}


def _probe(mapping: Mapping[str, Any]) -> ProbeResult:
    fields = dict(mapping)
    for name, part in _PARTS.items():
        if fields.get(name) is not None:
            # `right` of a router that did not fire is None, and so is not written
            given = {"right": None, **fields[name]} if part is Routed else fields[name]
            fields[name] = part(**given)
    return ProbeResult(**fields)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_none(one) for name, one in value.items() if one is not None}
    if isinstance(value, (list, tuple)):
        return [_without_none(one) for one in value]
    return value
