"""A small data folder of the shape that training reads, for tests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PEOPLE = ("Ada Lovelace", "Grace Hopper", "Alan Turing", "Emmy Noether", "Kurt Hansen", "Mary Shelley", "Niels Abel")
CITIES = ("Oslo", "Lyon", "Bergen", "London", "Turku", "Porto", "Ghent")


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def write_data(folder: Path) -> Path:
    """Writes the files that `training.facts` reads, a handful of records each."""
    write_lines(
        folder / "counterfact" / "train.jsonl",
        [
            {
                "case_id": place,
                "prompt": f"{person} was born in",
                "target_new": CITIES[place],
                "subject": person,
                "ground_truth": CITIES[place - 1],
                "rephrase_prompt": f"It rained. {person} originates from",
                "locality_prompt": f"{PEOPLE[place - 1]} was born in",
                "locality_ground_truth": CITIES[place - 2],
            }
            for place, person in enumerate(PEOPLE)
        ]
        + [
            {
                "case_id": 90,
                "prompt": "Nina Simone plays",
                "target_new": "opera",
                "subject": "Nina Simone",
                "ground_truth": "jazz",
                "rephrase_prompt": "Nina Simone performs",
                "locality_prompt": "Miles Davis plays",
                "locality_ground_truth": "jazz",
            }
        ],
    )
    write_lines(
        folder / "zsre" / "train.jsonl",
        [
            {
                "subject": f"Lake {city}",
                "src": f"Which river feeds Lake {city}?",
                "pred": "x",
                "rephrase": f"What is the inflow of Lake {city}?",
                "alt": "the Rhine",
                "answers": ["the Elbe"],
                "loc": "nq question: who sang the song",
                "loc_ans": "nobody",
                "cond": "",
            }
            for city in CITIES
        ],
    )
    relations = folder / "relations" / "factual"
    relations.mkdir(parents=True, exist_ok=True)
    (relations / "person_mother.json").write_text(
        json.dumps(
            {
                "name": "person mother",
                "prompt_templates": ["{}'s mother is named"],
                "prompt_templates_zs": ["Who is {}'s mother? Their mother is named", "{}'s mother is named"],
                "samples": [
                    {"subject": "Drake", "object": "Sandi Graham"},
                    {"subject": "Ada Lovelace", "object": "Anne Byron"},
                    {"subject": "Plato", "object": "Perictione"},
                ],
            }
        ),
        encoding="utf-8",
    )
    for name in ("nq_dev", "triviaqa_dev"):
        write_lines(
            folder / "traffic" / f"{name}.jsonl",
            [{"question": f"who won the {name} cup in {year}", "answers": ["x"]} for year in range(1960, 2000)],
        )
    write_lines(
        folder / "text" / "wikipedia_en.jsonl",
        [{"text": "The harvest was poor that year. The river froze early, and the mills stood still. " * 8}] * 3,
    )
    return folder
