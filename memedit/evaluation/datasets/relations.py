"""Facts by relation: templates, and samples of subject and object.

The data is of Hernandez et al. 2024, *Linearity of Relation Decoding in Transformer Language Models*; one JSON file
is one relation.

A case is one subject of one relation. Its edit gives the subject another object of the same relation, drawn by the
seed; what the samples say held before. The relation's other templates are paraphrases, another subject of the
relation and the same subject in other relations are near misses. A subject that has several objects keeps them all as
aliases.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from memedit.edit_files import BadRecord
from memedit.errors import InvalidCaseError
from memedit.evaluation.cases import CaseSource, EvalCase, Probe, ProbeKind
from memedit.evaluation.datasets.probes import probe
from memedit.evaluation.datasets.source import RawRecord, Source
from memory_store import Edit


@dataclass(frozen=True, slots=True)
class _Relation:
    """One file: its templates, the objects of each subject, and all subjects and objects in their order."""

    name: str
    templates: tuple[str, ...]
    objects: Mapping[str, tuple[str, ...]]
    subjects: tuple[str, ...]
    every_object: tuple[str, ...]
    source: CaseSource


def load(source: Source) -> Iterator[EvalCase | BadRecord]:
    """Reads the facts of every relation; all files are read before the first case."""
    relations: list[_Relation] = []
    for record in source.records():
        if isinstance(record, BadRecord):
            yield record
            continue
        try:
            relations.append(_relation(record))
        except InvalidCaseError as error:
            yield BadRecord(record.source.file, record.source.line, str(error))
    sharing: dict[str, list[_Relation]] = {}
    for relation in relations:
        for subject in relation.objects:
            sharing.setdefault(subject, []).append(relation)
    for relation in relations:
        for place, subject in enumerate(relation.objects):
            try:
                yield _case(relation, place, sharing[subject], source.seed)
            except InvalidCaseError as error:
                yield BadRecord(relation.source.file, relation.source.line, str(error))


def _relation(record: RawRecord) -> _Relation:
    fields = record.fields
    templates = (*fields.texts("prompt_templates"), *fields.texts("prompt_templates_zs"))
    if not templates or any(template.count("{}") != 1 for template in templates):
        raise InvalidCaseError(f"the field 'prompt_templates' must hold templates with {{}} once; it is {templates!r}.")
    objects: dict[str, list[str]] = {}
    for sample in fields.parts("samples"):
        objects.setdefault(sample.text("subject"), []).append(sample.text("object"))
    if len(objects) < 2:
        raise InvalidCaseError("the field 'samples' must name two subjects at least, so that one is near the other.")
    return _Relation(
        fields.text("name"),
        tuple(dict.fromkeys(templates)),
        {subject: tuple(dict.fromkeys(several)) for subject, several in objects.items()},
        tuple(objects),
        tuple(dict.fromkeys(one for several in objects.values() for one in several)),
        record.source,
    )


def _case(relation: _Relation, place: int, sharing: list[_Relation], seed: int) -> EvalCase:
    subject = relation.subjects[place]
    chance = random.Random(f"{seed}\n{relation.name}\n{subject}")
    true = relation.objects[subject]
    others = [one for one in relation.every_object if one not in true]
    if not others:
        raise InvalidCaseError(f"the field 'samples' leaves no other object to give to {subject!r}.")
    target = chance.choice(others)
    near = relation.subjects[place - chance.randrange(1, len(relation.subjects))]
    first, *rest = (template.replace("{}", subject) for template in relation.templates)
    about: dict[str, Any] = {"old": true, "of_edit": 0, "subject": subject}
    return EvalCase(
        id=f"{relation.source.file}-{place}",
        source=relation.source,
        edits=(Edit(prompt=first, target=target, subject=subject),),
        probes=(
            probe("edit", first, [target], **about),
            *(probe("paraphrase", text, [target], **about) for text in rest),
            _asked(relation, near, "same_relation"),
            *(_asked(other, subject, "same_subject") for other in sharing if other is not relation),
        ),
        topic=relation.name,
    )


def _asked(relation: _Relation, subject: str, kind: ProbeKind) -> Probe:
    text = relation.templates[0].replace("{}", subject)
    return probe(kind, text, relation.objects[subject], subject=subject)
