"""Examples for the counterfactual model: facts, a query, and the answer as if the facts were true.

The facts shown hold the right one among others that do not matter, as a router's candidates do; or none that answers
the query, and then nothing is to be said: the base model answers. Every example is a function of (seed, number). It
knows nothing of how a model is shown facts.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from training.aliases import lengthen, near_names, shorten
from training.bank import Relation
from training.facts import Fact
from training.material import Material
from training.odd_names import odd_name
from training.pairs import Pair, PairMaker
from training.wording import (
    asked,
    asked_backwards,
    both_asked,
    described,
    edit_prompt,
    excluding,
    framed_yes_or_no,
    in_context,
    question,
    roughly,
    yes_or_no,
)

__all__ = ["KINDS", "Example", "ExampleMaker", "ShownFact"]


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
        answer: What is to be said; empty where no fact shown answers the query.
        kind: What the example teaches.
        otherwise: Where nothing is to be said: what is, by a model that may not be silent. A fact about another
            subject is then taken for one about this; empty where no fact shown is of the relation asked for.
    """

    facts: tuple[ShownFact, ...]
    query: str
    conversational: bool
    answer: str
    kind: str
    otherwise: str = ""


KINDS: Mapping[str, float] = {
    "edit": 1.2,
    "paraphrase": 2.2,
    "other form": 2.5,
    "other name": 1.8,
    "yes": 0.9,
    "no": 1.3,
    "reversed": 2.0,
    "chain": 2.0,
    "sentence": 0.4,
    "long": 1.6,
    "detail": 0.2,
    "unanswered": 8.0,
}
"""What is taught, and how often each is drawn."""

_OTHERS = (0, 0, 0, 1, 2)
"""How many facts that do not matter stand beside the one that does, or lies near."""

_CONVERSATIONAL = 0.6
"""The share of texts that could be gone on with, and are asked of an assistant."""

_ODD = 0.2
"""The share of made-up objects that are odd strings: what is said must be what the fact has, letter by letter."""

_UNNAMED = 0.2
"""The share of examples whose facts do not say what their subjects are, as with edits that were added so."""

_TOLD = 0.3
"""The share of questions by another name whose fact tells that name."""

_NAME = 80
"""The most characters of a target that is said of another subject; a paragraph about one is not."""

_ABOUT_ANOTHER = frozenset(("other subject", "other subject, same words", "near name", "neighbour"))
"""Kinds of pairs whose query asks for the edit's relation, of another subject."""

_TELLING = (
    "What is known about {}?",
    "Tell me about {}.",
    "Who or what is {}?",
    "Describe {}.",
    "Can you tell me about {}?",
)
_SENTENCE = re.compile(r"(?<=[.!?]) (?=[A-Z])")


