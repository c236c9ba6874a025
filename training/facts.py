"""Facts to train on, read from the training splits: what is known of each, and which texts it does and does not govern.

Read from files as they are; nothing is drawn here and nothing is worded. KnowEdit, HalluEditBench, UnKE and MQuAKE are
for measuring and are never read.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.card import CardData
from training.errors import TrainingDataError

__all__ = [
    "TEXT",
    "Corpus",
    "Fact",
    "counterfact_relations",
    "for_training",
    "note_file",
    "read_corpus",
    "read_edits",
    "read_own",
]

TEXT = "text/wikipedia_en.jsonl"
"""Plain English text, by its name in the data folder."""

_RELATION_FILES = {
    "company_ceo": "chief executive officer",
    "company_hq": "headquarters",
    "country_capital_city": "capital",
    "country_currency": "currency",
    "country_language": "official language",
    "country_largest_city": "largest city",
    "landmark_in_country": "country",
    "landmark_on_continent": "continent",
    "person_father": "father",
    "person_mother": "mother",
    "person_native_language": "native language",
    "person_occupation": "occupation",
    "person_plays_instrument": "instrument",
    "person_plays_position_in_sport": "sport position",
    "person_plays_pro_sport": "sport",
    "person_university": "alma mater",
    "product_by_company": "manufacturer",
    "star_constellation": "constellation",
}
"""Files of the relations folder and the bank's name of their relation; others are known by their own forms only."""


