"""Short ways to write the probes that most benchmarks have, so that each loader says only what is its own.

Knows the records of `cases` and nothing of files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memedit.evaluation.cases import AnswerForm, Probe, ProbeKind, ProbePrompt, Reference, form_of


def probe(
    kind: ProbeKind,
    text: str,
    answers: Sequence[str] = (),
    *,
    old: Sequence[str] = (),
    answer_form: AnswerForm = "short",
    **others: Any,
) -> Probe:
    """Makes a probe whose prompt is one text.

    Args:
        kind: What it asks.
        text: What is typed; a question mark at its end makes it a question.
        answers: Answers and aliases, any of which counts.
        old: What was true before; those that are among the answers are left out, for nothing changed there.
        answer_form: How the answers are read.
        **others: Other fields of a `Probe`.

    Returns:
        The probe.
    """
    folded = {answer.casefold() for answer in answers}
    return Probe(
        kind=kind,
        prompt=ProbePrompt(text=text, form=form_of(text)),
        reference=Reference(
            answers=tuple(dict.fromkeys(answers)),
            old_answers=tuple(dict.fromkeys(one for one in old if one.casefold() not in folded)),
            form=answer_form,
        ),
        **others,
    )
