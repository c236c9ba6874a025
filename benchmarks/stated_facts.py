"""Which edits in a memory state the same fact: a neighbour that asks for one of them is rightly governed."""

from __future__ import annotations

from memedit.evaluation.cases import folded
from memory_store import EditMemory
from training.facts import counterfact_relations


class StatedFacts:
    """Which of the edits in a memory state the same fact, of those whose prompt is a template of CounterFact's.

    And, of all edits with a subject, which say the same of another.
    """

    def __init__(self, memory: EditMemory) -> None:
        templates = counterfact_relations()
        self._known: dict[str, tuple[str, frozenset[str]]] = {}
        self._about: dict[str, list[str]] = {}
        self._said: dict[str, tuple[str, str]] = {}
        self._saying: dict[tuple[str, str], set[str]] = {}
        for edit in memory.iterate():
            relations = templates.get(edit.prompt.replace(edit.subject or "", "{}"))
            if edit.subject:
                said = (folded(edit.prompt.replace(edit.subject, "{}")), folded(edit.target))
                self._said[edit.id] = said
                self._saying.setdefault(said, set()).add(edit.id)
            if edit.subject and relations:
                self._known[edit.id] = (folded(edit.subject), relations)
                self._about.setdefault(folded(edit.subject), []).append(edit.id)

    def like(self, edit: str) -> set[str]:
        """The edits about the subject and of the relation of one."""
        if edit not in self._known:
            return set()
        subject, relations = self._known[edit]
        return self._of(subject, relations)

    def of_others(self, edits: frozenset[str]) -> frozenset[str]:
        """The edits that differ from one of some in the subject alone."""
        alike = (self._saying[self._said[one]] for one in edits if one in self._said)
        return frozenset().union(*alike) - edits

    def stating(self, text: str, neighbour: str) -> frozenset[str] | None:
        """The edits about a subject that a text names and of the relation of an edit; None where it is not known."""
        if neighbour not in self._known:
            return None
        asked, (_, relations) = folded(text), self._known[neighbour]
        return frozenset().union(*(self._of(subject, relations) for subject in self._about if subject in asked))

    def _of(self, subject: str, relations: frozenset[str]) -> set[str]:
        return {one for one in self._about[subject] if self._known[one][1] & relations}
