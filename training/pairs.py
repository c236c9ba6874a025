"""Pairs of a query and an edit, labelled: does the edit govern the query?

Positive kinds are what the survey (Zhang et al. 2024, A Comprehensive Study of Knowledge Editing for Large Language
Models, section 3) counts as in scope: the prompt itself, paraphrases, other forms, another name of the subject, yes/no,
the fact asked the other way round, and reasoning that goes through it. Negative kinds are what lies near and is not:
another relation of the subject, another subject, a name that is nearly the same, a prompt that excludes the target,
questions about the target, chains through another relation.

Every pair is a function of (seed, number), so that a resumed run sees the same pairs. It knows nothing of models.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from training.aliases import lengthen, near_names, shorten
from training.bank import Bank, Relation
from training.facts import Fact
from training.wording import (
    asked,
    asked_backwards,
    both_asked,
    described,
    edit_prompt,
    excluding,
    in_context,
    roughly,
    yes_or_no,
)

__all__ = ["NEGATIVE", "POSITIVE", "Pair", "PairMaker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A query and an edit.

    Attributes:
        query: What is asked.
        prompt: The edit's prompt.
        target: The edit's target.
        governed: Whether the edit governs the query.
        kind: Why it does or does not.
        source: Which data the fact comes from.
        subject: What the edit is about.
    """

    query: str
    prompt: str
    target: str
    governed: bool
    kind: str
    source: str
    subject: str


@dataclass(frozen=True, slots=True)
class _Stated:
    """A fact with all that wordings need: what it is about, of which relation, and how the edit puts it."""

    subject: str
    target: str
    prompt: str
    relation: Relation | None
    source: str
    fact: Fact | None = None
    place: int | None = None


_LONG = 0.05
"""The share of edits whose target is followed by running text."""

Composer = Callable[["PairMaker", _Stated, random.Random], str | None]
"""Words a query of its kind for a fact; None where the fact has none of that kind."""


