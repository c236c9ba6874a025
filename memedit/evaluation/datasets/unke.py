"""UnKE: edits whose target is a paragraph, with questions about parts of it.

The benchmark is of Deng et al. 2024, *UnKE: Unstructured Knowledge Editing in Large Language Models*.
"""

from __future__ import annotations

from collections.abc import Iterator

from memedit.edit_files import BadRecord
from memedit.errors import InvalidCaseError
from memedit.evaluation.cases import EvalCase
from memedit.evaluation.datasets.probes import probe
from memedit.evaluation.datasets.source import RawRecord, Source
from memory_store import Edit


def load(source: Source) -> Iterator[EvalCase | BadRecord]:
    """Reads UnKE records."""
    return source.convert(_case)


def _case(record: RawRecord) -> EvalCase:
    fields = record.fields
    question, answer = fields.text("question"), fields.text("answer")
    details, told = fields.texts("sub_question"), fields.texts("sub_answer")
    if len(details) != len(told):
        raise InvalidCaseError(f"the field 'sub_answer' has {len(told)} entries for {len(details)} of 'sub_question'.")
    return EvalCase(
        id=fields.identity("id") or str(record.source.line),
        source=record.source,
        edits=(Edit(prompt=question, target=answer),),
        probes=(
            probe("edit", question, [answer], answer_form="long", of_edit=0),
            *(
                probe("paraphrase", text, [answer], answer_form="long", of_edit=0)
                for text in fields.texts("para_question")
            ),
            *(probe("detail", text, [part], of_edit=0) for text, part in zip(details, told, strict=True)),
        ),
    )
