"""CounterFact: counterfactual edits with paraphrases and neighbours.

The benchmark is of Meng et al. 2022, *Locating and Editing Factual Associations in GPT*; the nested form of its
release is read, and the flat one of EasyEdit.

Neighbours are about other subjects of the same relation; they are true of the edit's old object. The attribute and
generation prompts of the nested form are left out: the former are true of the new object, so that an edit that leaks
into them would look right, and the latter have no answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from memedit.edit_files import BadRecord
from memedit.evaluation.cases import EvalCase, Probe
from memedit.evaluation.datasets.fields import Fields
from memedit.evaluation.datasets.probes import probe
from memedit.evaluation.datasets.source import RawRecord, Source
from memory_store import Edit


def load(source: Source) -> Iterator[EvalCase | BadRecord]:
    """Reads CounterFact records, each in the form that it has."""
    return source.convert(_case)


def _case(record: RawRecord) -> EvalCase:
    fields = record.fields
    return _nested(record) if "requested_rewrite" in fields.values else _flat(record)


def _nested(record: RawRecord) -> EvalCase:
    fields = record.fields
    rewrite = fields.part("requested_rewrite")
    new, true = rewrite.part("target_new").text("str"), rewrite.part("target_true").text("str")
    subject = rewrite.text("subject")
    edit = Edit(prompt=rewrite.filled("prompt", subject), target=new, subject=subject)
    neighbours = [probe("same_relation", text, [true]) for text in fields.texts("neighborhood_prompts")]
    return _assembled(record, edit, true, fields.texts("paraphrase_prompts"), neighbours)


def _flat(record: RawRecord) -> EvalCase:
    fields = record.fields
    edit = Edit(prompt=fields.text("prompt"), target=fields.text("target_new"), subject=fields.text("subject"))
    neighbours = [
        probe("same_relation", text, fields.aliases("locality_ground_truth"))
        for text in fields.texts("locality_prompt")
    ]
    neighbours += [_neighbour(one) for one in fields.parts("locality")]
    return _assembled(record, edit, fields.text("ground_truth"), fields.texts("rephrase_prompt"), neighbours)


def _neighbour(one: Fields) -> Probe:
    return probe("same_relation", one.text("prompt"), one.aliases("ground_truth"))


def _assembled(
    record: RawRecord, edit: Edit, true: str, paraphrases: tuple[str, ...], neighbours: list[Probe]
) -> EvalCase:
    about: dict[str, Any] = {"old": [true], "of_edit": 0, "subject": edit.subject}
    return EvalCase(
        id=record.fields.identity("case_id") or str(record.source.line),
        source=record.source,
        edits=(edit,),
        probes=(
            probe("edit", edit.prompt, [edit.target], **about),
            *(probe("paraphrase", text, [edit.target], **about) for text in paraphrases),
            *neighbours,
        ),
    )
