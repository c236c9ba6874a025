"""MQuAKE: several edits a case, and a question that chains them.

The benchmark is of Zhong et al. 2023, *MQuAKE: Assessing Knowledge Editing in Language Models via Multi-Hop
Questions*; its ``-hard`` selection has the same form.

The wordings of the chained question are one test, passed by any of them. The links of the chain that no edit of the
case concerns are what the model must know already: they are the test's conditions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from memedit.edit_files import BadRecord
from memedit.evaluation.cases import Condition, EvalCase, Probe, ProbeGroup
from memedit.evaluation.datasets.fields import Fields
from memedit.evaluation.datasets.probes import probe
from memedit.evaluation.datasets.source import RawRecord, Source
from memory_store import Edit


def load(source: Source) -> Iterator[EvalCase | BadRecord]:
    """Reads MQuAKE records of any of its releases."""
    return source.convert(_case)


def _case(record: RawRecord) -> EvalCase:
    fields = record.fields
    rewrites, hops = fields.parts("requested_rewrite"), fields.parts("new_single_hops")
    edits = tuple(_edit(one) for one in rewrites)
    return EvalCase(
        id=fields.identity("case_id") or str(record.source.line),
        source=record.source,
        edits=edits,
        probes=(
            *(one for place, rewrite in enumerate(rewrites) for one in _single(rewrite, edits[place], place, hops)),
            *_chained(fields, hops, edited={rewrite.text("question") for rewrite in rewrites}),
        ),
    )


def _edit(rewrite: Fields) -> Edit:
    subject = rewrite.text("subject")
    return Edit(
        prompt=rewrite.filled("prompt", subject), target=rewrite.part("target_new").text("str"), subject=subject
    )


def _single(rewrite: Fields, edit: Edit, place: int, hops: list[Fields]) -> Iterator[Probe]:
    question = rewrite.text("question")
    aliases = [alias for hop in hops if hop.text("question") == question for alias in hop.aliases("answer_alias")]
    about: dict[str, Any] = {
        "old": [rewrite.part("target_true").text("str")],
        "of_edit": place,
        "subject": edit.subject,
    }
    yield probe("edit", edit.prompt, [edit.target, *aliases], **about)
    yield probe("paraphrase", question, [edit.target, *aliases], **about)


def _chained(fields: Fields, hops: list[Fields], *, edited: set[str]) -> Iterator[Probe]:
    answers = (fields.text("new_answer"), *fields.aliases("new_answer_alias"))
    old = (fields.text("answer"), *fields.aliases("answer_alias"))
    known = tuple(_condition(hop) for hop in hops if hop.text("question") not in edited)
    for text in fields.texts("questions"):
        yield probe(
            "multi_hop",
            text,
            answers,
            old=old,
            hops=len(hops) or None,
            group=ProbeGroup("questions", "any"),
            conditions=known,
        )


def _condition(hop: Fields) -> Condition:
    link = probe("one_hop", hop.text("question"), (hop.text("answer"), *hop.aliases("answer_alias")))
    return Condition(prompt=link.prompt, reference=link.reference)
