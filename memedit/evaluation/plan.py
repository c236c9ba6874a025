"""Which edits are in place when which case is asked: the plan of a run, worked out before any model is loaded.

A cell with ``N`` edits asks every case of a group while the edits of the whole group, and of as many distractors as
make ``N``, are in place together. Everything is drawn by seeds: the same settings give the same plan on every machine.
This file knows nothing of models or methods.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from memedit.errors import ConfigError
from memedit.evaluation.cases import DIRECT_KINDS, EvalCase, folded
from memory_store import Edit

__all__ = ["Group", "PlacedCase", "chosen_cases", "groups_of"]


@dataclass(frozen=True, slots=True)
class PlacedCase:
    """A case and where its first edit stands in the order of editing.

    Attributes:
        case: The case.
        position: The place, from 0; 0 for traffic, which has no edit.
    """

    case: EvalCase
    position: int


@dataclass(frozen=True, slots=True)
class Group:
    """Cases that are asked while the same edits are in place.

    Attributes:
        id: What names the group within its cell.
        edits: The edits in the order in which they are made.
        cases: The cases that are asked.
    """

    id: int
    edits: tuple[Edit, ...]
    cases: tuple[PlacedCase, ...]

    def askers(self) -> dict[str, set[tuple[str, str]]]:
        """The texts that ask for an edit in place, in folded form, with the edits they ask for."""
        asking = [(text, edit) for edit in self.edits for text in _told_texts(edit)]
        asking += [pair for placed in self.cases for pair in _direct_probes(placed.case)]
        found: dict[str, set[tuple[str, str]]] = {}
        for text, edit in asking:
            found.setdefault(text, set()).add((folded(edit.prompt), folded(edit.target)))
        return found


def chosen_cases(cases: Sequence[EvalCase], limit: int | None, *, seed: int = 0) -> list[EvalCase]:
    """Draw the cases that are asked, the same whatever the order of edits.

    Args:
        cases: All that there are.
        limit: How many are wanted; None for all.
        seed: What draws them.

    Returns:
        The cases, in the order of the file.
    """
    if limit is None or limit >= len(cases):
        return list(cases)
    places = sorted(random.Random(seed).sample(range(len(cases)), limit))
    return [cases[place] for place in places]


def groups_of(
    cases: Sequence[EvalCase],
    *,
    edits: int,
    seed: int,
    distractors: Iterable[EvalCase] = (),
    more: Iterable[EvalCase] = (),
    where: str = "the cases",
) -> list[Group]:
    """Divide cases into groups, each with as many edits in place as asked for.

    A case whose edit contradicts one of a group, or is about what a case of the group asks for directly, comes into
    another group; a distractor that contradicts one, or that is what any probe of the group asks for, is passed over.
    Cases without edits are spread over the groups.

    Args:
        cases: The cases that are asked.
        edits: How many edits are in place; more only where one case has more.
        seed: What draws groups, distractors and the order of the edits.
        distractors: Cases whose edits fill a group up.
        more: Cases whose edits do so once the distractors are used up.
        where: What to call the cases in an error.

    Returns:
        The groups.

    Raises:
        ConfigError: There are not enough edits to fill a group.
    """
    if edits < 1:
        raise ConfigError(f"edits must be at least 1; it is {edits}.")
    chance = random.Random(f"{seed} {edits}")
    editing = [case for case in cases if case.edits]
    chance.shuffle(editing)
    bins: list[_Bin] = []
    open_bins: list[_Bin] = []
    for case in editing:
        fitting = next((one for one in open_bins if one.takes(case, edits)), None)
        if fitting is None:
            fitting = _Bin()
            bins.append(fitting)
            open_bins.append(fitting)
        fitting.add(case)
        if fitting.size >= edits:
            open_bins.remove(fitting)
    traffic = [case for case in cases if not case.edits]
    if traffic and not bins:
        bins.append(_Bin())
    for place, case in enumerate(traffic):
        bins[place % len(bins)].add_traffic(case)
    pools = [[case for case in some if case.edits] for some in (distractors, more, editing)]
    for one in bins:
        if one.size < edits:
            _fill(one, edits, [case for pool in pools for case in _shuffled(pool, chance)], where)
    return [one.group(number, chance) for number, one in enumerate(bins)]


class _Bin:
    """A group in the making."""

    def __init__(self) -> None:
        self.cases: list[EvalCase] = []
        self.traffic: list[EvalCase] = []
        self.others: list[Edit] = []
        self.size = 0
        self._asked: set[str] = set()
        self._direct: set[str] = set()

    def takes(self, case: EvalCase, edits: int) -> bool:
        return self.size + len(case.edits) <= edits and self._direct.isdisjoint(_direct_texts(case))

    def takes_other(self, edit: Edit) -> bool:
        told = _told_texts(edit)
        return self._direct.isdisjoint(told) and self._asked.isdisjoint(told)

    def add(self, case: EvalCase) -> None:
        self.cases.append(case)
        self.size += len(case.edits)
        self._direct |= _direct_texts(case)
        self._asked |= _probe_texts(case)

    def add_traffic(self, case: EvalCase) -> None:
        self.traffic.append(case)
        self._asked |= _probe_texts(case)

    def add_other(self, edit: Edit) -> None:
        self.others.append(edit)
        self.size += 1
        self._direct |= _told_texts(edit)

    def group(self, number: int, chance: random.Random) -> Group:
        """The group with its edits in a drawn order, those of one case together and in their own order."""
        units: list[EvalCase | Edit] = [*self.cases, *self.others]
        chance.shuffle(units)
        order: list[Edit] = []
        placed: list[PlacedCase] = []
        for unit in units:
            if isinstance(unit, Edit):
                order.append(unit)
            else:
                placed.append(PlacedCase(unit, len(order)))
                order.extend(unit.edits)
        places = {id(case): place for place, case in enumerate(self.cases)}
        placed.sort(key=lambda one: places[id(one.case)])
        return Group(number, tuple(order), (*placed, *(PlacedCase(case, 0) for case in self.traffic)))


def _told_texts(edit: Edit) -> set[str]:
    """The texts under which an edit is held, in folded form."""
    return {folded(edit.prompt), *map(folded, edit.paraphrases)}


def _direct_probes(case: EvalCase) -> Iterator[tuple[str, Edit]]:
    """The texts, in folded form, of the probes that ask for an edit itself, with the edit."""
    for probe in case.probes:
        if probe.kind in DIRECT_KINDS and probe.of_edit is not None:
            yield folded(probe.prompt.text), case.edits[probe.of_edit]


def _direct_texts(case: EvalCase) -> set[str]:
    """The texts that a case's edits answer: a group with two cases that share one contradicts itself."""
    return {text for edit in case.edits for text in _told_texts(edit)} | {text for text, _ in _direct_probes(case)}


def _probe_texts(case: EvalCase) -> set[str]:
    return {folded(probe.prompt.text) for probe in case.probes}


def _shuffled(cases: Sequence[EvalCase], chance: random.Random) -> list[EvalCase]:
    return chance.sample(list(cases), len(cases))


def _fill(one: _Bin, edits: int, pool: Iterable[EvalCase], where: str) -> None:
    """Add distractors until a group has as many edits as asked for."""
    for case in pool:
        if one.size >= edits:
            return
        for edit in case.edits:
            if one.size < edits and one.takes_other(edit):
                one.add_other(edit)
    if one.size < edits:
        raise ConfigError(
            f"{edits:,} edits in place were asked for, but {where} and the distractors give {one.size:,}; ask for "
            "fewer edits, or name a dataset whose edits fill up (--distractors counterfact:train)."
        )
