"""Where pairs are drawn from, and how often: one half of the material, with what a retriever confuses in it.

Both trained parts read such pairs: the scope classifier learns from them all, the counterfactual model from those whose
edit does not govern the query.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from classifiers import TextEncoder
from training.config import check_range
from training.material import Material
from training.nearby import nearby
from training.pairs import PairMaker
from training.progress import SILENT

__all__ = ["SourceWeights", "pair_maker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceWeights:
    """How often each source of facts is drawn; 0 leaves it out.

    Attributes:
        bank: Made-up facts of the relation bank.
        compound: Made-up facts of which one edit tells two, at length.
        counterfact: CounterFact's training split.
        zsre: zsRE's training split.
        relations: The relations folder.
        traffic: Ordinary questions beside the facts nearest to them.
        alias: Made-up facts about things with several names.
        own: The records of --data; left out where there are none.
    """

    bank: float = 0.42
    compound: float = 0.05
    counterfact: float = 0.22
    zsre: float = 0.06
    relations: float = 0.06
    traffic: float = 0.07
    alias: float = 0.12
    own: float = 0.3

    def __post_init__(self) -> None:
        for name, weight in asdict(self).items():
            check_range(name, weight, least=0)


def pair_maker(
    material: Material,
    retriever: TextEncoder,
    *,
    sources: SourceWeights,
    seed: int,
    cache: Path,
    progress: Callable[[str, int, int | None], None] = SILENT.stage,
) -> PairMaker:
    """What draws the pairs of one half.

    Args:
        material: The half.
        retriever: The encoder that finds candidates; what it confuses is drawn often.
        sources: How often each source is drawn.
        seed: What everything is drawn from.
        cache: A folder for vectors.
        progress: Told (stage, done, total).
    """
    found = nearby(material.facts, material.traffic, material.bank, retriever, cache=cache, progress=progress)
    return PairMaker(
        material.bank,
        material.facts,
        near=found.queries,
        traffic=list(zip(material.traffic, found.facts, strict=True)),
        passages=material.passages,
        aliases=material.aliases,
        sources=asdict(sources),
        seed=seed,
    )