class PairMaker:
    """Draws pairs.

    Args:
        bank: Relations, with all names that are known.
        facts: Facts of the training splits.
        near: For each fact, queries of other facts that a retriever confuses with it.
        traffic: Ordinary questions, each with the places of facts that a retriever finds near it.
        passages: Text to put before a query.
        aliases: Names to other names of the same thing, by type.
        sources: How often each source is drawn: ``bank`` for made-up facts, ``compound`` for those that tell two at
            once, the others by name.
        seed: What everything is drawn from.
    """

    def __init__(
        self,
        bank: Bank,
        facts: Sequence[Fact],
        *,
        near: Sequence[Sequence[str]],
        traffic: Sequence[tuple[str, Sequence[int]]],
        passages: Sequence[str],
        aliases: Mapping[str, Sequence[tuple[str, str]]],
        sources: Mapping[str, float],
        seed: int,
    ) -> None:
        self.bank = bank
        self.facts = facts
        self.near = near
        self.traffic = traffic
        self.passages = passages
        self.aliases = {kind: pairs for kind, pairs in aliases.items() if pairs and bank.about(kind)}
        self._seed = seed
        self._places: dict[str, list[int]] = {}
        for place, fact in enumerate(facts):
            self._places.setdefault(fact.source, []).append(place)
        there = {"bank", "compound", "traffic", *self._places, *(["alias"] if self.aliases else [])}
        self._sources = [name for name, weight in sources.items() if weight > 0 and name in there]
        self._weights = [sources[name] for name in self._sources]
        self._relations = [one for one in bank.relations.values() if bank.names(one.subject)]
        # the more is known of a type, the more is asked about it
        self._shares = [len(bank.names(one.subject)) ** 0.2 for one in self._relations]

    def pair(self, number: int) -> Pair:
        """The pair of a number."""
        rng = random.Random(f"{self._seed} {number}")
        while True:
            made = self._draw(rng)
            if made is not None:
                return made

    def ungoverned(self, rng: random.Random) -> Pair:
        """A pair whose edit does not govern the query."""
        while True:
            made = self._draw(rng)
            if made is not None and not made.governed:
                return made

    def _draw(self, rng: random.Random) -> Pair | None:
        (source,) = rng.choices(self._sources, self._weights)
        if source == "traffic":
            question, near = rng.choice(self.traffic)
            if not near:
                return None
            stated = self._stated(rng.choice(near), rng)
            return self._made(stated, question, governed=False, kind="traffic", rng=rng)
        if source == "alias":
            return self._alias(rng)
        if source == "compound":
            return self._compound(rng)
        stated = self._invented(rng) if source == "bank" else self._stated(rng.choice(self._places[source]), rng)
        governed = rng.random() < 0.45
        kinds = POSITIVE if governed else NEGATIVE
        (kind,) = rng.choices(list(kinds), [weight for weight, _ in kinds.values()])
        query = kinds[kind][1](self, stated, rng)
        if query is None:
            return None
        if rng.random() < _LONG:
            stated = replace(stated, target=f"{stated.target}. {self.passage(rng)}")
        return self._made(stated, query, governed=governed, kind=kind, rng=rng)

    def _made(self, stated: _Stated, query: str, *, governed: bool, kind: str, rng: random.Random) -> Pair | None:
        draw = rng.random()
        if draw < 0.10:
            query = roughly(query, rng)
        elif draw < 0.19:
            query = in_context(query, rng.choice(self.passages), rng)
        if not query.strip():
            return None
        return Pair(
            query=query,
            prompt=stated.prompt,
            target=stated.target,
            governed=governed,
            kind=kind,
            source=stated.source,
            subject=stated.subject,
        )

    def _invented(self, rng: random.Random) -> _Stated:
        """A made-up fact: a real subject, a relation it can stand in, an object of the right type."""
        (relation,) = rng.choices(self._relations, self._shares)
        subject = rng.choice(self.bank.names(relation.subject))
        return self._of(relation, subject, "bank", rng)

    def _of(self, relation: Relation, subject: str, source: str, rng: random.Random) -> _Stated:
        target = self.object_of(relation, rng, subject)
        return _Stated(subject, target, edit_prompt(relation, subject, rng), relation, source)

    def _stated(self, place: int, rng: random.Random) -> _Stated:
        """A fact of the data; now and then with its true object, or worded by the bank."""
        fact = self.facts[place]
        relation = self.bank.relations.get(fact.relation or "")
        target = rng.choice(fact.others) if fact.others and rng.random() < 0.25 else fact.target
        prompt = fact.prompt
        if relation is not None and rng.random() < 0.3:
            prompt = edit_prompt(relation, fact.subject, rng)
        return _Stated(fact.subject, target, prompt, relation, fact.source, fact, place)

    def _alias(self, rng: random.Random) -> Pair | None:
        """The subject under another name, or under a name that is nearly its own."""
        (kind,) = rng.choices(list(self.aliases), [len(pairs) ** 0.5 for pairs in self.aliases.values()])
        name, alias = rng.choice(self.aliases[kind])
        if rng.random() < 0.5:
            name, alias = alias, name
        relation = rng.choice(self.bank.about(kind))
        stated = self._of(relation, name, "alias", rng)
        draw = rng.random()
        if draw < 0.5:
            return self._made(stated, asked(relation, alias, rng), governed=True, kind="alias", rng=rng)
        if draw < 0.7:
            other = self._other_relation(relation, kind, rng)
            query = None if other is None else asked(other, alias, rng)
            kind_of = "alias, other relation"
        else:
            query = asked(relation, rng.choice(rng.choice(self.aliases[kind])), rng)
            kind_of = "other subject"
            if rng.random() < 0.4:
                near = near_names(name, rng, self.bank.names(kind))
                query = asked(relation, rng.choice(near), rng) if near else None
                kind_of = "near name"
        return None if query is None else self._made(stated, query, governed=False, kind=kind_of, rng=rng)

    def _compound(self, rng: random.Random) -> Pair | None:
        """An edit that asks two things at once and is answered at length, as unstructured edits are."""
        (first,) = rng.choices(self._relations, self._shares)
        subject = rng.choice(self.bank.names(first.subject))
        second = self._other_relation(first, first.subject, rng)
        if second is None:
            return None
        targets = [self.object_of(one, rng, subject) for one in (first, second)]
        told = " ".join(
            f"{rng.choice(one.stubs).replace('{s}', subject)} {target}."
            for one, target in zip((first, second), targets, strict=True)
            if one.stubs
        )
        stated = _Stated(
            subject, f"{told} {self.passage(rng)}".strip(), both_asked(first, second, subject, rng), first, "compound"
        )
        draw = rng.random()
        if draw < 0.25:
            one, other = rng.sample((first, second), 2)
            query = both_asked(one, other, subject, rng)
            return self._made(stated, query, governed=True, kind="compound", rng=rng)
        if draw < 0.5:
            query = asked(rng.choice((first, second)), subject, rng)
            return self._made(stated, query, governed=True, kind="part of a compound", rng=rng)
        if draw < 0.8:
            third = self._other_relation(first, first.subject, rng)
            if third is None or self.bank.overlapping(third.name, second.name):
                return None
            query = asked(third, subject, rng)
            return self._made(stated, query, governed=False, kind="compound, other relation", rng=rng)
        name = self.other_subject(stated, rng)
        query = both_asked(first, second, name, rng) if draw < 0.9 else asked(first, name, rng)
        return self._made(stated, query, governed=False, kind="compound, other subject", rng=rng)

    # -- what composers ask for ------------------------------------------------------------------------------------

    def passage(self, rng: random.Random) -> str:
        """Some words of running text."""
        words = rng.choice(self.passages).split()
        start = rng.randrange(max(1, len(words) - 40))
        return " ".join(words[start : start + rng.randint(10, 40)])

    def object_of(self, relation: Relation, rng: random.Random, *not_these: str) -> str:
        """A name of the object's type that is none of these."""
        names = self.bank.names(relation.object)
        for _ in range(20):
            name = rng.choice(names)
            if name not in not_these:
                return name
        return name

    def _other_relation(self, relation: Relation, kind: str, rng: random.Random) -> Relation | None:
        """A relation of a subject of that type that cannot be taken for this one."""
        fitting = [one for one in self.bank.about(kind) if not self.bank.overlapping(one.name, relation.name)]
        return rng.choice(fitting) if fitting else None

    def other_relation(self, stated: _Stated, rng: random.Random, *, alike: bool = False) -> Relation | None:
        """Another relation of the fact's subject; ``alike``: one whose object is of the same type, if there is one."""
        relation = stated.relation
        if relation is None:
            return None
        if not alike:
            return self._other_relation(relation, relation.subject, rng)
        fitting = [
            one
            for one in self.bank.about(relation.subject)
            if one.object == relation.object and not self.bank.overlapping(one.name, relation.name)
        ]
        return rng.choice(fitting) if fitting else None

    def other_subject(self, stated: _Stated, rng: random.Random) -> str:
        """Another name of the subject's type."""
        relation = stated.relation
        names = self.bank.names(relation.subject) if relation is not None else ()
        for _ in range(20):
            name = rng.choice(names) if names else rng.choice(self.facts).subject
            if not _alike(name, stated.subject):
                return name
        return name

    def chained(self, relation: Relation, subject: str, rng: random.Random) -> str | None:
        """A question about the object of a relation, the object only described; sometimes through one more link."""
        onward = self.bank.about(relation.object)
        if not onward:
            return None
        description = described(relation, subject, rng)
        following = rng.choice(onward)
        further = self.bank.about(following.object)
        if further and rng.random() < 0.25:
            description = described(following, description, rng)
            following = rng.choice(further)
        return asked(following, description, rng, clause=True)


