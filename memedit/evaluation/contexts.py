"""Probes behind a context: after an unrelated passage, after earlier turns, after a long document.

Whether an edit holds when other text stands before the question is what CHED measures (Park et al. 2025,
*Context-Robust Knowledge Editing for Language Models*, arXiv 2505.23026). The functions are pure: the same probe,
texts and seed give the same probe. They know nothing of benchmarks and models; the texts are the caller's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from memedit.errors import InvalidCaseError
from memedit.evaluation.cases import ContextKind, Probe, ProbePrompt, Turn
from memedit.evaluation.matching import match_answer

_REMARKS = (
    "I read an older text that mentions {}. What is that?",
    "Earlier today somebody told me about {}. Does the name say anything to you?",
    "Before we begin: please remember {}, we may come back to it.",
)
_REPLIES = (
    "{} is something that I can tell you more about when you need it.",
    "Yes, I know {}. We can come back to it at any time.",
    "All right, I will keep {} in mind.",
)


def after_passage(probe: Probe, passages: Sequence[str], *, seed: int = 0) -> Probe:
    """Puts a probe behind one of some passages, chosen by the seed.

    Args:
        probe: The probe.
        passages: Short texts that have nothing to do with it; those that name its subject or one of its answers are
            passed over.
        seed: What chooses the passage, together with the probe's own text.

    Returns:
        A probe of kind ``after_passage``.

    Raises:
        InvalidCaseError: No passage is left, or the probe is behind a context already.
    """
    passage = next(_drawn(probe, passages, seed), None)
    if passage is None:
        raise InvalidCaseError(
            f"'passages' holds none that is free of the probe's subject and answers ({len(passages)})."
        )
    return _behind(probe, "after_passage", passage)


def after_document(probe: Probe, paragraphs: Sequence[str], *, words: int = 1_000, seed: int = 0) -> Probe:
    """Puts a probe behind a long document of paragraphs, drawn by the seed without repeating one.

    Args:
        probe: The probe.
        paragraphs: Texts that have nothing to do with it; those that name its subject or one of its answers are passed
            over.
        words: Paragraphs are added until the document has this many words.
        seed: What draws the paragraphs, together with the probe's own text.

    Returns:
        A probe of kind ``after_document``.

    Raises:
        InvalidCaseError: The paragraphs have too few words, or the probe is behind a context already.
    """
    document: list[str] = []
    length = 0
    for paragraph in _drawn(probe, paragraphs, seed):
        if length >= words:
            break
        document.append(paragraph)
        length += len(paragraph.split())
    if length < words:
        raise InvalidCaseError(f"'paragraphs' hold {length:,} usable words; a document of {words:,} was asked for.")
    return _behind(probe, "after_document", "\n\n".join(document))


def after_turns(probe: Probe, *, seed: int = 0) -> Probe:
    """Puts a probe behind a user's remark and its answer, which both mention what held before the edit.

    Args:
        probe: A probe whose ``old_answers`` say what held before.
        seed: What chooses the wording, together with the probe's own text.

    Returns:
        A probe of kind ``after_turns``, whose ``turns`` come first.

    Raises:
        InvalidCaseError: Nothing is known of what held before, or the probe is behind a context already.
    """
    if not probe.reference.old_answers:
        raise InvalidCaseError("'old_answers' is empty; turns that mention the old answer need one.")
    old = probe.reference.old_answers[0]
    chance = _chance(probe, seed)
    turns = (
        Turn("user", chance.choice(_REMARKS).format(old)),
        Turn("assistant", chance.choice(_REPLIES).format(old)),
    )
    return _as(probe, "after_turns", replace(probe.prompt, turns=(*turns, *probe.prompt.turns)))


def _behind(probe: Probe, kind: ContextKind, context: str) -> Probe:
    return _as(probe, kind, replace(probe.prompt, text=f"{context}\n\n{probe.prompt.text}"))


def _as(probe: Probe, kind: ContextKind, prompt: ProbePrompt) -> Probe:
    if probe.base_kind is not None:
        raise InvalidCaseError(f"'kind' of the probe is {probe.kind!r}; it is behind a context already.")
    return replace(probe, kind=kind, base_kind=probe.kind, prompt=prompt)


def _drawn(probe: Probe, texts: Sequence[str], seed: int) -> Iterator[str]:
    """The texts in an order drawn by the seed, without those that name what the probe is about."""
    told = () if probe.reference.form == "yes_no" else (*probe.reference.answers, *probe.reference.old_answers)
    names = [name for name in (probe.subject, *told) if name]
    for text in _chance(probe, seed).sample(texts, len(texts)):
        if text.strip() and not match_answer(text, names).anywhere:
            yield text


def _chance(probe: Probe, seed: int) -> random.Random:
    return random.Random(f"{seed}\n{probe.prompt.text}")
