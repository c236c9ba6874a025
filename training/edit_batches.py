"""What a hypernetwork is trained on: edits of the training splits, with texts on which each is to act and not to act.

A fact gives an edit, the prompts that ask for it (its own and a paraphrase, through the chat template or as plain text)
and, from a pool, a prompt about something else: half of the time of the same relation, where the fact's is known. The
texts are chosen once, so that what never changes about them need not be computed again; a batch is a function of (seed,
index).

CounterFact's and zsRE's training splits are all that is read. This file knows nothing of any hypernetwork.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.config import check_range
from training.facts import Fact

if TYPE_CHECKING:
    from memedit.editors.examples import Example
    from memedit.editors.subject import Subject
    from memory_store import Edit

__all__ = ["EditBatch", "EditDrawer", "EditSampling"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EditSampling:
    """What is drawn for a hypernetwork's training.

    Attributes:
        edits: Edits to learn from.
        dev_edits: Held-out edits that choose the best state.
        zsre: The share of the edits that come from zsRE; the others come from CounterFact.
        batch_size: Edits of a batch.
        together: The share of the batches whose edits are made together; in the others each is made by itself.
        plain: The share of prompts that are asked as plain text where the model has a chat template.
        near: The share of prompts elsewhere that are of the edit's relation, where that is known.
        places: Tokens at the end of a text elsewhere at which the model is to predict what it did.
    """

    edits: int = 400
    dev_edits: int = 24
    zsre: float = 0.2
    batch_size: int = 4
    together: float = 0.25
    plain: float = 0.3
    near: float = 0.5
    places: int = 5

    def __post_init__(self) -> None:
        for name in ("edits", "dev_edits", "batch_size", "places"):
            check_range(name, getattr(self, name), least=1)
        for name in ("zsre", "together", "plain", "near"):
            check_range(name, getattr(self, name), least=0, most=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    """An edit with its texts; as `EditBatch` has them."""

    edit: Edit
    read: Example
    own: Example
    other: Example
    elsewhere: Example
    neighbour: str
    relation: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EditBatch:
    """Some edits, and what is asked once they are made; all in the order of the edits.

    Attributes:
        edits: The edits.
        together: Whether they are made together.
        read: What an editor reads of each: its prompt as edits are worded, with its target.
        own: Each edit's own prompt with its target.
        other: A paraphrase of each with its target.
        elsewhere: For each a text that it does not govern; its end stands for the target.
    """

    edits: tuple[Edit, ...]
    together: bool
    read: tuple[Example, ...]
    own: tuple[Example, ...]
    other: tuple[Example, ...]
    elsewhere: tuple[Example, ...]


class EditDrawer:
    """Draws batches.

    Args:
        subject: The model, whose tokens the prompts become.
        facts: What the edits are made of; those without a paraphrase or a neighbour are passed over.
        sampling: What is drawn.
        count: How many of the facts are used.
        seed: What everything is drawn by.
    """

    def __init__(
        self, subject: Subject, facts: Sequence[Fact], sampling: EditSampling, *, count: int, seed: int
    ) -> None:
        from memedit.editors.examples import ExampleMaker

        self._subject = subject
        self._sampling = sampling
        self._seed = seed
        self._worded = ExampleMaker(subject)
        self._plain = ExampleMaker(subject, template=False)
        rng = random.Random(f"edits {seed}")
        usable = [fact for fact in facts if fact.paraphrases and fact.neighbours]
        zsre = [fact for fact in usable if fact.source == "zsre"]
        others = [fact for fact in usable if fact.source != "zsre"]
        few = min(len(zsre), round(sampling.zsre * count))
        chosen = [*rng.sample(zsre, few), *rng.sample(others, min(len(others), count - few))]
        self._items = [self._item(fact, rng) for fact in chosen]

    def __len__(self) -> int:
        """How many edits there are to draw from."""
        return len(self._items)

    def texts(self) -> list[tuple[int, ...]]:
        """The token ids of every text that batches are made of."""
        parts = [one for item in self._items for one in (item.read, item.own, item.other, item.elsewhere)]
        return [(*part.prompt, *part.target) for part in parts]

    def batch(self, index: int) -> EditBatch:
        """The batch of an index, counted from 0."""
        rng = random.Random(f"{self._seed} {index}")
        items = rng.sample(self._items, min(self._sampling.batch_size, len(self._items)))
        return self._batch(items, rng, together=rng.random() < self._sampling.together)

    def every(self) -> list[EditBatch]:
        """Every edit once, each made by itself."""
        rng = random.Random(f"{self._seed} every")
        size = self._sampling.batch_size
        return [
            self._batch(self._items[begin : begin + size], rng, together=False)
            for begin in range(0, len(self._items), size)
        ]

    def _batch(self, items: Sequence[_Item], rng: random.Random, *, together: bool) -> EditBatch:
        edited = {item.edit.prompt for item in items}
        apart = [item for item in self._items if item.neighbour not in edited]
        return EditBatch(
            edits=tuple(item.edit for item in items),
            together=together,
            read=tuple(item.read for item in items),
            own=tuple(item.own for item in items),
            other=tuple(item.other for item in items),
            elsewhere=tuple(self._elsewhere(item, apart, rng) for item in items),
        )

    def _item(self, fact: Fact, rng: random.Random) -> _Item:
        from memory_store import Edit

        edit = Edit(prompt=fact.prompt, target=fact.target)
        paraphrased = Edit(prompt=rng.choice(fact.paraphrases), target=fact.target)
        own, other = self._asked(edit, rng), self._asked(paraphrased, rng)
        neighbour = rng.choice(fact.neighbours)
        # CounterFact's neighbours have the true object of the fact; what answers those of zsRE is not known
        truth = fact.others[0] if fact.source == "counterfact" and fact.others else None
        return _Item(
            edit=edit,
            read=self._worded(edit),
            own=own,
            other=other,
            elsewhere=self._apart(neighbour, truth, rng),
            neighbour=neighbour,
            relation=fact.relation,
        )

    def _asked(self, edit: Edit, rng: random.Random) -> Example:
        return (self._plain if rng.random() < self._sampling.plain else self._worded)(edit)

    def _apart(self, prompt: str, answer: str | None, rng: random.Random) -> Example:
        """A text whose last tokens count, whatever they are: of the prompt, and of its answer where that is known."""
        from memedit.editors.examples import Example
        from memory_store import Edit

        asked = self._asked(Edit(prompt=prompt, target=answer or "?"), rng)
        ids = asked.prompt if answer is None else (*asked.prompt, *asked.target)
        places = min(self._sampling.places, len(ids) - 1)
        return Example(ids[:-places], ids[-places:])

    def _elsewhere(self, item: _Item, apart: Sequence[_Item], rng: random.Random) -> Example:
        """One of some texts elsewhere, for an edit."""
        near = rng.random() < self._sampling.near and item.relation is not None
        related = [one for one in apart if near and one.relation == item.relation]
        return rng.choice(related or apart or [item]).elsewhere