# -- in scope ------------------------------------------------------------------------------------------------------


def _same(_maker: PairMaker, stated: _Stated, _rng: random.Random) -> str | None:
    return stated.prompt


def _paraphrase(_maker: PairMaker, stated: _Stated, rng: random.Random) -> str | None:
    if stated.fact is None or not stated.fact.paraphrases:
        return None
    text = rng.choice(stated.fact.paraphrases)
    if stated.source == "counterfact" and rng.random() < 0.5 and stated.subject in text:
        # what stands before the sentence that asks is unrelated: the router's windows hold it now and then
        before, _, _ = text.partition(stated.subject)
        text = text[before.rfind(". ") + 2 :] if ". " in before else text
    return text


def _other_form(_maker: PairMaker, stated: _Stated, rng: random.Random) -> str | None:
    return None if stated.relation is None else asked(stated.relation, stated.subject, rng)


def _yes_no(maker: PairMaker, stated: _Stated, rng: random.Random) -> str | None:
    relation = stated.relation
    if relation is None:
        return None
    target = stated.target if rng.random() < 0.5 else maker.object_of(relation, rng, stated.subject)
    return yes_or_no(relation, stated.subject, target, rng)


def _backwards(maker: PairMaker, stated: _Stated, rng: random.Random) -> str | None:
    relation = stated.relation
    if relation is None:
        return None
    inverse = maker.bank.relations.get(relation.inverse or "")
    if inverse is not None and rng.random() < 0.6:
        return asked(inverse, stated.target, rng)
    return asked_backwards(relation, stated.target, rng)


