"""KnowEdit's four sets of facts: ZsRE, WikiData_recent, WikiData_counterfact and WikiBio.

The benchmark is of Zhang et al. 2024, *A Comprehensive Study of Knowledge Editing for Large Language Models*.

Two forms are read: the published one, where each kind of portability or locality is a list of objects, and that of
result files, where it is one object of lists. The form of result files has been checked against real files of ZsRE,
WikiData_counterfact and WikiBio. No published file has been read: that form, and WikiData_recent altogether, follow
its description. Probes without an answer that an edit would govern are left out, as its description asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from memedit.edit_files import BadRecord
from memedit.errors import InvalidCaseError
from memedit.evaluation.cases import AnswerForm, EvalCase, Probe, ProbeKind
from memedit.evaluation.datasets.fields import Fields
from memedit.evaluation.datasets.probes import probe
from memedit.evaluation.datasets.source import RawRecord, Source
from memory_store import Edit

_PORTABILITY: dict[str, ProbeKind] = {
    "reasoning": "one_hop",
    "subject_aliasing": "alias",
    "logical_generalization": "logical",
}
_LOCALITY: dict[str, ProbeKind] = {"relation_specificity": "same_subject", "forgetfulness": "forgetfulness"}


def load(source: Source) -> Iterator[EvalCase | BadRecord]:
    """Reads records whose targets are short: ZsRE, WikiData_recent, WikiData_counterfact."""
    return source.convert(lambda record: _case(record, "short"))


def load_wikibio(source: Source) -> Iterator[EvalCase | BadRecord]:
    """Reads WikiBio, whose targets are sentences."""
    return source.convert(lambda record: _case(record, "long"))


def _case(record: RawRecord, answer_form: AnswerForm) -> EvalCase:
    fields = record.fields
    subject, prompt = fields.text("subject", "concept"), fields.text("prompt", "text")
    target = fields.text("target_new", "labels")
    old = fields.aliases("ground_truth")
    about: dict[str, Any] = {"old": old, "answer_form": answer_form, "of_edit": 0, "subject": subject}
    return EvalCase(
        id=fields.identity("case_id") or str(record.source.line),
        source=record.source,
        edits=(Edit(prompt=prompt, target=target, subject=subject),),
        probes=(
            probe("edit", prompt, [target], **about),
            *(probe("paraphrase", text, [target], **about) for text in fields.texts("rephrase_prompt")),
            *_probes(fields.part("portability"), _PORTABILITY, subject),
            *_probes(fields.part("locality"), _LOCALITY, subject),
        ),
    )


def _probes(parts: Fields, kinds: dict[str, ProbeKind], subject: str) -> Iterator[Probe]:
    for key in parts.values:
        kind = kinds.get(key.strip().replace(" ", "_").lower())
        if kind is None:
            raise InvalidCaseError(f"the field '{parts.name(key)}' is not known; known are {', '.join(kinds)}.")
        if not parts.values[key]:
            continue
        for text, answers in _questions(parts, key):
            hops = 2 if kind == "one_hop" else None
            if kind in _LOCALITY.values():
                yield probe(kind, text, answers, subject=subject)
            elif answers:
                yield probe(kind, text, answers, of_edit=0, subject=subject, hops=hops)


def _questions(parts: Fields, key: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The prompts of one kind, each with its answers, in whichever form they stand."""
    if isinstance(parts.values[key], list):
        for one in parts.parts(key):
            yield one.text("prompt"), one.aliases("ground_truth")
        return
    columns = parts.part(key)
    prompts, truths = columns.texts("prompt"), columns.values.get("ground_truth")
    if not isinstance(truths, list) or len(truths) != len(prompts):
        raise InvalidCaseError(
            f"the field '{columns.name('ground_truth')}' must be a list of {len(prompts)}, as 'prompt'."
        )
    for prompt, truth in zip(prompts, truths, strict=True):
        yield prompt, Fields({"ground_truth": truth}, columns.name("")).aliases("ground_truth")
