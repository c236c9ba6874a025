"""Examples for the counterfactual model: facts, a query, and the answer as if the facts were true.

The facts shown hold the right one among others that do not matter, as a router's candidates do; or none that matters,
and then the answer is the base model's own. Every example is a function of (seed, number). It knows nothing of how a
model is shown facts.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from training.aliases import lengthen, shorten
from training.bank import Relation
from training.facts import Fact
from training.material import Material
from training.wording import asked, asked_backwards, described, edit_prompt, in_context, yes_or_no

__all__ = ["KINDS", "Example", "ExampleMaker", "ShownFact", "Unconcerned"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownFact:
    """A fact as the model is shown it; what `memedit.counterfactual` asks of one."""

    prompt: str
    target: str
    subject: str | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One example.

    Attributes:
        facts: The facts shown, the best first.
        query: What is asked.
        conversational: Whether it is asked of an assistant, or is a text to go on with.
        answer: What is to be said.
        kind: What the example teaches.
        ends: Whether the answer ends there; else it was cut, and nothing is taught of how it goes on.
    """

    facts: tuple[ShownFact, ...]
    query: str
    conversational: bool
    answer: str
    kind: str
    ends: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Unconcerned:
    """What the base model says to a query that no fact shown concerns.

    Attributes:
        query: What is asked.
        conversational: Whether it is asked of an assistant, or is a text to go on with.
        answer: What the base model says when it is shown no fact.
        ends: Whether the answer ends there, or was cut.
        near: A fact that a router may take for the one asked for: another relation of the subject, or another subject.
    """

    query: str
    conversational: bool
    answer: str
    ends: bool = True
    near: ShownFact | None = None


KINDS: Mapping[str, float] = {
    "edit": 1.0,
    "paraphrase": 2.0,
    "other form": 2.5,
    "other name": 1.0,
    "yes": 0.7,
    "no": 0.7,
    "reversed": 1.2,
    "chain": 2.2,
    "sentence": 0.6,
    "long": 0.5,
    "irrelevant": 3.2,
}
"""What is taught, and how often each is drawn."""