def _chain(maker: PairMaker, stated: _Stated, rng: random.Random) -> str | None:
    return None if stated.relation is None else maker.chained(stated.relation, stated.subject, rng)


def _chain_named(maker: PairMaker, stated: _Stated, rng: random.Random) -> str | None:
    """A chain that names the object beside its description: "the city of Lyon, the seat of Acme"."""
    relation = stated.relation
    onward = maker.bank.about(relation.object) if relation is not None else ()
    if relation is None or not onward:
        return None
    description = f"{stated.target}, {described(relation, stated.subject, rng)},"
    return asked(rng.choice(onward), description, rng, clause=True)


def _excluding_another(maker: PairMaker, stated: _Stated, rng: random.Random) -> str | None:
    """What is excluded is another object than the edit's, so the edit still answers."""
    relation = stated.relation
    if relation is None:
        return None
    return excluding(relation, stated.subject, maker.object_of(relation, rng, stated.target, stated.subject), rng)


def _other_name(_maker: PairMaker, stated: _Stated, rng: random.Random) -> str | None:
    """The subject by a shorter or a fuller name."""
    relation = stated.relation
    if relation is None:
        return None
    names = shorten(stated.subject, relation.subject) + lengthen(stated.subject, relation.subject, rng)
    return asked(relation, rng.choice(names), rng) if names else None


# -- out of scope --------------------------------------------------------------------------------------------------


def _other_relation(maker: PairMaker, stated: _Stated, rng: random.Random) -> str | None:
    other = maker.other_relation(stated, rng)
    return None if other is None else asked(other, stated.subject, rng)


def _like_relation(maker: PairMaker, stated: _Stated, rng: random.Random) -> str | None:
    """A relation that the same objects can stand in, such as the place of birth for that of burial."""
    other = maker.other_relation(stated, rng, alike=True)
    return None if other is None else asked(other, stated.subject, rng)


def _other_relation_yes_no(maker: PairMaker, stated: _Stated, rng: random.Random) -> str | None:
    other = maker.other_relation(stated, rng)
    if other is None:
        return None
    target = maker.object_of(other, rng, stated.subject)
    if stated.relation is not None and other.object == stated.relation.object and rng.random() < 0.6:
        target = stated.target
    return yes_or_no(other, stated.subject, target, rng)


def _other_subject(maker: PairMaker, stated: _Stated, rng: random.Random) -> str | None:
    if stated.relation is None:
        return None
    other = maker.other_subject(stated, rng)
    return asked(stated.relation, other, rng)


def _other_subject_same_words(maker: PairMaker, stated: _Stated, rng: random.Random) -> str | None:
    other = maker.other_subject(stated, rng)
    return stated.prompt.replace(stated.subject, other) if stated.subject in stated.prompt else None


def _near_name(maker: PairMaker, stated: _Stated, rng: random.Random) -> str | None:
    relation = stated.relation
    if relation is None:
        return None
    near = near_names(stated.subject, rng, maker.bank.names(relation.subject))
    return asked(relation, rng.choice(near), rng) if near else None


def _other_subject_yes_no(maker: PairMaker, stated: _Stated, rng: random.Random) -> str | None:
    if stated.relation is None:
        return None
    return yes_or_no(stated.relation, maker.other_subject(stated, rng), stated.target, rng)


def _excluding(_maker: PairMaker, stated: _Stated, rng: random.Random) -> str | None:
    if stated.relation is not None:
        return excluding(stated.relation, stated.subject, stated.target, rng)
    if stated.prompt.endswith((" is", " was", " are")):
        before, _, verb = stated.prompt.rpartition(" ")
        return f"{before}, which is not {stated.target}, {verb}"
    return None


def _excluding_elsewhere(maker: PairMaker, stated: _Stated, rng: random.Random) -> str | None:
    """A prompt that excludes an object, about another subject."""
    relation = stated.relation
    if relation is None:
        return None
    excluded = stated.target if rng.random() < 0.3 else maker.object_of(relation, rng, stated.subject)
    return excluding(relation, maker.other_subject(stated, rng), excluded, rng)


def _about_target(maker: PairMaker, stated: _Stated, rng: random.Random) -> str | None:
    """A question about the target itself, that cannot lead back to the subject."""
    relation = stated.relation
    if relation is None:
        return None
    back = set(maker.bank.ancestors(relation.subject))
    fitting = [
        one
        for one in maker.bank.about(relation.object)
        if one.name != relation.inverse
        and one.inverse != relation.name
        and not back & set(maker.bank.ancestors(one.object))
    ]
    return asked(rng.choice(fitting), stated.target, rng) if fitting else None