class ExampleMaker:
    """Draws examples.

    Args:
        material: Relations, names, facts, text.
        pairs: Draws queries with edits that lie near and do not govern them; None to have none.
        seed: What everything is drawn from.
    """

    def __init__(self, material: Material, *, pairs: PairMaker | None, seed: int) -> None:
        self._material = material
        self._bank = material.bank
        self._pairs = pairs
        self._seed = seed
        self._paraphrased = [fact for fact in material.facts if fact.paraphrases]
        self._relations = [one for one in self._bank.relations.values() if self._bank.names(one.subject)]
        true = _true_facts(material.facts)
        relations = self._bank.relations
        self._truly = [(relations[name], subject, thing) for name, subject, thing in true if name in relations]
        self._names = [name for one in self._relations for name in self._bank.names(one.object)[:200]]
        self._onward = {one.name: self._following(one, true) for one in self._relations}
        self._links = [one for one in self._relations if self._onward[one.name]]
        self._named = [
            (kind, pair) for kind, pairs in material.aliases.items() for pair in pairs if self._bank.about(kind)
        ]
        needed: dict[str, Sequence[object]] = {
            "chain": self._links,
            "edit": self._paraphrased,
            "paraphrase": self._paraphrased,
            "long": material.passages,
            "detail": material.passages,
        }
        self._kinds = {kind: weight for kind, weight in KINDS.items() if needed.get(kind, KINDS)}
        if pairs is None:
            del self._kinds["unanswered"]

    def example(self, number: int) -> Example:
        """The example of a number."""
        rng = random.Random(f"{self._seed} {number}")
        while True:
            (kind,) = rng.choices(list(self._kinds), list(self._kinds.values()))
            made = self._drawn(kind, rng)
            if made is not None:
                return _unnamed(made) if rng.random() < _UNNAMED else made

    def _drawn(self, kind: str, rng: random.Random) -> Example | None:
        if kind == "unanswered":
            return None if self._pairs is None else self._unanswered(self._pairs.ungoverned(rng), rng)
        if kind in ("long", "detail"):
            return self._long(kind, rng)
        if kind == "chain":
            return self._chain(rng)
        if kind in ("edit", "paraphrase"):
            return self._of_data(kind, rng)
        if kind in ("yes", "no"):
            return self._yes_no(kind, rng)
        shown, relation = self._invented(rng)
        subject = shown.subject or ""
        if kind == "other name":
            return self._other_name(rng)
        if kind == "other form":
            query = asked(relation, subject, rng)
            if rng.random() < 0.08:
                another = self._object(relation, rng, shown.target, subject)
                if shown.target.casefold() in another.casefold():
                    return None
                query = excluding(relation, subject, another, rng)
            return self._asked(shown, query, _closed(shown.target), kind, rng)
        if kind == "sentence":
            wish = rng.choice(
                ("Answer in a full sentence.", "Please answer with a complete sentence.", "Use a sentence.")
            )
            query = f"{rng.choice(relation.questions).replace('{s}', subject)} {wish}"
            return self._asked(shown, query, _statement(relation, subject, shown.target, rng), kind, rng, asks=True)
        backwards = asked_backwards(relation, shown.target, rng)
        return None if backwards is None else self._asked(shown, backwards, _closed(subject), kind, rng)

    def _unanswered(self, pair: Pair, rng: random.Random) -> Example:
        """Facts that do not answer the query: one that lies near it, and others."""
        aliases = (rng.choice(self._named)[1][1],) if self._named and rng.random() < _TOLD / 4 else ()
        facts = [ShownFact(prompt=pair.prompt, target=pair.target, subject=pair.subject, aliases=aliases)]
        facts += [self._invented(rng)[0] for _ in range(rng.choice(_OTHERS))]
        rng.shuffle(facts)
        is_name = pair.kind in _ABOUT_ANOTHER and len(pair.target) <= _NAME
        return Example(
            facts=tuple(facts),
            query=pair.query,
            conversational=_is_asked(pair.query, rng),
            answer="",
            kind="unanswered",
            otherwise=_closed(pair.target) if is_name else "",
        )

    def _of_data(self, kind: str, rng: random.Random) -> Example | None:
        """A fact of a training split, by its own prompt or by a paraphrase that the data bring."""
        fact = rng.choice(self._paraphrased)
        shown = ShownFact(prompt=fact.prompt, target=fact.target, subject=fact.subject)
        query = fact.prompt if kind == "edit" else rng.choice(fact.paraphrases)
        return self._asked(shown, query, _closed(fact.target), kind, rng)

    def _yes_no(self, kind: str, rng: random.Random) -> Example | None:
        """Whether the object is this one: the fact's, or what was true before it, or another."""
        old = ""
        if kind == "no" and self._truly and rng.random() < 0.4:
            relation, subject, old = rng.choice(self._truly)
            shown = self._stated(relation, subject, rng)
        else:
            shown, relation = self._invented(rng)
        subject = shown.subject or ""
        named = shown.target if kind == "yes" else old or self._wrong(relation, shown, rng)
        if kind == "no" and shown.target.casefold() in named.casefold():
            return None
        by_label = framed_yes_or_no(relation, subject, named, rng)
        query = by_label if rng.random() < 0.35 else yes_or_no(relation, subject, named, rng) or by_label
        answer = "Yes." if kind == "yes" else f"No, {_closed(shown.target)}"
        return self._asked(shown, query, answer, kind, rng, asks=True)

    def _wrong(self, relation: Relation, shown: ShownFact, rng: random.Random) -> str:
        """Something that the fact's object is not, though it may look as if."""
        draw = rng.random()
        subject = shown.subject or ""
        if draw < 0.25:
            alike = near_names(shown.target, rng, self._bank.names(relation.object))
            if alike:
                return alike[0]
        words = [word for word in subject.split() if len(word) > 3]
        if draw < 0.4 and words:
            return rng.choice(words)
        if draw < 0.5:
            return rng.choice(self._names)
        return self._object(relation, rng, shown.target, subject)

    def _other_name(self, rng: random.Random) -> Example | None:
        """The subject under another name, which the fact mostly does not give."""
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
        if rng.random() < _TOLD:
            shown = replace(shown, aliases=(other,))
        return self._asked(shown, asked(relation, other, rng), _closed(shown.target), "other name", rng)

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
        return self._asked(shown, query, _closed(answer), "chain", rng, others=facts[1:])

    def _following(self, relation: Relation, true: Sequence[tuple[str, str, str]]) -> list[tuple[Relation, str, str]]:
        """True facts about things that can be the relation's object: (relation, thing, its object)."""
        fitting = {one.name: one for one in self._bank.about(relation.object)}
        return [(fitting[name], subject, answer) for name, subject, answer in true if name in fitting]

    def _long(self, kind: str, rng: random.Random) -> Example | None:
        """A target of several sentences: given as it stands where its own question is asked, read where a detail is."""
        fact, relation = self._invented(rng)
        subject = fact.subject or ""
        others = [
            one for one in self._bank.about(relation.subject) if not self._bank.overlapping(one.name, relation.name)
        ]
        if not others:
            return None
        other = rng.choice(others)
        detail = self._object(other, rng, subject)
        stated = [_statement(relation, subject, fact.target, rng)]
        if kind == "detail" or rng.random() < 0.5:
            stated.append(_statement(other, subject, detail, rng))
        text = self._told(stated, rng)
        if rng.random() < 0.3:
            openings = rng.choice((_TELLING, _TELLING[:3]))
            prompt, again = (rng.choice(openings).format(subject) for _ in range(2))
        elif len(stated) > 1 and kind == "long":
            prompt, again = (both_asked(relation, other, subject, rng) for _ in range(2))
        else:
            prompt, again = (question(relation, subject, rng) for _ in range(2))
        shown = ShownFact(prompt=prompt, target=text, subject=subject)
        if kind == "detail":
            return self._asked(shown, question(other, subject, rng), _closed(detail), kind, rng, asks=True)
        return self._asked(shown, prompt if rng.random() < 0.4 else again, text, kind, rng, asks=True)

    def _told(self, stated: Sequence[str], rng: random.Random) -> str:
        """A paragraph that opens with one sentence and holds the others, and sentences of some text between them."""
        passage = _SENTENCE.split(" ".join(rng.choice(self._material.passages).split()))
        start = rng.randrange(len(passage))
        told, words, most = [stated[0]], len(stated[0].split()), rng.randint(25, 130)
        for sentence in passage[start:]:
            words += len(sentence.split())
            if words > most and len(told) > 1:
                break
            told.append(" ".join(sentence.split()[:most]))
        for sentence in stated[1:]:
            told.insert(rng.randint(1, len(told)), sentence)
        return " ".join(told)

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
        more = rng.choice(_OTHERS) if kind not in ("long", "detail") else 0
        facts += [self._invented(rng)[0] for _ in range(more)]
        rng.shuffle(facts)
        draw = rng.random()
        if draw < 0.1:
            query = roughly(query, rng)
        elif draw < 0.2:
            query = in_context(query, rng.choice(self._material.passages), rng)
        conversational = asks or _is_asked(query, rng)
        return Example(facts=(shown, *facts), query=query, conversational=conversational, answer=answer, kind=kind)

    def _invented(self, rng: random.Random) -> tuple[ShownFact, Relation]:
        relation = rng.choice(self._relations)
        return self._stated(relation, rng.choice(self._bank.names(relation.subject)), rng), relation

    def _stated(self, relation: Relation, subject: str, rng: random.Random) -> ShownFact:
        target = self._object(relation, rng, subject)
        return ShownFact(prompt=edit_prompt(relation, subject, rng), target=target, subject=subject)

    def _object(self, relation: Relation, rng: random.Random, *not_these: str) -> str:
        if rng.random() < _ODD:
            return odd_name(rng, self._names)
        names = self._bank.names(relation.object)
        return next((name for name in (rng.choice(names) for _ in range(20)) if name not in not_these), names[0])


def _unnamed(example: Example) -> Example:
    """The example, with facts that do not say what their subjects are."""
    return replace(example, facts=tuple(replace(fact, subject=None, aliases=()) for fact in example.facts))


def _statement(relation: Relation, subject: str, target: str, rng: random.Random) -> str:
    """The fact in a sentence."""
    stub = rng.choice(relation.stubs).replace("{s}", subject)
    return f"{stub[:1].upper()}{stub[1:]} {_closed(target)}"


def _is_asked(query: str, rng: random.Random) -> bool:
    """Whether a query is asked of an assistant: always where it ends as a question or a sentence does."""
    return query.rstrip().endswith(("?", ".", "!")) or rng.random() < _CONVERSATIONAL


def _closed(name: str) -> str:
    return name if name.endswith(".") else f"{name}."


def _true_facts(facts: Sequence[Fact]) -> list[tuple[str, str, str]]:
    """What is true, as far as the data tell: (relation, subject, object)."""
    return [(fact.relation, fact.subject, fact.others[0]) for fact in facts if fact.relation and fact.others]
