"""How an answer is read: from a probe and what was said to whether it counts as right.

Only here does a reference meet an answer. Pure functions; nothing is known of models or methods.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from memedit.evaluation.cases import Probe, ProbePrompt, Reference, folded
from memedit.evaluation.matching import Match, match_answer, normalise_answer, read_yes_no
from memedit.evaluation.results import Routed
from memedit.routing import Decision
from memory_store import Edit

__all__ = ["is_said", "overlap", "read", "rouge_l", "routed", "says_old"]


def read(answer: str, prompt: ProbePrompt, reference: Reference) -> Match | None:
    """How an answer matches a reference.

    An answer that repeats a statement's beginning before going on with it is read behind the repetition.

    Args:
        answer: What was said.
        prompt: What it was said to.
        reference: What counts.

    Returns:
        The match; None where the reference has no answers, or none that are matched (replies).
    """
    if not reference.answers or reference.form == "replies":
        return None
    if reference.form == "yes_no":
        verdict = read_yes_no(answer)
        return Match(alias=None) if verdict is None or verdict not in reference.answers else _said(verdict)
    return match_answer(_without_echo(answer, prompt), reference.answers)


def says_old(answer: str, prompt: ProbePrompt, reference: Reference) -> bool | None:
    """Whether an answer still says an old answer, anywhere in it.

    Returns:
        The verdict; None where no old answer is known, or answers are not phrases.
    """
    if not reference.old_answers or reference.form not in ("short", "long"):
        return None
    return match_answer(_without_echo(answer, prompt), reference.old_answers).anywhere


def overlap(answer: str, reference: Reference) -> float | None:
    """F1 of the words that an answer shares with the reference that it shares most with.

    The token F1 of SQuAD's evaluation script (Rajpurkar et al. 2016), for references that are whole texts.

    Returns:
        Between 0 and 1; None where the reference is not a text.
    """
    if reference.form != "long" or not reference.answers:
        return None
    said = Counter(normalise_answer(answer).split())
    return max(_f1(said, Counter(normalise_answer(one).split())) for one in reference.answers)


def rouge_l(answer: str, reference: Reference) -> float | None:
    """F1 of the longest common subsequence of words, with the reference that it is greatest with.

    ROUGE-L (Lin 2004, ROUGE: A Package for Automatic Evaluation of Summaries, section 3, with beta 1) over normalised
    words: unlike `overlap`, it minds their order.

    Returns:
        Between 0 and 1; None where the reference is not a text.
    """
    if reference.form != "long" or not reference.answers:
        return None
    said = normalise_answer(answer).split()
    wanted = [normalise_answer(one).split() for one in reference.answers]
    return max(_harmonic(_common_subsequence(said, one), len(said), len(one)) for one in wanted)


def is_said(match: Match | None) -> bool:
    """Whether a match counts as having said the answer: anywhere in what was said."""
    return match is not None and match.anywhere


def routed(decision: Decision, probe: Probe, *, gold: Sequence[Edit], asked: dict[str, set[tuple[str, str]]]) -> Routed:
    """What a router did with a probe.

    Args:
        decision: Its decision, with every candidate.
        probe: The probe.
        gold: The edits that govern the probe; none out of scope.
        asked: For each text that asks for an edit in memory, in folded form, the edits (`folded` prompt and target).

    Returns:
        The record.
    """
    wanted = {_identity(edit) for edit in gold}
    best = decision.governing or (decision.candidates[0] if decision.candidates else None)
    rightful = wanted if probe.in_scope else asked.get(folded(probe.prompt.text), set())
    nearest = sorted(decision.candidates, key=lambda candidate: -candidate.similarity)
    rank = next((place for place, one in enumerate(nearest, start=1) if _identity(one.edit) in wanted), None)
    return Routed(
        fired=decision.governed,
        right=None if best is None else _identity(best.edit) in rightful,
        probability=decision.probability,
        threshold=decision.threshold,
        rank=rank,
        edit=best.edit.prompt if best else None,
        similarity=best.similarity if best else None,
    )


def _identity(edit: Edit) -> tuple[str, str]:
    return folded(edit.prompt), folded(edit.target)


def _said(verdict: str) -> Match:
    return Match(start=True, anywhere=True, exact=True, alias=verdict)


def _without_echo(answer: str, prompt: ProbePrompt) -> str:
    said, asked = normalise_answer(answer), normalise_answer(prompt.text)
    if prompt.form == "completion" and f"{said} ".startswith(f"{asked} "):
        return said[len(asked) + 1 :]
    return answer


def _f1(said: Counter[str], wanted: Counter[str]) -> float:
    return _harmonic((said & wanted).total(), said.total(), wanted.total())


def _harmonic(shared: int, said: int, wanted: int) -> float:
    """The harmonic mean of precision and recall."""
    return 2 * shared / (said + wanted) if shared else 0.0


def _common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    lengths = [0] * (len(second) + 1)
    for word in first:
        before = 0
        for place, other in enumerate(second, start=1):
            above = lengths[place]
            lengths[place] = before + 1 if word == other else max(above, lengths[place - 1])
            before = above
    return lengths[-1]
