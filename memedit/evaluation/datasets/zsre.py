"""zsRE: questions with paraphrases, as two tasks that are told apart by name.

The questions are of Levy et al. 2017; the forms read are those of MEND (Mitchell et al. 2022) and of EasyEdit.
``zsre-answer`` inserts the true answer (``answers[0]``), as ROME and MEMIT do, ``zsre-counterfactual`` a false one
(``alt``), as EasyEdit does.

The one-hop questions of EasyEdit's portability file follow from the counterfactual, so the other task leaves them
out. Locality questions are of Natural Questions; the ``nq question: `` before each is taken off, for a router could
tell them by it alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from memedit.edit_files import BadRecord
from memedit.errors import InvalidCaseError
from memedit.evaluation.cases import EvalCase, Probe
from memedit.evaluation.datasets.fields import Fields
from memedit.evaluation.datasets.probes import probe
from memedit.evaluation.datasets.source import RawRecord, Source
from memory_store import Edit

_LOCALITY_PREFIX = "nq question: "


def load_answer(source: Source) -> Iterator[EvalCase | BadRecord]:
    """Reads zsRE as the task that inserts the true answer."""
    return source.convert(_answer_case)


def load_counterfactual(source: Source) -> Iterator[EvalCase | BadRecord]:
    """Reads zsRE as the task that inserts a counterfactual answer."""
    return source.convert(_counterfactual_case)


def _answer_case(record: RawRecord) -> EvalCase:
    fields = record.fields
    if "src" not in fields.values:
        return _case(record, fields.aliases("ground_truth"), old=(), needed="ground_truth")
    return _case(record, fields.aliases("answers"), old=fields.aliases("pred"), needed="answers")


def _counterfactual_case(record: RawRecord) -> EvalCase:
    fields = record.fields
    if "src" not in fields.values:
        return _case(record, (fields.text("target_new"),), old=fields.aliases("ground_truth"), needed="target_new")
    alternative = fields.text("alt")
    hops = [_one_hop(fields.part("portability"), fields.text("subject"))] if "portability" in fields else []
    return _case(record, (alternative,), old=fields.aliases("answers"), needed="alt", more=hops)


def _case(
    record: RawRecord, answers: tuple[str, ...], *, old: tuple[str, ...], needed: str, more: list[Probe] | None = None
) -> EvalCase:
    fields = record.fields
    if not answers:
        raise InvalidCaseError(f"the field '{needed}' holds no answer.")
    prompt, subject = fields.text("src", "prompt"), fields.text("subject")
    about: dict[str, Any] = {"old": old, "of_edit": 0, "subject": subject}
    paraphrases = (*fields.texts("rephrase"), *fields.texts("rephrase_prompt"))
    return EvalCase(
        id=fields.identity("case_id") or str(record.source.line),
        source=record.source,
        edits=(Edit(prompt=prompt, target=answers[0], subject=subject),),
        probes=(
            probe("edit", prompt, answers, **about),
            *(probe("paraphrase", text, answers, **about) for text in paraphrases),
            *(more or ()),
            *_locality(fields),
        ),
    )


def _one_hop(fields: Fields, subject: str) -> Probe:
    answers = fields.aliases("New Answer") or (fields.text("New Answer"),)
    return probe("one_hop", fields.text("New Question"), answers, of_edit=0, subject=subject, hops=2)


def _locality(fields: Fields) -> Iterator[Probe]:
    for text in fields.texts("loc"):
        yield probe("unrelated", text.removeprefix(_LOCALITY_PREFIX), fields.aliases("loc_ans"))
    for one in fields.parts("locality"):
        yield probe("unrelated", one.text("prompt"), one.aliases("ground_truth"))
