"""HalluEditBench: facts that a model was seen to get wrong, in ten topics.

The benchmark is of Huang et al. 2025, *Can Knowledge Editing Really Correct Hallucinations?* The CSV files that are
published (one a topic and model) are read, and JSON Lines of them. No published CSV file has been read.

The edit is the question with the true object. Answers of chained questions were written by a model and are not
verified; a reversed question often has more right answers than the subject that is given; a locality question has no
answer, so that only "unchanged" can be asked. Multiple-choice fields are left out: they put the answer in the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from memedit.edit_files import BadRecord
from memedit.evaluation.cases import EvalCase, Probe, ProbeKind
from memedit.evaluation.datasets.fields import Fields
from memedit.evaluation.datasets.probes import probe
from memedit.evaluation.datasets.source import RawRecord, Source
from memory_store import Edit

_HOPS = range(2, 7)


def load(source: Source) -> Iterator[EvalCase | BadRecord]:
    """Reads HalluEditBench records."""
    return source.convert(_case)


def _case(record: RawRecord) -> EvalCase:
    fields = record.fields
    subject, question, target = fields.text("subject"), fields.text("question"), fields.text("object")
    stem = PurePosixPath(record.source.file).stem
    topic = fields.optional_text("topic") or stem
    about: dict[str, Any] = {"of_edit": 0, "subject": subject}
    probes = [probe("edit", question, [target], **about)]
    probes += [probe("paraphrase", text, [target], **about) for text in fields.texts("paraphrased_question")]
    for verdict in ("yes", "no"):
        texts = fields.texts(f"{verdict}_question")
        probes += [probe("yes_no", text, [verdict], answer_form="yes_no", **about) for text in texts]
    probes += [probe("reversed", text, [subject], **about) for text in fields.texts("reversed_relation_question")]
    probes += _chained(fields, subject)
    probes += [probe("same_subject", text, subject=subject) for text in fields.texts("locality_question")]
    return EvalCase(
        id=f"{stem}-{record.source.line}",
        source=record.source,
        edits=(Edit(prompt=question, target=target, subject=subject),),
        probes=tuple(probes),
        topic=topic,
    )


def _chained(fields: Fields, subject: str) -> Iterator[Probe]:
    for hops in _HOPS:
        for text in fields.texts(f"question_{hops}hop"):
            kind: ProbeKind = "one_hop" if hops == _HOPS.start else "multi_hop"
            answer = fields.text(f"answer_{hops}hop")
            yield probe(kind, text, [answer], of_edit=0, subject=subject, hops=hops)
