"""What a retriever confuses: for each fact the queries of others near it, for each ordinary question the facts.

These are the pairs that a scope classifier is asked to read once it serves, so they are what it must learn to refuse.
Vectors are kept in a file by the digest of their texts and encoder, since encoding takes minutes. It knows nothing of
how pairs are worded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from classifiers import TextEncoder
from training.bank import Bank
from training.facts import Fact
from training.progress import SILENT

__all__ = ["Nearby", "nearby"]

_CHUNK = 2_048
_LEAST = 0.4
"""The cosine under which nothing is called near; the router does not have such candidates read."""

_UNRELATED = frozenset({"zsre"})
"""Sources whose neighbours are ordinary questions; these are looked at as traffic."""


@dataclass(frozen=True, slots=True)
class Nearby:
    """What lies near what.

    Attributes:
        queries: For each fact, queries of facts about something else.
        facts: For each ordinary question, the places of facts near it.
    """

    queries: tuple[tuple[str, ...], ...]
    facts: tuple[tuple[int, ...], ...]


def nearby(
    facts: Sequence[Fact],
    traffic: Sequence[str],
    bank: Bank,
    encoder: TextEncoder,
    *,
    cache: Path,
    most: int = 8,
    progress: Callable[[str, int, int | None], None] = SILENT.stage,
) -> Nearby:
    """Finds what a retriever confuses.

    Args:
        facts: The facts.
        traffic: Ordinary questions.
        bank: Says which relations overlap: a query of the same subject is left out unless its relation is known and
            another.
        encoder: The retriever's.
        cache: A folder for vectors.
        most: How many are kept of each.
        progress: Told (stage, done, total).
    """
    edits = [fact.prompt for fact in facts]
    queries = [
        (text, place)
        for place, fact in enumerate(facts)
        for text in (fact.prompt, *fact.paraphrases, *(fact.neighbours if fact.source not in _UNRELATED else ()))
    ]
    texts = list(dict.fromkeys((*(text for text, _ in queries), *traffic)))
    vectors = _encoded(texts, encoder, cache, progress)
    places = {text: place for place, text in enumerate(texts)}
    of_edits, of_queries, of_traffic = (
        vectors[[places[text] for text in some]] for some in (edits, [text for text, _ in queries], traffic)
    )
    found: list[list[str]] = [[] for _ in facts]
    for (text, asker), ranked in zip(queries, _ranked(of_queries, of_edits, 4 * most), strict=True):
        for place in ranked:
            if len(found[place]) >= 3 * most:
                continue
            if text in facts[asker].neighbours:
                surely = place != asker and facts[place].subject.casefold() not in text.casefold()
            else:
                surely = _differ(facts[asker], facts[place], bank)
            if surely:
                found[place].append(text)
    near = tuple(
        tuple(place for place in ranked if facts[place].subject.casefold() not in question.casefold())[:most]
        for question, ranked in zip(traffic, _ranked(of_traffic, of_edits, most), strict=True)
    )
    return Nearby(tuple(tuple(texts) for texts in found), near)


def _differ(asker: Fact, other: Fact, bank: Bank) -> bool:
    """Whether a query of one fact is surely not governed by the other."""
    one, two = asker.subject.casefold(), other.subject.casefold()
    if one not in two and two not in one:
        return True
    if one != two or asker.relation is None or other.relation is None:
        return False
    known = asker.relation in bank.relations and other.relation in bank.relations
    return known and not bank.overlapping(asker.relation, other.relation)


def _ranked(queries: NDArray[np.float32], edits: NDArray[np.float32], most: int) -> list[list[int]]:
    """For each query the places of the nearest edits that are near enough, best first."""
    ranked: list[list[int]] = []
    for begin in range(0, len(queries), _CHUNK):
        scores = queries[begin : begin + _CHUNK] @ edits.T
        places = np.argpartition(-scores, min(most, scores.shape[1] - 1), axis=1)[:, :most]
        for row, chosen in enumerate(places):
            best_first = chosen[np.argsort(-scores[row, chosen], kind="stable")]
            ranked.append([int(place) for place in best_first if scores[row, place] >= _LEAST])
    return ranked


def _encoded(
    texts: list[str], encoder: TextEncoder, cache: Path, told: Callable[[str, int, int | None], None]
) -> NDArray[np.float32]:
    digest = hashlib.sha256("\n".join([encoder.fingerprint, *texts]).encode()).hexdigest()[:24]
    path = cache / f"vectors-{digest}.npy"
    if path.exists():
        kept: NDArray[np.float32] = np.load(path, allow_pickle=False)
        return kept
    parts = []
    for begin in range(0, len(texts), _CHUNK):
        told("encoding texts", begin, len(texts))
        parts.append(encoder.encode(texts[begin : begin + _CHUNK]))
    told("encoding texts", len(texts), len(texts))
    vectors = np.concatenate(parts)
    cache.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp.npy")
    np.save(temporary, vectors, allow_pickle=False)
    temporary.replace(path)
    return vectors
