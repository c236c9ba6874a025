"""What is trained on, in two halves that share no name: one to learn from, one held out.

A fact, a name, a pair of names or an ordinary question goes to one half or the other by the digest of its text, so the
halves are the same in every run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from memedit.pulling import cache_folder
from training.aliases import load_alias_pairs
from training.bank import Bank, bank_files, load_bank
from training.card import CardData
from training.errors import TrainingDataError
from training.facts import TEXT, Corpus, Fact, note_file, read_corpus, read_own

__all__ = ["Material", "gather", "is_held_out", "required"]

HELD_OUT = 20
"""One name in so many is held out, with every fact about it."""


@dataclass(frozen=True, slots=True)
class Material:
    """One half.

    Attributes:
        bank: The relations, with the names of this half.
        facts: Facts about this half's subjects.
        traffic: Ordinary questions.
        passages: Plain English text; both halves have all of it.
        aliases: Type to pairs of names of one thing.
    """

    bank: Bank
    facts: tuple[Fact, ...]
    traffic: tuple[str, ...]
    passages: tuple[str, ...]
    aliases: Mapping[str, tuple[tuple[str, str], ...]]


def gather(
    data: Path, *, own: Sequence[Path] = (), without: Sequence[str] = ()
) -> tuple[Material, Material, Mapping[str, CardData]]:
    """Reads everything that training uses.

    Args:
        data: The data folder.
        own: Files of one's own records.
        without: Sources of facts to leave out whole.

    Returns:
        The half to learn from, the half held out, and the files read by their names.

    Raises:
        TrainingDataError: A file is missing or malformed.
        DownloadError: A package that names come from cannot be fetched.
    """
    corpus = read_corpus(data)
    files = dict(corpus.files)
    facts = tuple(fact for fact in (*corpus.facts, *read_own(own, files)) if fact.source not in without)
    bank = load_bank()
    for path in bank_files():
        note_file(files, f"training/data/{path.name}", path.read_bytes(), path.read_text("utf-8").count("[[relation]]"))
    bank = with_names_of(bank, facts)
    aliases: dict[str, list[tuple[str, str]]] = {}
    if "alias" not in without:
        for pair in load_alias_pairs(cache_folder() / "aliases", text=data / TEXT):
            aliases.setdefault(pair.type, []).append((pair.name, pair.alias))
    learnt, held = (_half(corpus, facts, bank, aliases, held_out=held_out) for held_out in (False, True))
    return learnt, held, files


def required(data: Path | None, part: str) -> Path:
    """The data folder, which a part cannot be trained without.

    Args:
        data: The folder; None where none was named.
        part: What is to be trained.

    Raises:
        TrainingDataError: None was named.
    """
    if data is None:
        raise TrainingDataError(
            f"training {part} takes the training splits of CounterFact, zsRE and the relations; say where they are "
            "with --data-folder, or in MEMEDIT_DATA"
        )
    return data


def is_held_out(text: str) -> bool:
    """Whether a name or a question belongs to the half that is held out."""
    return int.from_bytes(hashlib.sha256(text.casefold().encode()).digest()[:4]) % HELD_OUT == 0


def with_names_of(bank: Bank, facts: Sequence[Fact]) -> Bank:
    """The bank with the names that facts bring: subjects and objects, each under its type."""
    names: dict[str, dict[str, None]] = {}
    for fact in facts:
        relation = bank.relations.get(fact.relation or "")
        if relation is not None:
            names.setdefault(relation.subject, {}).setdefault(fact.subject)
            for target in (fact.target, *fact.others):
                names.setdefault(relation.object, {}).setdefault(target)
    return bank.with_names(names)


def _half(
    corpus: Corpus, facts: Sequence[Fact], bank: Bank, aliases: Mapping[str, list[tuple[str, str]]], *, held_out: bool
) -> Material:
    names = {
        kind: tuple(name for name in known if is_held_out(name) == held_out) for kind, known in bank.values.items()
    }
    # of a few names, such as the signs of the zodiac, none are held out: they are objects and never subjects
    names = {kind: chosen if len(chosen) > 1 else bank.values[kind] for kind, chosen in names.items()}
    return Material(
        Bank(bank.relations, bank.parents, names),
        tuple(fact for fact in facts if is_held_out(fact.subject) == held_out),
        tuple(question for question in corpus.traffic if is_held_out(question) == held_out),
        corpus.passages,
        {kind: tuple(pair for pair in known if is_held_out(pair[0]) == held_out) for kind, known in aliases.items()},
    )