_LICENCES = {
    "counterfact/": "MIT (CounterFact, Meng et al. 2022)",
    "zsre/": "MIT (zsRE in MEND's form, Mitchell et al. 2022)",
    "relations/": "MIT (Hernandez et al. 2024)",
    "traffic/": "CC BY-SA 3.0 (Natural Questions), Apache-2.0 (TriviaQA)",
    "text/": "CC BY-SA (Wikipedia)",
    "training/": "MIT (this project)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A fact, true or made up, as an edit states it.

    Attributes:
        subject: What it is about.
        prompt: The edit's prompt.
        target: The edit's target.
        source: Which data it comes from.
        relation: The bank's relation, where it is known.
        paraphrases: Other texts that it governs.
        neighbours: Texts that it does not govern.
        others: True objects of the subject that the data name besides the target.
    """

    subject: str
    prompt: str
    target: str
    source: str
    relation: str | None = None
    paraphrases: tuple[str, ...] = ()
    neighbours: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Corpus:
    """All that is trained on.

    Attributes:
        facts: The facts.
        traffic: Ordinary questions that no fact governs.
        passages: Plain English text.
        files: The files read, by name.
    """

    facts: tuple[Fact, ...]
    traffic: tuple[str, ...]
    passages: tuple[str, ...]
    files: Mapping[str, CardData]


def read_corpus(data: Path) -> Corpus:
    """Reads the training splits under a data folder.

    Of the ordinary questions (NQ, TriviaQA) only those are taken whose digest is even: the others are for measuring.

    Raises:
        TrainingDataError: A file is missing or malformed; the message names it.
    """
    files: dict[str, CardData] = {}
    facts = [*_counterfact(data, files), *_zsre(data, files), *_relations(data, files)]
    traffic = [question for question in _traffic(data, files) if for_training(question)]
    traffic += [one for fact in facts if fact.source == "zsre" for one in fact.neighbours]
    passages = [record["text"] for record in _lines(data, TEXT, files)]
    return Corpus(tuple(facts), tuple(dict.fromkeys(traffic)), tuple(passages), files)


def read_edits(data: Path, files: dict[str, CardData]) -> Iterator[Fact]:
    """Reads the facts of CounterFact's and zsRE's training splits alone.

    Args:
        data: The data folder.
        files: Where it is noted what was read.

    Raises:
        TrainingDataError: A file is missing or malformed; the message names it.
    """
    yield from _counterfact(data, files)
    yield from _zsre(data, files)


def read_own(paths: Sequence[Path], files: dict[str, CardData]) -> Iterator[Fact]:
    """Reads one's own records: JSON Lines of ``prompt``, ``target``, ``subject``, ``in_scope`` and ``out_of_scope``.

    ``in_scope`` lists texts that the edit governs, ``out_of_scope`` texts near it that it does not; either may be
    missing. ``relation`` may name one of the bank's.

    Args:
        paths: The files.
        files: Where it is noted what was read.

    Raises:
        TrainingDataError: A file is missing, or a record malformed; the message names file, line and field.
    """
    for path in paths:
        for line, record in enumerate(_lines(path.parent, path.name, files), start=1):
            where = f"{path}, line {line}"
            if not isinstance(record, dict):
                raise TrainingDataError(f"{where}: a record is a JSON object, not {type(record).__name__}")
            unknown = sorted(record.keys() - {"prompt", "target", "subject", "relation", "in_scope", "out_of_scope"})
            if unknown:
                raise TrainingDataError(
                    f"{where}: unknown field {unknown[0]!r}; known are prompt, target, subject, relation, in_scope and "
                    "out_of_scope"
                )
            for name in ("prompt", "target"):
                if not isinstance(record.get(name), str) or not record[name].strip():
                    raise TrainingDataError(f"{where}: {name!r} must be a text, not {record.get(name)!r}")
            for name in ("in_scope", "out_of_scope"):
                texts = record.get(name, [])
                if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
                    raise TrainingDataError(f"{where}: {name!r} must be a list of texts, not {texts!r}")
            for name in ("subject", "relation"):
                if record.get(name) is not None and not isinstance(record[name], str):
                    raise TrainingDataError(f"{where}: {name!r} must be a text, not {record[name]!r}")
            yield Fact(
                subject=record.get("subject") or record["prompt"],
                prompt=record["prompt"],
                target=record["target"],
                source="own",
                relation=record.get("relation"),
                paraphrases=tuple(record.get("in_scope", ())),
                neighbours=tuple(record.get("out_of_scope", ())),
            )


def for_training(question: str) -> bool:
    """Whether an ordinary question is one to train on; the others are kept for measuring."""
    return hashlib.sha256(question.encode()).digest()[0] % 2 == 0


def counterfact_relations() -> dict[str, frozenset[str]]:
    """Templates of CounterFact's prompts, with ``{}`` for the subject, and the relations each may stand for."""
    known: dict[str, str | list[str]] = _counterfact_templates()["templates"]
    return {template: frozenset([names] if isinstance(names, str) else names) for template, names in known.items()}


def _counterfact_templates() -> dict[str, Any]:
    with (Path(__file__).parent / "data" / "counterfact_templates.toml").open("rb") as file:
        return tomllib.load(file)


def _counterfact(data: Path, files: dict[str, CardData]) -> Iterator[Fact]:
    known = _counterfact_templates()
    templates: dict[str, str | list[str]] = known["templates"]
    objects = {relation: frozenset(names) for relation, names in known.get("objects", {}).items()}
    for record in _lines(data, "counterfact/train.jsonl", files):
        subject, prompt = record["subject"], record["prompt"]
        relation = templates.get(prompt.replace(subject, "{}"))
        if isinstance(relation, list):
            # by the true object alone: the new one is now and then of another kind
            fitting = [one for one in relation if record["ground_truth"] in objects.get(one, frozenset())]
            relation = fitting[0] if len(fitting) == 1 else None
        yield Fact(
            subject=subject,
            prompt=prompt,
            target=record["target_new"],
            source="counterfact",
            relation=relation,
            paraphrases=(record["rephrase_prompt"],),
            neighbours=(record["locality_prompt"],),
            others=(record["ground_truth"],),
        )


def _zsre(data: Path, files: dict[str, CardData]) -> Iterator[Fact]:
    for record in _lines(data, "zsre/train.jsonl", files):
        yield Fact(
            subject=record["subject"],
            prompt=record["src"],
            target=record["alt"],
            source="zsre",
            paraphrases=(record["rephrase"],),
            neighbours=(record["loc"].removeprefix("nq question: "),),
            others=tuple(record["answers"][:1]),
        )


def _relations(data: Path, files: dict[str, CardData]) -> Iterator[Fact]:
    paths = sorted((data / "relations").glob("*/*.json"))
    if not paths:
        raise TrainingDataError(
            f"{data / 'relations'} holds no relation files; give the data folder with --data-folder"
        )
    for path in paths:
        payload = path.read_bytes()
        described = json.loads(payload)
        note_file(files, path.relative_to(data).as_posix(), payload, len(described["samples"]))
        first, *more = dict.fromkeys((*described["prompt_templates"], *described["prompt_templates_zs"]))
        objects = list(dict.fromkeys(sample["object"] for sample in described["samples"]))
        for place, sample in enumerate(described["samples"]):
            subject, true = sample["subject"], sample["object"]
            target = objects[(objects.index(true) + 1 + place) % len(objects)]
            yield Fact(
                subject=subject,
                prompt=first.replace("{}", subject),
                target=target if target != true else objects[objects.index(true) - 1],
                source="relations",
                relation=_RELATION_FILES.get(path.stem),
                paraphrases=tuple(form.replace("{}", subject) for form in more),
                others=(true,),
            )


def _traffic(data: Path, files: dict[str, CardData]) -> Iterator[str]:
    for name in ("traffic/nq_dev.jsonl", "traffic/triviaqa_dev.jsonl"):
        for record in _lines(data, name, files):
            yield record["question"]


def _lines(data: Path, name: str, files: dict[str, CardData]) -> list[dict[str, Any]]:
    path = data / name
    try:
        payload = path.read_bytes()
    except FileNotFoundError:
        raise TrainingDataError(f"{path} is missing: it is one of the files trained on; give the data folder") from None
    try:
        records = [json.loads(line) for line in payload.splitlines() if line.strip()]
    except ValueError as error:
        raise TrainingDataError(f"{path} is not JSON Lines: {error}") from error
    note_file(files, name, payload, len(records))
    return records


def note_file(files: dict[str, CardData], name: str, payload: bytes, records: int) -> None:
    """Writes down that a file was read, for the card.

    Args:
        files: Where.
        name: Its name, relative to the data folder.
        payload: Its bytes.
        records: How many records are in it.
    """
    licence = next((text for start, text in _LICENCES.items() if name.startswith(start)), "that of its author")
    files[name] = CardData(name=name, sha256=hashlib.sha256(payload).hexdigest(), records=records, licence=licence)
