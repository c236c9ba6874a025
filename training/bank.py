"""The relation bank: relations with their wordings, read from the TOML files beside this one.

A relation says how a fact is stated, asked for, described, asked about with yes or no, and asked for the other way
round; which other relations it may be mistaken for; and what type of thing stands on each side. From these, facts about
real and made-up subjects are worded (`training.wording`). Plain values: it knows nothing of models or of pairs.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from training.errors import TrainingDataError

__all__ = ["Bank", "Relation", "bank_files", "load_bank"]

_FORMS = (
    "labels",
    "stubs",
    "questions",
    "descriptions",
    "yes_no",
    "reversed_questions",
    "reversed_stubs",
    "excluding",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """A relation and its wordings; ``{s}`` stands for the subject and ``{o}`` for the object.

    Attributes:
        name: What it is called.
        subject: Type of the subject.
        object: Type of the object.
        labels: Nouns for it, as in "the LABEL of {s}".
        stubs: Beginnings of statements that the object completes.
        questions: Questions that the object answers.
        descriptions: Noun phrases that denote the object.
        yes_no: Questions whether the object is this one.
        reversed_questions: Questions that name the object and ask for the subject.
        reversed_stubs: Beginnings of statements that name the object and that the subject completes.
        excluding: Prompts that name the object only to ask for another.
        overlaps: Relations whose questions this fact may fairly answer, or be mistaken for.
        inverse: The relation that holds the other way.
        many: Whether a subject usually has several objects.
    """

    name: str
    subject: str
    object: str
    labels: tuple[str, ...] = ()
    stubs: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()
    descriptions: tuple[str, ...] = ()
    yes_no: tuple[str, ...] = ()
    reversed_questions: tuple[str, ...] = ()
    reversed_stubs: tuple[str, ...] = ()
    excluding: tuple[str, ...] = ()
    overlaps: frozenset[str] = frozenset()
    inverse: str | None = None
    many: bool = False


@dataclass(frozen=True)
class Bank:
    """All relations, types and names.

    Attributes:
        relations: By name.
        parents: Type to its parent; "" for none.
        values: Type to names of things of that very type.
    """

    relations: Mapping[str, Relation]
    parents: Mapping[str, str]
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def ancestors(self, kind: str) -> tuple[str, ...]:
        """A type and all that it is a kind of, the nearest first."""
        found = []
        while kind and kind not in found:
            found.append(kind)
            kind = self.parents.get(kind, "")
        return tuple(found)

    def about(self, kind: str) -> tuple[Relation, ...]:
        """The relations that a thing of a type can stand in as their subject."""
        return self._about.get(kind, ())

    def overlapping(self, one: str, other: str) -> bool:
        """Whether a question of one relation may be answered by a fact of the other."""
        first, second = self.relations[one], self.relations[other]
        return one == other or other in first.overlaps or one in second.overlaps

    def names(self, kind: str) -> tuple[str, ...]:
        """Names of things of a type, those of its subtypes included."""
        return self._names.get(kind, ())

    def with_names(self, names: Mapping[str, Iterable[str]]) -> Bank:
        """A bank that knows more names."""
        merged = {kind: dict.fromkeys(known) for kind, known in self.values.items()}
        for kind, more in names.items():
            merged.setdefault(kind, {}).update(dict.fromkeys(more))
        return Bank(self.relations, self.parents, {kind: tuple(known) for kind, known in merged.items()})

    @cached_property
    def _about(self) -> dict[str, tuple[Relation, ...]]:
        kinds = {*self.parents, *(one.subject for one in self.relations.values())}
        return {
            kind: tuple(one for one in self.relations.values() if one.subject in self.ancestors(kind)) for kind in kinds
        }

    @cached_property
    def _names(self) -> dict[str, tuple[str, ...]]:
        gathered: dict[str, dict[str, None]] = {}
        for kind, known in self.values.items():
            for one in self.ancestors(kind):
                gathered.setdefault(one, {}).update(dict.fromkeys(known))
        return {kind: tuple(known) for kind, known in gathered.items()}


def bank_files(folder: Path | None = None) -> list[Path]:
    """The files of a bank: those in a folder, by default the ones that come with this package."""
    root = folder if folder is not None else Path(__file__).parent / "data"
    return sorted(root.glob("relations_*.toml"))


def load_bank(folder: Path | None = None) -> Bank:
    """Reads every ``relations_*.toml`` of a folder.

    Args:
        folder: The folder; by default the one that comes with this package.

    Raises:
        TrainingDataError: A file is not what it should be; the message names file, relation and form.
    """
    files = bank_files(folder)
    if not files:
        raise TrainingDataError(f"{folder} holds no relations_*.toml, from which training data are made")
    relations: dict[str, Relation] = {}
    parents: dict[str, str] = {}
    values: dict[str, dict[str, None]] = {}
    for path in files:
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise TrainingDataError(f"{path.name} is not TOML: {error}") from error
        for kind, parent in content.get("types", {}).items():
            if parents.get(kind) in (None, ""):
                parents[kind] = parent
        for kind, known in content.get("values", {}).items():
            values.setdefault(kind, {}).update(dict.fromkeys(known))
        for described in content.get("relation", []):
            made = _relation(described, path.name)
            if made.name in relations:
                raise TrainingDataError(f"{path.name}: the relation {made.name!r} is there twice")
            relations[made.name] = made
    return Bank(relations, parents, {kind: tuple(known) for kind, known in values.items()})


def _relation(described: Mapping[str, Any], file: str) -> Relation:
    where = f"{file}, relation {described.get('name')!r}"
    told: dict[str, Any] = {
        name: tuple(value) if name in _FORMS else frozenset(value) if name == "overlaps" else value
        for name, value in described.items()
    }
    try:
        made = Relation(**told)
    except TypeError as error:
        raise TrainingDataError(f"{where}: {error}") from error
    for form in _FORMS[1:]:
        takes_object = form in ("yes_no", "reversed_questions", "reversed_stubs", "excluding")
        takes_subject = form not in ("reversed_questions", "reversed_stubs")
        for text in getattr(made, form):
            if (text.count("{s}"), text.count("{o}")) != (int(takes_subject), int(takes_object)):
                raise TrainingDataError(f"{where}: {form} has {text!r}, whose placeholders are not those of its kind")
    if not (made.stubs and made.questions and made.labels):
        raise TrainingDataError(f"{where}: labels, stubs and questions need at least one each")
    return made
