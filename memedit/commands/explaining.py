"""What a routing decision looks like: in one line, as JSON, and in full."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from memedit.commands.output import Output, printable
from memedit.commands.render import plain_table, properties, short_id

if TYPE_CHECKING:
    from memedit.explanation import Answer, Explanation
    from memedit.routing import Candidate, Decision

__all__ = ["answer_json", "explanation_json", "governed_by", "show_explanation"]

MOST_CANDIDATES = 5
"""Candidates shown to a person; JSON has all."""


def governed_by(decision: Decision) -> str:
    """Which edit governs, in one line."""
    if not decision.governed:
        if not decision.candidates:
            return "no edit governs"
        return f"no edit governs (best probability {decision.probability:.2f}, threshold {decision.threshold:.2f})"
    edit = decision.edits[0]
    return f"edit {short_id(edit.id)} governs, probability {decision.probability:.2f}: {edit.fact}"


def answer_json(answer: Answer, base: Answer | None) -> dict[str, Any]:
    """An answer as one JSON object, with the base model's own where it was asked for."""
    found = {
        "prompt": answer.prompt,
        "answer": answer.text,
        **_decision_json(answer.decision),
        "tokens": answer.tokens,
        "seconds": {"total": answer.seconds, "routing": answer.decision.timings.total},
    }
    return found if base is None else {**found, "base_answer": base.text}


def explanation_json(explanation: Explanation) -> dict[str, Any]:
    """An explanation as one JSON object, every candidate in it."""
    decision = explanation.decision
    timings = decision.timings
    return {
        "prompt": explanation.prompt,
        "question": decision.query.text,
        **_decision_json(decision),
        "reason": decision.reason,
        "candidates": [_candidate_json(candidate) for candidate in decision.candidates],
        "answered_by": explanation.responder,
        "seen": explanation.seen,
        "prompt_tokens": explanation.prompt_tokens,
        "context_tokens": explanation.context_tokens,
        "seconds": {"encode": timings.encode, "search": timings.search, "classify": timings.classify},
    }


def show_explanation(output: Output, explanation: Explanation) -> None:
    """An explanation for reading."""
    decision = explanation.decision
    timings = decision.timings
    values = {"question": decision.query.text, "governed by": "no edit; the base model answers, untouched"}
    if decision.governed:
        edit = decision.edits[0]
        values |= {"governed by": f"edit {edit.id}", "fact": edit.fact}
        values |= {name: text for name, text in (("source", edit.source), ("author", edit.author)) if text}
    values |= {
        "probability": _told(decision),
        "why": decision.reason,
        "answered by": explanation.responder,
        "tokens": f"{explanation.prompt_tokens} of the prompt, {explanation.context_tokens} of context",
        "routing": (
            f"{timings.total * 1000:.1f} ms (encode {timings.encode * 1000:.1f}, "
            f"search {timings.search * 1000:.1f}, classify {timings.classify * 1000:.1f})"
        ),
    }
    if output.for_person:
        properties(output, values)
        if decision.candidates:
            output.show(_candidate_table(decision.candidates[:MOST_CANDIDATES]))
        output.show(Text("the model reads", style="dim"))
        output.show(Text(printable(explanation.seen)))
        return
    values |= {
        f"candidate {place}": f"{found.probability:.3f} {found.similarity:.3f} {found.edit.id} {found.edit.fact}"
        for place, found in enumerate(decision.candidates[:MOST_CANDIDATES], start=1)
    }
    properties(output, values | {"the model reads": explanation.seen})


def _told(decision: Decision) -> str:
    """The probability beside its threshold."""
    from memedit.routing import told_apart, told_margin

    probability, threshold = told_apart(decision.probability, decision.threshold)
    return f"{probability} (threshold {threshold}, {decision.threshold_origin}; margin {told_margin(decision)})"


def _decision_json(decision: Decision) -> dict[str, Any]:
    edit = decision.edits[0] if decision.governed else None
    return {
        "governed": decision.governed,
        "edit_id": edit.id if edit else None,
        "edit": edit.to_json() if edit else None,
        "probability": decision.probability,
        "threshold": decision.threshold,
        "threshold_origin": decision.threshold_origin,
        "margin": decision.margin,
    }


def _candidate_json(candidate: Candidate) -> dict[str, Any]:
    return {
        "edit_id": candidate.edit.id,
        "fact": candidate.edit.fact,
        "probability": candidate.probability,
        "similarity": candidate.similarity,
        "window": candidate.window,
        "matched_text": candidate.matched_text,
        "matched_kind": candidate.matched_kind,
    }


def _candidate_table(candidates: tuple[Candidate, ...]) -> Table:
    table = plain_table()
    table.add_column("candidate", style="cyan", no_wrap=True)
    table.add_column("probability", justify="right", no_wrap=True)
    table.add_column("similarity", justify="right", no_wrap=True)
    table.add_column("nearest text", ratio=1, overflow="fold")
    for found in candidates:
        nearest = Text.assemble(printable(found.matched_text), (f" ({found.matched_kind})", "dim"))
        table.add_row(short_id(found.edit.id), f"{found.probability:.3f}", f"{found.similarity:.3f}", nearest)
    return table