class ExampleMaker:
    """Draws examples.

    Args:
        material: Relations, names, facts, text.
        answers: The base model's own answers to queries that no fact shown concerns.
        seed: What everything is drawn from.
    """

    def __init__(self, material: Material, *, answers: Sequence[Unconcerned], seed: int) -> None:
        self._material = material
        self._bank = material.bank
        self._answers = answers
        self._seed = seed
        self._paraphrased = [fact for fact in material.facts if fact.paraphrases]
        self._relations = [one for one in self._bank.relations.values() if self._bank.names(one.subject)]
        true = _true_facts(material.facts)
        self._onward = {one.name: self._following(one, true) for one in self._relations}
        self._links = [one for one in self._relations if self._onward[one.name]]
        self._named = [
            (kind, pair) for kind, pairs in material.aliases.items() for pair in pairs if self._bank.about(kind)
        ]
        needed: dict[str, Sequence[object]] = {
            "irrelevant": answers,
            "chain": self._links,
            "edit": self._paraphrased,
            "paraphrase": self._paraphrased,
            "long": material.facts if material.passages else (),
        }
        self._kinds = {kind: weight for kind, weight in KINDS.items() if needed.get(kind, KINDS)}

    def example(self, number: int) -> Example:
        """The example of a number."""
        rng = random.Random(f"{self._seed} {number}")
        while True:
            (kind,) = rng.choices(list(self._kinds), list(self._kinds.values()))
            made = self._drawn(kind, rng)
            if made is not None:
                return made

    def _drawn(self, kind: str, rng: random.Random) -> Example | None:
        if kind == "irrelevant":
            return self._irrelevant(rng)
        if kind == "long":
            return self._long(rng)
        if kind == "chain":
            return self._chain(rng)
        if kind in ("edit", "paraphrase"):
            return self._of_data(kind, rng)
        shown, relation = self._invented(rng)
        subject = shown.subject or ""
        if kind == "other name":
            return self._other_name(rng)
        if kind == "other form":
            return self._asked(shown, asked(relation, subject, rng), f"{shown.target}.", kind, rng)
        if kind == "sentence":
            wish = rng.choice(
                ("Answer in a full sentence.", "Please answer with a complete sentence.", "Use a sentence.")
            )
            query = f"{rng.choice(relation.questions).replace('{s}', subject)} {wish}"
            return self._asked(shown, query, _statement(relation, subject, shown.target, rng), kind, rng, asks=True)
        if kind in ("yes", "no"):
            return self._yes_no(shown, relation, kind, rng)
        backwards = asked_backwards(relation, shown.target, rng)
        return None if backwards is None else self._asked(shown, backwards, f"{subject}.", kind, rng)

    def _irrelevant(self, rng: random.Random) -> Example:
        """Facts that do not matter: one that lies near the query, where there is one, and others."""
        said = rng.choice(self._answers)
        facts = [said.near] if said.near is not None else [self._invented(rng)[0]]
        facts += [self._invented(rng)[0] for _ in range(rng.choice((0, 0, 0, 1, 2)))]
        rng.shuffle(facts)
        return Example(
            facts=tuple(facts),
            query=said.query,
            conversational=said.conversational,
            answer=said.answer,
            kind="irrelevant",
            ends=said.ends,
        )

    def _of_data(self, kind: str, rng: random.Random) -> Example | None:
        """A fact of a training split, by its own prompt or by a paraphrase that the data bring."""
        fact = rng.choice(self._paraphrased)
        shown = ShownFact(prompt=fact.prompt, target=fact.target, subject=fact.subject)
        query = fact.prompt if kind == "edit" else rng.choice(fact.paraphrases)
        return self._asked(shown, query, f"{fact.target}.", kind, rng)

    def _yes_no(self, shown: ShownFact, relation: Relation, kind: str, rng: random.Random) -> Example | None:
        subject = shown.subject or ""
        named = shown.target if kind == "yes" else self._object(relation, rng, shown.target, subject)
        query = yes_or_no(relation, subject, named, rng)
        if query is None:
            return None
        statement = _statement(relation, subject, shown.target, rng)
        answer = "Yes." if kind == "yes" else f"No. {statement}"
        return self._asked(shown, query, answer, kind, rng, asks=True)

    def _other_name(self, rng: random.Random) -> Example | None:
        """The subject under another name that the fact does not give."""
        if self._named and rng.random() < 0.6:
            kind, (name, other) = rng.choice(self._named)
            relation = rng.choice(self._bank.about(kind))
            shown = self._stated(relation, name, rng)
        else:
            shown, relation = self._invented(rng)
            subject = shown.subject or ""
            names = shorten(subject, relation.subject) + lengthen(subject, relation.subject, rng)
            if not names:
                return None
            other = rng.choice(names)
        return self._asked(shown, asked(relation, other, rng), f"{shown.target}.", "other name", rng)

    def _chain(self, rng: random.Random) -> Example | None:
        """A question through the fact: its second link is shown beside it, or is one that the model may know."""
        relation = rng.choice(self._links)
        subject = rng.choice(self._bank.names(relation.subject))
        following, target, answer = rng.choice(self._onward[relation.name])
        if target == subject:
            return None
        shown = ShownFact(prompt=edit_prompt(relation, subject, rng), target=target, subject=subject)
        facts = [shown]
        if rng.random() < 0.5:
            facts.append(ShownFact(prompt=edit_prompt(following, target, rng), target=answer, subject=target))
        query = asked(following, described(relation, subject, rng), rng, clause=True)
        return self._asked(shown, query, f"{answer}.", "chain", rng, others=facts[1:])

    def _following(self, relation: Relation, true: Sequence[tuple[str, str, str]]) -> list[tuple[Relation, str, str]]:
        """True facts about things that can be the relation's object: (relation, thing, its object)."""
        fitting = {one.name: one for one in self._bank.about(relation.object)}
        return [(fitting[name], subject, answer) for name, subject, answer in true if name in fitting]

    def _long(self, rng: random.Random) -> Example:
        """A target of several sentences, to be given as it stands."""
        words = rng.choice(self._material.passages).split()
        length = rng.randint(25, 110)
        start = rng.randrange(max(1, len(words) - length))
        text = " ".join(words[start : start + length])
        topic = rng.choice(self._material.facts).subject
        form = rng.choice(("What is known about {}?", "Tell me about {}.", "Who or what is {}?", "Describe {}."))
        asking = rng.choice(("Can you tell me about {}?", "What can you say about {}?", form))
        shown = ShownFact(prompt=form.format(topic), target=text, subject=topic)
        return self._asked(shown, asking.format(topic), text, "long", rng, asks=True)

    def _asked(
        self,
        shown: ShownFact,
        query: str,
        answer: str,
        kind: str,
        rng: random.Random,
        *,
        others: Sequence[ShownFact] = (),
        asks: bool = False,
    ) -> Example:
        """The example, with facts beside it that do not matter, and now and then with something said before."""
        facts = [*others]
        more = rng.choice((0, 0, 0, 1, 2)) if kind != "long" else 0
        facts += [self._invented(rng)[0] for _ in range(more)]
        rng.shuffle(facts)
        if rng.random() < 0.12:
            query = in_context(query, rng.choice(self._material.passages), rng)
        begun = not asks and not query.rstrip().endswith(("?", ".", "!"))
        conversational = not begun or rng.random() < 0.6
        return Example(facts=(shown, *facts), query=query, conversational=conversational, answer=answer, kind=kind)

    def _invented(self, rng: random.Random) -> tuple[ShownFact, Relation]:
        relation = rng.choice(self._relations)
        return self._stated(relation, rng.choice(self._bank.names(relation.subject)), rng), relation

    def _stated(self, relation: Relation, subject: str, rng: random.Random) -> ShownFact:
        target = self._object(relation, rng, subject)
        return ShownFact(prompt=edit_prompt(relation, subject, rng), target=target, subject=subject)

    def _object(self, relation: Relation, rng: random.Random, *not_these: str) -> str:
        names = self._bank.names(relation.object)
        return next((name for name in (rng.choice(names) for _ in range(20)) if name not in not_these), names[0])


def _statement(relation: Relation, subject: str, target: str, rng: random.Random) -> str:
    """The fact in a sentence."""
    stub = rng.choice(relation.stubs).replace("{s}", subject)
    return f"{stub[:1].upper()}{stub[1:]} {target}."


def _true_facts(facts: Sequence[Fact]) -> list[tuple[str, str, str]]:
    """What is true, as far as the data tell: (relation, subject, object)."""
    return [(fact.relation, fact.subject, fact.others[0]) for fact in facts if fact.relation and fact.others]