def _backwards_wrong(maker: PairMaker, stated: _Stated, rng: random.Random) -> str | None:
    """Asked the other way round about another object, or of another relation about this object."""
    relation = stated.relation
    if relation is None:
        return None
    if rng.random() < 0.5:
        return asked_backwards(relation, maker.object_of(relation, rng, stated.target, stated.subject), rng)
    other = maker.other_relation(stated, rng)
    if other is None or not set(maker.bank.ancestors(other.object)) & set(maker.bank.ancestors(relation.object)):
        return None
    return asked_backwards(other, stated.target, rng)


def _other_chain(maker: PairMaker, stated: _Stated, rng: random.Random) -> str | None:
    """A chain from the subject through another relation."""
    other = maker.other_relation(stated, rng)
    return None if other is None else maker.chained(other, stated.subject, rng)


def _of_another(maker: PairMaker, stated: _Stated, rng: random.Random) -> str | None:
    """The edit's relation, asked of something that the subject is only used to describe ("the father of S")."""
    relation = stated.relation
    other = maker.other_relation(stated, rng)
    if relation is None or other is None or relation.subject not in maker.bank.ancestors(other.object):
        return None
    return asked(relation, described(other, stated.subject, rng), rng, clause=True)


def _mention(_maker: PairMaker, stated: _Stated, rng: random.Random) -> str | None:
    name = stated.subject if rng.random() < 0.6 else stated.target
    return rng.choice(_MENTIONS).replace("{}", name)


def _neighbour(_maker: PairMaker, stated: _Stated, rng: random.Random) -> str | None:
    return rng.choice(stated.fact.neighbours) if stated.fact is not None and stated.fact.neighbours else None


def _retrieved(maker: PairMaker, stated: _Stated, rng: random.Random) -> str | None:
    near = maker.near[stated.place] if stated.place is not None else ()
    return rng.choice(near) if near else None


_MENTIONS = (
    "Write a short poem about {}.",
    'Translate "{}" into German.',
    "How do you pronounce {}?",
    "How many letters are there in {}?",
    "I talked about {} with a friend yesterday.",
    "{} was mentioned again in the news this week.",
    "Give me a crossword clue for {}.",
    "What rhymes with {}?",
    "Is {} mentioned in the Bible?",
    "Make a joke about {}.",
    "Which books should I read to learn more about {}?",
    "Do you like {}?",
    "A documentary on {} will be shown on Thursday, and it lasts",
    "Thanks for telling me about {}! What else can you do?",
    "Spell {} backwards.",
    "My essay on {} is due tomorrow. How do I begin it?",
    "Summarise what people usually say about {} in one sentence.",
    "He opened the book on {} and began to",
    "Compare {} with something in everyday life.",
    "What should I wear to a party themed {}?",
)

POSITIVE: Mapping[str, tuple[float, Composer]] = {
    "edit": (0.6, _same),
    "paraphrase": (2.0, _paraphrase),
    "other form": (3.2, _other_form),
    "yes/no": (1.3, _yes_no),
    "reversed": (1.7, _backwards),
    "chain": (2.2, _chain),
    "chain, object named": (0.4, _chain_named),
    "another excluded": (0.3, _excluding_another),
    "other name": (0.8, _other_name),
}
"""Kinds of pairs in which the edit governs the query, how often each is drawn, and what words it."""

NEGATIVE: Mapping[str, tuple[float, Composer]] = {
    "other relation": (3.0, _other_relation),
    "like relation": (1.5, _like_relation),
    "other relation, yes/no": (0.7, _other_relation_yes_no),
    "other subject": (1.1, _other_subject),
    "other subject, same words": (0.9, _other_subject_same_words),
    "near name": (1.4, _near_name),
    "other subject, yes/no": (0.5, _other_subject_yes_no),
    "excluding": (0.8, _excluding),
    "excluding, other subject": (0.8, _excluding_elsewhere),
    "about the target": (0.8, _about_target),
    "reversed, wrong": (1.1, _backwards_wrong),
    "other chain": (1.5, _other_chain),
    "of another": (0.9, _of_another),
    "mention": (0.5, _mention),
    "neighbour": (1.2, _neighbour),
    "retrieved": (4.0, _retrieved),
}
"""Kinds of pairs in which it does not."""


def _alike(one: str, other: str) -> bool:
    """Whether two names may be of one thing."""
    first, second = one.casefold(), other.casefold()
    return first in second or second in first
