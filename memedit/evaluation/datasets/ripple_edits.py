"""RippleEdits: what follows from an edit, and what must not.

The benchmark is of Cohen et al. 2024, *Evaluating the Ripple Effects of Knowledge Editing in Language Models*.

No published file has been read; the loader follows the description of the format. An edit is published as one
sentence; it is divided into prompt and target behind its last verb that it has in common with the sentence of the
original fact. A test of several queries is one group, passed by any or all of them as its record says, and counts
only where the unedited model answers its condition queries.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from memedit.edit_files import BadRecord
from memedit.errors import InvalidCaseError
from memedit.evaluation.cases import Condition, EvalCase, Probe, ProbeGroup, ProbeKind
from memedit.evaluation.datasets.fields import Fields
from memedit.evaluation.datasets.probes import probe
from memedit.evaluation.datasets.source import RawRecord, Source
from memory_store import Edit

_KINDS: dict[str, ProbeKind] = {
    "Relation_Specifity": "same_subject",  # both spellings are about
    "Relation_Specificity": "same_subject",
    "Logical_Generalization": "logical",
    "Subject_Aliasing": "alias",
    "Compositionality_I": "one_hop",
    "Compositionality_II": "one_hop",
    "Forgetfulness": "forgetfulness",
}
_VERB = re.compile(r" (?:is followed by|follows|is|are) ")


def load(source: Source) -> Iterator[EvalCase | BadRecord]:
    """Reads RippleEdits records of any of its three sets."""
    return source.convert(_case)


def _case(record: RawRecord) -> EvalCase:
    fields = record.fields
    stated = fields.part("edit")
    sentence = stated.text("prompt")
    original = stated.part("original_fact").optional_text("prompt")
    prompt, target = _divided(sentence, original, stated.name("prompt"))
    old = () if original is None else (_ended(original)[len(prompt) :].strip(),)
    probes = [probe("edit", prompt, [target], old=[one for one in old if one], of_edit=0)]
    for key, kind in _KINDS.items():
        for place, test in enumerate(fields.parts(key)):
            probes += _test(test, kind, f"{key}-{place}")
    return EvalCase(
        id=str(record.source.line),
        source=record.source,
        edits=(Edit(prompt=prompt, target=target),),
        probes=tuple(probes),
        topic=fields.optional_text("example_type"),
    )


def _divided(sentence: str, original: str | None, name: str) -> tuple[str, str]:
    """The prompt and the target of an edit's sentence."""
    whole = _ended(sentence)
    shared = len(whole) if original is None else _shared(whole, _ended(original))
    ends = [verb.end() for verb in _VERB.finditer(whole) if verb.end() <= shared]
    if not ends or not whole[ends[-1] :].strip():
        raise InvalidCaseError(f"the field '{name}' cannot be divided into prompt and target: {sentence!r}.")
    return whole[: ends[-1]].strip(), whole[ends[-1] :].strip()


def _shared(one: str, other: str) -> int:
    """How many characters two texts have in common from their beginning."""
    return next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def _ended(sentence: str) -> str:
    return sentence.strip().removesuffix(".")


def _test(test: Fields, kind: ProbeKind, group: str) -> Iterator[Probe]:
    conditions = tuple(
        Condition(prompt=asked.prompt, reference=asked.reference)
        for asked in (_query(one, "same_subject") for one in test.parts("condition_queries"))
        if asked is not None
    )
    rules = {"OR": "any", "AND": "all"}
    rule = rules.get(test.text("test_condition"))
    if rule is None:
        raise InvalidCaseError(
            f"the field '{test.name('test_condition')}' is OR or AND, not {test.text('test_condition')!r}."
        )
    for one in test.parts("test_queries"):
        asked = _query(one, kind, group=ProbeGroup(group, "any" if rule == "any" else "all"), conditions=conditions)
        if asked is not None:
            yield asked


def _query(
    query: Fields, kind: ProbeKind, *, group: ProbeGroup | None = None, conditions: tuple[Condition, ...] = ()
) -> Probe | None:
    """The probe of a query; None where it has no answer, for then nothing can be told from it."""
    answers = [
        text for answer in query.parts("answers") for text in (*answer.aliases("value"), *answer.aliases("aliases"))
    ]
    if not answers:
        return None
    in_scope = kind not in ("same_subject", "forgetfulness")
    return probe(
        kind,
        query.text("prompt"),
        answers,
        of_edit=0 if in_scope else None,
        hops=2 if kind == "one_hop" else None,
        group=group,
        conditions=conditions,
    )
