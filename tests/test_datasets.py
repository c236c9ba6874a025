"""Every loader: against the real files where they are at hand, and against small records in the published forms.

Counts and fields are compared with what plain ``json`` reads from the same file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from memedit.errors import ConfigError, DataFileError
from memedit.evaluation import DATASETS, Dataset, EvalCase, Probe, coinciding_probes, load_cases

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("MEMEDIT_DATA") or ROOT.parent / "shared" / "data")
Record = dict[str, Any]


def real(name: str, **options: Any) -> Dataset:
    """A dataset read from the real files, which are not part of the project."""
    dataset, split = name.split(":")
    if not any(list(DATA.glob(pattern)) for pattern in DATASETS[dataset].splits[split]):
        pytest.skip(f"the real files of {name} are not in {DATA}; MEMEDIT_DATA names another folder")
    return load_cases(name, data=DATA, **options)


def plain(file: str) -> list[Record]:
    with (DATA / file).open(encoding="utf-8", newline="\n") as lines:
        return [json.loads(line) for line in lines]


def of_kind(case: EvalCase, kind: str) -> list[Probe]:
    return [probe for probe in case.probes if probe.kind == kind]


def texts(case: EvalCase, kind: str) -> list[str]:
    return [probe.prompt.text for probe in of_kind(case, kind)]


def answers(case: EvalCase, kind: str) -> list[tuple[str, ...]]:
    return [probe.reference.answers for probe in of_kind(case, kind)]


def kinds(dataset: Dataset) -> dict[str, int]:
    return dataset.probe_counts()


def written(folder: Path, value: Any, name: str = "records.json") -> Path:
    file = folder / name
    lines = name.endswith(".jsonl")
    file.write_text("".join(json.dumps(one) + "\n" for one in value) if lines else json.dumps(value, indent=1))
    return file


def check_reading(dataset: Dataset, file: str, records: list[Record]) -> None:
    """What holds of every file with one case a record."""
    assert len(dataset.cases) + len(dataset.bad) == len(records)
    assert [one.name for one in dataset.files] == [file]
    assert dataset.files[0].sha256 == hashlib.sha256((DATA / file).read_bytes()).hexdigest()
    lines = [case.source.line for case in dataset.cases if case.source is not None]
    assert lines == sorted(set(range(1, len(records) + 1)) - {bad.line for bad in dataset.bad})
    assert len({case.id for case in dataset.cases}) == len(dataset.cases)
    for case in dataset.cases[::50]:
        assert EvalCase.from_json(json.loads(json.dumps(case.to_json()))) == case
        assert all(edit.paraphrases == () and edit.aliases == () and not edit.metadata for edit in case.edits)


# -- the real files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "coinciding"), [("train", 227), ("dev", 13)])
def test_counterfact(split: str, coinciding: int) -> None:
    dataset = real(f"counterfact:{split}")
    records = plain(f"counterfact/{split}.jsonl")
    check_reading(dataset, f"counterfact/{split}.jsonl", records)
    count = len(records)
    assert kinds(dataset) == {"edit": count, "paraphrase": count, "same_relation": count}
    for case, record in zip(dataset.cases, records, strict=True):
        (edit,) = case.edits
        assert case.id == str(record["case_id"])
        assert (edit.prompt, edit.target, edit.subject) == (record["prompt"], record["target_new"], record["subject"])
        asked, rephrased, near = case.probes
        assert asked.prompt.text == record["prompt"]
        assert rephrased.prompt.text == record["rephrase_prompt"]
        assert asked.reference == rephrased.reference
        assert asked.reference.answers == (record["target_new"],)
        assert asked.reference.old_answers == (record["ground_truth"],)
        assert (near.prompt.text, near.reference.answers) == (
            record["locality_prompt"],
            (record["locality_ground_truth"],),
        )
    asked_directly = {" ".join(r[key].split()).casefold() for r in records for key in ("prompt", "rephrase_prompt")}
    assert coinciding == sum(" ".join(r["locality_prompt"].split()).casefold() in asked_directly for r in records)
    assert sum(map(len, coinciding_probes(dataset.cases).values())) == coinciding


def test_counterfact_with_several_paraphrases() -> None:
    dataset = real("counterfact:dev_multi")
    records = plain("counterfact/dev_multi.jsonl")
    check_reading(dataset, "counterfact/dev_multi.jsonl", records)
    for case, record in zip(dataset.cases, records, strict=True):
        assert texts(case, "paraphrase") == record["rephrase_prompt"]
        assert texts(case, "same_relation") == [one["prompt"] for one in record["locality"]]
        assert answers(case, "same_relation") == [()] * len(record["locality"])
        assert case.probes[0].reference.old_answers == (record["ground_truth"],)


@pytest.mark.parametrize("split", ["train", "portability_dev"])
def test_zsre_is_two_tasks(split: str) -> None:
    file = f"zsre/{split}.jsonl"
    true, false = real(f"zsre-answer:{split}"), real(f"zsre-counterfactual:{split}", skip_bad=True)
    records = plain(file)
    check_reading(true, file, records)
    check_reading(false, file, records)
    empty = [number for number, record in enumerate(records, start=1) if not record["alt"]]
    assert [(bad.line, bad.problem) for bad in false.bad] == [(line, "the field 'alt' is empty.") for line in empty]
    by_line = {case.source.line: case for case in false.cases if case.source is not None}
    for number, (case, record) in enumerate(zip(true.cases, records, strict=True), start=1):
        assert case.edits[0].prompt == record["src"]
        assert case.edits[0].target == record["answers"][0]
        assert answers(case, "edit") == [tuple(dict.fromkeys(record["answers"]))]
        assert texts(case, "paraphrase") == [record["rephrase"]]
        assert "nq question: " + texts(case, "unrelated")[0] == record["loc"]
        assert answers(case, "unrelated") == [(record["loc_ans"],)]
        assert not of_kind(case, "one_hop")
        if number not in by_line:
            continue
        other = by_line[number]
        assert other.edits[0].target == record["alt"].strip()
        assert other.probes[0].reference.old_answers == tuple(
            one for one in dict.fromkeys(record["answers"]) if one.casefold() != record["alt"].strip().casefold()
        )
        if "portability" in record:
            assert texts(other, "one_hop") == [record["portability"]["New Question"]]
            assert answers(other, "one_hop") == [(record["portability"]["New Answer"],)]


def test_zsre_stops_at_a_record_without_an_edit() -> None:
    real("zsre-answer:train", limit=0)
    with pytest.raises(DataFileError, match=r"zsre/train\.jsonl:535: the field 'alt' is empty\..*skip_bad"):
        real("zsre-counterfactual:train")


@pytest.mark.parametrize(("task", "field"), [("answer", "ground_truth"), ("counterfactual", "target_new")])
def test_zsre_with_several_paraphrases(task: str, field: str) -> None:
    dataset = real(f"zsre-{task}:dev_multi")
    records = plain("zsre/dev_multi.jsonl")
    check_reading(dataset, "zsre/dev_multi.jsonl", records)
    for case, record in zip(dataset.cases, records, strict=True):
        assert case.edits[0].target == record[field]
        assert texts(case, "paraphrase") == record["rephrase_prompt"]
        assert texts(case, "unrelated") == [one["prompt"] for one in record["locality"]]
    prompts = {record["prompt"] for record in records}
    is_an_edit = sum(record["locality"][0]["prompt"] in prompts for record in records)
    assert sum(map(len, coinciding_probes(dataset.cases).values())) == is_an_edit == 381


KNOWEDIT_KINDS = {
    "reasoning": "one_hop",
    "Subject_Aliasing": "alias",
    "Logical_Generalization": "logical",
    "Relation_Specificity": "same_subject",
    "Forgetfulness": "forgetfulness",
}


@pytest.mark.parametrize(
    ("name", "file", "form"),
    [
        ("knowedit-zsre", "zsre_dev", "short"),
        ("knowedit-counterfact", "wiki_counterfact_dev", "short"),
        ("knowedit-wikibio", "wikibio_dev", "long"),
    ],
)
def test_knowedit(name: str, file: str, form: str) -> None:
    dataset = real(f"{name}:dev")
    records = plain(f"knowedit/{file}.jsonl")
    check_reading(dataset, f"knowedit/{file}.jsonl", records)
    for case, record in zip(dataset.cases, records, strict=True):
        (edit,) = case.edits
        assert (edit.prompt, edit.target, edit.subject) == tuple(
            record[key].strip() for key in ("prompt", "target_new", "subject")
        )
        assert case.probes[0].reference.form == form
        expected = Counter(
            (KNOWEDIT_KINDS[key], prompt.strip(), (truth.strip(),))
            for part in ("portability", "locality")
            for key, columns in record[part].items()
            for prompt, truth in zip(columns["prompt"], columns["ground_truth"], strict=True)
        )
        assert Counter((p.kind, p.prompt.text, p.reference.answers) for p in case.probes[1:]) == expected


def test_mquake() -> None:
    dataset = real("mquake:hard_dev")
    records = plain("mquake/hard_dev.jsonl")
    check_reading(dataset, "mquake/hard_dev.jsonl", records)
    assert kinds(dataset) == {"edit": 400, "multi_hop": 300, "paraphrase": 400}
    for case, record in zip(dataset.cases, records, strict=True):
        rewrites = record["requested_rewrite"]
        assert [edit.prompt for edit in case.edits] == [one["prompt"].format(one["subject"]) for one in rewrites]
        assert [edit.target for edit in case.edits] == [one["target_new"]["str"] for one in rewrites]
        assert texts(case, "paraphrase") == [one["question"] for one in rewrites]
        assert [probe.of_edit for probe in of_kind(case, "edit")] == list(range(len(rewrites)))
        assert texts(case, "multi_hop") == record["questions"]
        for probe in of_kind(case, "multi_hop"):
            assert set(probe.reference.answers) == {record["new_answer"], *record["new_answer_alias"]}
            assert probe.group is not None
            assert probe.group.rule == "any"
            assert (probe.hops, probe.conditions) == (len(record["new_single_hops"]), ())
        aliases = {hop["question"]: {hop["answer"], *hop["answer_alias"]} for hop in record["new_single_hops"]}
        for probe in of_kind(case, "paraphrase"):
            assert aliases[probe.prompt.text] <= {case.edits[probe.of_edit or 0].target, *probe.reference.answers}


def test_halluedit() -> None:
    dataset = real("halluedit:dev")
    records = plain("halluedit/dev.jsonl")
    check_reading(dataset, "halluedit/dev.jsonl", records)
    assert {case.topic for case in dataset.cases} == {record["topic"] for record in records}
    for case, record in zip(dataset.cases, records, strict=True):
        assert (case.edits[0].prompt, case.edits[0].target) == (record["question"], record["object"].strip())
        assert texts(case, "paraphrase") == [record["paraphrased_question"]]
        assert texts(case, "yes_no") == [record["yes_question"], record["no_question"]]
        assert answers(case, "yes_no") == [("yes",), ("no",)]
        assert answers(case, "reversed") == [(record["subject"].strip(),)]
        assert texts(case, "same_subject") == [record["locality_question"]]
        chained = [*of_kind(case, "one_hop"), *of_kind(case, "multi_hop")]
        assert [(p.hops, p.prompt.text, *p.reference.answers) for p in chained] == [
            (hops, record[f"question_{hops}hop"].strip(), record[f"answer_{hops}hop"].strip()) for hops in range(2, 7)
        ]


def test_unke() -> None:
    dataset = real("unke:dev")
    records = plain("unke/dev.jsonl")
    check_reading(dataset, "unke/dev.jsonl", records)
    for case, record in zip(dataset.cases, records, strict=True):
        assert (case.id, case.edits[0].target) == (str(record["id"]), record["answer"].strip())
        assert of_kind(case, "edit")[0].reference.form == "long"
        assert texts(case, "paraphrase") == [record["para_question"].strip()]
        told = zip(record["sub_question"], record["sub_answer"], strict=True)
        assert list(zip(texts(case, "detail"), answers(case, "detail"), strict=True)) == [
            (question.strip(), (answer.strip(),)) for question, answer in told
        ]


@pytest.mark.parametrize("name", ["nq", "triviaqa"])
def test_traffic(name: str) -> None:
    dataset = real(f"traffic:{name}_dev")
    records = plain(f"traffic/{name}_dev.jsonl")
    check_reading(dataset, f"traffic/{name}_dev.jsonl", records)
    for case, record in zip(dataset.cases, records, strict=True):
        (probe,) = case.probes
        assert (case.edits, probe.in_scope) == ((), False)
        assert probe.reference.answers
        assert not any('""' in text for text in (probe.prompt.text, *probe.reference.answers))
        if '"' not in record["question"]:
            assert probe.prompt.text == record["question"].strip()
        if not {'"', "\\"} & set(record["answers"]):
            listed = record["answers"].removeprefix("['").removesuffix("']").split("', '")
            assert probe.reference.answers == tuple(dict.fromkeys(one.strip() for one in listed))


def test_relations() -> None:
    dataset = real("relations:all")
    files = {
        path.relative_to(DATA).as_posix(): json.loads(path.read_text()) for path in DATA.glob("relations/*/*.json")
    }
    assert {one.name for one in dataset.files} == set(files)
    facts = {
        (name, sample["subject"].strip(), sample["object"].strip())
        for name, relation in files.items()
        for sample in relation["samples"]
    }
    assert {(c.source.file, c.edits[0].subject) for c in dataset.cases if c.source} == {fact[:2] for fact in facts}
    found = set()
    relations_of = Counter(subject for _, subject in {fact[:2] for fact in facts})
    for case in dataset.cases:
        assert case.source is not None
        subject, asked = case.edits[0].subject or "", case.probes[0]
        found |= {(case.source.file, subject, one) for one in asked.reference.old_answers}
        assert (case.source.file, subject, case.edits[0].target) not in facts
        assert len(of_kind(case, "same_subject")) == relations_of[subject] - 1
        (near,) = of_kind(case, "same_relation")
        assert near.subject != subject
        assert all((case.source.file, near.subject, one) in facts for one in near.reference.answers)
    assert {(*fact[:2], fact[2].casefold()) for fact in facts} == {(*fact[:2], fact[2].casefold()) for fact in found}
    assert real("relations:all").cases == dataset.cases
    again = real("relations:all", seed=1).cases
    assert sum(one.edits != other.edits for one, other in zip(again, dataset.cases, strict=True)) > len(again) / 3


# -- the published forms, in small records of our own ------------------------------------------------------------------


def only(name: str, value: Any, folder: Path, file: str = "records.json", **options: Any) -> EvalCase:
    (case,) = load_cases(name, data=written(folder, value, file), **options).cases
    return case


NESTED: Record = {
    "case_id": 3,
    "requested_rewrite": {
        "prompt": "The headquarters of {} is in",
        "relation_id": "P159",
        "target_new": {"str": "Lisbon", "id": "Q1"},
        "target_true": {"str": "Porto", "id": "Q2"},
        "subject": "Acme",
    },
    "paraphrase_prompts": ["Rain fell. Acme is based in", "Acme sits in"],
    "neighborhood_prompts": ["The headquarters of Nordwind is in"],
    "attribute_prompts": ["The headquarters of Beta is in"],
    "generation_prompts": ["Acme's headquarters are surrounded by"],
}


def test_counterfact_as_released(tmp_path: Path) -> None:
    case = only("counterfact", [NESTED], tmp_path)
    (edit,) = case.edits
    assert (edit.prompt, edit.target, edit.subject) == ("The headquarters of Acme is in", "Lisbon", "Acme")
    assert texts(case, "paraphrase") == NESTED["paraphrase_prompts"]
    assert texts(case, "same_relation") == NESTED["neighborhood_prompts"]
    assert answers(case, "same_relation") == [("Porto",)]
    assert [probe.kind for probe in case.probes] == ["edit", "paraphrase", "paraphrase", "same_relation"]
    assert case.probes[0].reference.old_answers == ("Porto",)


KNOWEDIT: Record = {
    "subject": "Ann",
    "prompt": "The spouse of Ann is",
    "target_new": "Bob",
    "ground_truth": [["Carl", "Karl"]],
    "rephrase_prompt": "Ann is married to",
    "portability": {
        "Reasoning": [{"prompt": "The city of Ann's spouse is", "ground_truth": [["Rome", "Roma"], ["Bari"]]}],
        "Subject_Aliasing": [{"prompt": "The spouse of Annie is", "ground_truth": "Bob"}],
        "Logical_Generalization": [{"prompt": "The spouse of Bob is", "ground_truth": []}],
        "reasoning": None,
    },
    "locality": {
        "Relation_Specificity": [{"prompt": "The mother of Ann is", "ground_truth": [[]]}],
        "forgetfulness": [{"prompt": "The spouse of Ann, which is not Bob, is", "ground_truth": [["Dan"]]}],
    },
}


@pytest.mark.parametrize("name", ["knowedit-recent", "knowedit-zsre", "knowedit-counterfact"])
def test_knowedit_as_published(name: str, tmp_path: Path) -> None:
    case = only(name, [KNOWEDIT], tmp_path)
    assert case.probes[0].reference.old_answers == ("Carl", "Karl")
    assert texts(case, "paraphrase") == ["Ann is married to"]
    assert answers(case, "one_hop") == [("Rome", "Roma", "Bari")]
    assert answers(case, "alias") == [("Bob",)]
    assert not of_kind(case, "logical")
    assert answers(case, "same_subject") == [()]
    assert answers(case, "forgetfulness") == [("Dan",)]


def test_wikibio_as_published(tmp_path: Path) -> None:
    record = {
        "concept": "ann",
        "text": "This is a passage about ann. She was born.",
        "labels": "She lived.",
        "locality": {"Relation_Specificity": [{"prompt": "The mother of ann is", "ground_truth": [["Eve"]]}]},
    }
    case = only("knowedit-wikibio", [record], tmp_path)
    assert (case.edits[0].subject, case.edits[0].target) == ("ann", "She lived.")
    assert case.probes[0].reference.form == "long"
    assert answers(case, "same_subject") == [("Eve",)]


def test_convsent_as_published(tmp_path: Path) -> None:
    records = [{"ent": f"topic {n}", "pos": [f"love {n}", "Nice."], "neg": [f"hate {n}"]} for n in range(40)]
    dataset = load_cases("knowedit-convsent", data=written(tmp_path, records))
    wanted = Counter(case.edits[0].target for case in dataset.cases)
    assert set(wanted) == {"positive", "negative"}
    for number, case in enumerate(dataset.cases):
        assert case.edits[0].fact == f"Topic: topic {number} Sentiment: {case.edits[0].target}"
        asked = of_kind(case, "opinion")
        assert len({probe.prompt.text for probe in asked}) == 13
        positive, negative = (f"love {number}", "Nice."), (f"hate {number}",)
        good = case.edits[0].target == "positive"
        assert {p.reference.answers for p in asked} == {positive if good else negative}
        assert {p.reference.old_answers for p in asked} == {negative if good else positive}
        assert of_kind(case, "same_relation")[0].subject == f"topic {(number + 1) % 40}"
    assert len(coinciding_probes(dataset.cases)) == 40
    other = load_cases("knowedit-convsent", data=written(tmp_path, records), seed=1)
    assert [case.edits for case in other.cases] != [case.edits for case in dataset.cases]


def test_sanitation_as_published(tmp_path: Path) -> None:
    record = {
        "K_F": [{"question": "Who hid it?", "ground_truth": "Ann", "target_new": "I don't know."}],
        "K_R": [{"question": "Who won?", "ground_truth": ["Bob", "Rob"], "target_new": "Bob"}],
    }
    forget, retain = load_cases("knowedit-sanitation", data=written(tmp_path, record)).cases
    assert (forget.edits[0].prompt, forget.edits[0].target) == ("Who hid it?", "I don't know.")
    assert forget.probes[0].reference.old_answers == ("Ann",)
    assert (retain.edits, answers(retain, "unrelated")) == ((), [("Bob", "Rob")])


def test_mquake_with_a_link_that_no_edit_concerns(tmp_path: Path) -> None:
    rewrite = {**NESTED["requested_rewrite"], "question": "Where is Acme?"}
    links = [
        {"question": "Where is Acme?", "cloze": "", "answer": "Lisbon", "answer_alias": ["Lisboa"]},
        {"question": "Which river runs through Lisbon?", "cloze": "", "answer": "Tagus", "answer_alias": []},
    ]
    record = {
        "case_id": 1,
        "requested_rewrite": [rewrite],
        "questions": ["On which river is Acme?", "Acme's river?", "What river?"],
        "answer": "Douro",
        "answer_alias": [],
        "new_answer": "Tagus",
        "new_answer_alias": ["Tejo"],
        "single_hops": [],
        "new_single_hops": links,
    }
    case = only("mquake", [record], tmp_path)
    assert answers(case, "paraphrase") == [("Lisbon", "Lisboa")]
    for probe in of_kind(case, "multi_hop"):
        assert (probe.reference.answers, probe.reference.old_answers, probe.hops) == (("Tagus", "Tejo"), ("Douro",), 2)
        (known,) = probe.conditions
        assert (known.prompt.text, known.reference.answers) == ("Which river runs through Lisbon?", ("Tagus",))


def test_halluedit_as_published(tmp_path: Path) -> None:
    (tmp_path / "art_meta.csv").write_text(
        "subject,relation,object,question,paraphrased_question,yes_question,no_question,question_2hop,answer_2hop\n"
        'Acme,seat,Lisbon,"Where, then, is Acme?",,Is it in Lisbon?,Is it in Porto?,,\n'
    )
    (case,) = load_cases("halluedit", data=tmp_path / "art_meta.csv").cases
    assert (case.topic, case.edits[0].prompt) == ("art_meta", "Where, then, is Acme?")
    assert [probe.kind for probe in case.probes] == ["edit", "yes_no", "yes_no"]
    (tmp_path / "halluedit").mkdir()
    for topic in ("art", "geography"):
        (tmp_path / "halluedit" / f"{topic}.csv").write_bytes((tmp_path / "art_meta.csv").read_bytes())
    both = load_cases("halluedit:all", data=tmp_path)
    assert [one.name for one in both.files] == ["halluedit/art.csv", "halluedit/geography.csv"]
    assert [(one.id, one.topic) for one in both.cases] == [("art-2", "art"), ("geography-2", "geography")]
    assert case.source is not None
    assert (case.source.file, case.source.line) == ("art_meta.csv", 2)


def query(prompt: str, *values: str, aliases: tuple[str, ...] = ()) -> Record:
    listed = [{"value": value, "aliases": list(aliases)} for value in values]
    return {"prompt": prompt, "answers": listed, "query_type": "regular", "phrase": None}


def ripple(sentence: str, original: str | None, **tests: list[Record]) -> Record:
    fact = None if original is None else {"prompt": original, "relation": "R"}
    return {"example_type": "popular", "edit": {"prompt": sentence, "original_fact": fact}, **tests}


def test_ripple_edits_as_published(tmp_path: Path) -> None:
    record = ripple(
        "The country of Ann is United Kingdom.",
        "The country of Ann is United States.",
        Relation_Specifity=[
            {"test_queries": [query("The mother of Ann is", "Eve")], "test_condition": "OR", "condition_queries": []}
        ],
        Compositionality_I=[
            {
                "test_queries": [
                    query("The capital is", "London", aliases=("Londres",)),
                    query("The king is", "Charles"),
                ],
                "test_condition": "AND",
                "condition_queries": [query("The capital of the UK is", "London"), query("No answer here is")],
            }
        ],
        Subject_Aliasing=[{"test_queries": [query("A is")], "test_condition": "OR", "condition_queries": []}],
    )
    case = only("ripple-edits", [record], tmp_path)
    assert (case.edits[0].prompt, case.edits[0].target) == ("The country of Ann is", "United Kingdom")
    assert case.probes[0].reference.old_answers == ("United States",)
    assert answers(case, "same_subject") == [("Eve",)]
    assert not of_kind(case, "alias")
    capital, king = of_kind(case, "one_hop")
    assert capital.reference.answers == ("London", "Londres")
    assert capital.group is not None
    assert (capital.group, capital.group.rule) == (king.group, "all")
    assert [one.prompt.text for one in capital.conditions] == ["The capital of the UK is"]


@pytest.mark.parametrize(
    ("sentence", "original", "prompt", "target"),
    [
        ("Big Mouth is followed by X.", "Big Mouth is followed by Y.", "Big Mouth is followed by", "X"),
        ("The siblings of Ann are Bo is.", "The siblings of Ann are Cy.", "The siblings of Ann are", "Bo is"),
        (
            "What is it is a film by Ann is Bo.",
            "What is it is a film by Ann is Cy.",
            "What is it is a film by Ann is",
            "Bo",
        ),
        ("The capital of X is St. Y", None, "The capital of X is", "St. Y"),
    ],
)
def test_an_edit_of_ripple_edits_is_divided(
    sentence: str, original: str | None, prompt: str, target: str, tmp_path: Path
) -> None:
    (edit,) = only("ripple-edits", [ripple(sentence, original)], tmp_path).edits
    assert (edit.prompt, edit.target) == (prompt, target)


def test_records_of_ones_own(tmp_path: Path) -> None:
    record = {
        "edits": [{"prompt": "Acme is in", "target": "Lisbon"}],
        "probes": [{"kind": "paraphrase", "prompt": "Where is Acme?", "answers": ["Lisbon"], "of_edit": 0}],
    }
    file = written(tmp_path, [record, {**record, "id": "mine"}], "own.jsonl")
    first, second = load_cases("jsonl", data=file).cases
    assert (first.id, second.id) == ("1", "mine")
    assert first.source is not None
    assert (first.source.file, first.source.line) == ("own.jsonl", 1)
    assert load_cases("jsonl", data=written(tmp_path, [first.to_json()], "own.jsonl")).cases == (first,)


# -- what can be wrong -------------------------------------------------------------------------------------------------


FLAT: Record = {
    "case_id": 1,
    "prompt": "Acme is in",
    "target_new": "Lisbon",
    "subject": "Acme",
    "ground_truth": "Porto",
    "rephrase_prompt": "Where is Acme?",
    "locality_prompt": "Beta is in",
    "locality_ground_truth": "Porto",
}


def without(record: Record, key: str) -> Record:
    return {name: value for name, value in record.items() if name != key}


def relation(*facts: list[str]) -> Record:
    samples = [{"subject": subject, "object": one} for subject, one in facts]
    return {
        "name": "made",
        "prompt_templates": ["{} is"],
        "prompt_templates_zs": ["What is {}? It is"],
        "samples": samples,
    }


def test_a_fact_gets_another_object_of_its_relation(tmp_path: Path) -> None:
    facts = relation(["a", "x"], ["a", "y"], ["b", "z"])
    first, second = load_cases("relations", data=written(tmp_path, facts)).cases
    assert (first.edits[0].prompt, first.edits[0].target) == ("a is", "z")
    assert first.probes[0].reference.old_answers == ("x", "y")
    assert texts(first, "paraphrase") == ["What is a? It is"]
    assert (texts(first, "same_relation"), answers(first, "same_relation")) == (["b is"], [("z",)])
    assert second.edits[0].target in {"x", "y"}


@pytest.mark.parametrize(
    ("name", "record", "complaint"),
    [
        ("counterfact", without(FLAT, "target_new"), "the field 'target_new' is missing"),
        ("counterfact", {**FLAT, "prompt": 7}, "the field 'prompt' must be text, not int"),
        ("counterfact", {**FLAT, "prompt": None}, "the field 'prompt' must be text, not null"),
        ("counterfact", {**FLAT, "subject": "  "}, "the field 'subject' is empty"),
        ("counterfact", {**FLAT, "rephrase_prompt": ["a", 3]}, "the field 'rephrase_prompt[1]' must be text"),
        ("counterfact", {**FLAT, "locality": [{"promt": "x"}]}, "the field 'locality[0].prompt' is missing"),
        ("counterfact", {**FLAT, "locality": {"a": 1}}, "the field 'locality' must be a list"),
        ("counterfact", {**FLAT, "target_new": "a\0b"}, "'edits[0]': target holds a NUL character"),
        ("counterfact", {**FLAT, "locality_ground_truth": {"a": 1}}, "'locality_ground_truth' must be text or lists"),
        (
            "counterfact",
            {**NESTED, "requested_rewrite": {**NESTED["requested_rewrite"], "prompt": "no place"}},
            "the field 'requested_rewrite.prompt' must hold {} once",
        ),
        (
            "counterfact",
            {**NESTED, "requested_rewrite": {**NESTED["requested_rewrite"], "target_new": "Lisbon"}},
            "the field 'requested_rewrite.target_new' must be an object",
        ),
        (
            "knowedit-zsre",
            {**KNOWEDIT, "locality": {"Forgetfulnes": []}},
            "the field 'locality.Forgetfulnes' is not known",
        ),
        (
            "knowedit-zsre",
            {**KNOWEDIT, "portability": {"reasoning": {"prompt": ["a", "b"], "ground_truth": ["c"]}}},
            "the field 'portability.reasoning.ground_truth' must be a list of 2",
        ),
        ("zsre-answer", {"src": "Who?", "subject": "x", "answers": []}, "the field 'answers' holds no answer"),
        ("unke", {"question": "a", "answer": "b", "sub_question": ["c"]}, "'sub_answer' has 0 entries for 1"),
        ("halluedit", {**dict.fromkeys(("subject", "question", "object"), "a"), "question_2hop": "b"}, "'answer_2hop'"),
        ("ripple-edits", ripple("No verb here.", None), "the field 'edit.prompt' cannot be divided"),
        (
            "ripple-edits",
            ripple("A is B.", None, Forgetfulness=[{"test_condition": "XOR"}]),
            "'Forgetfulness[0].test_condition' is OR or AND",
        ),
        ("knowedit-convsent", {"ent": "x", "pos": [], "neg": ["a"]}, "the field 'pos' holds no replies"),
        ("knowedit-sanitation", {"K_F": []}, "the field 'K_R' is missing"),
        ("traffic", {"question": "a", "answers": "['b'"}, "the field 'answers' is no list"),
        ("relations", {"name": "a", "prompt_templates": ["no place"]}, "'prompt_templates' must hold templates"),
        ("relations", {"name": "a", "prompt_templates": ["{}"], "samples": []}, "'samples' must name two subjects"),
        ("relations", relation(["a", "x"], ["b", "x"]), "'samples' leaves no other object to give to 'a'"),
        ("jsonl", {"edits": []}, "'probes' is missing"),
        ("jsonl", {"edits": [], "probes": [], "topics": "x"}, "Did you mean 'topic'?"),
        ("jsonl", 3, "must be a JSON object, not int"),
    ],
)
def test_a_malformed_record_is_named(name: str, record: Any, complaint: str, tmp_path: Path) -> None:
    file = written(tmp_path, [record], "records.jsonl")
    file.write_text("\n" + file.read_text())
    with pytest.raises(DataFileError) as caught:
        load_cases(name, data=file)
    assert str(caught.value).startswith("records.jsonl:2: ")
    assert complaint in str(caught.value)
    left_out = load_cases(name, data=file, skip_bad=True)
    assert {bad.line for bad in left_out.bad} == {2}
    assert left_out.bad[0].file == "records.jsonl"
    assert complaint in left_out.bad[0].problem


def test_the_rest_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    good = json.dumps(FLAT).encode()
    file.write_bytes(good + b"\n{\n\xff\n" + good + b"\n" + good.replace(b'"case_id": 1', b'"case_id": 2') + b"\n")
    dataset = load_cases("counterfact", data=file, skip_bad=True)
    assert [case.id for case in dataset.cases] == ["1", "2"]
    assert [bad.line for bad in dataset.bad] == [2, 3, 4]
    assert [bad.problem.split(":")[0] for bad in dataset.bad[:1]] == ["is not valid JSON"]
    assert "not UTF-8" in dataset.bad[1].problem
    assert dataset.bad[2].problem == "the id '1' is that of the record at records.jsonl:1 already."


def test_lines_of_a_json_list_are_counted(tmp_path: Path) -> None:
    records = [{**FLAT, "case_id": 1}, {**FLAT, "case_id": 2, "prompt": ""}, {**FLAT, "case_id": 3}]
    file = written(tmp_path, records)
    (bad,) = load_cases("counterfact", data=file, skip_bad=True).bad
    assert file.read_text().splitlines()[bad.line - 1].strip() == "{"
    assert file.read_text().splitlines()[bad.line].strip() == '"case_id": 2,'


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[{}", "does not go on after this record"),
        ('[{"a": 1} {"b": 2}]', "does not go on after this record"),
        ('[\n{"a": \n', ":2: is not valid JSON"),
        ("[]", "no record in it"),
        ("", "no record in it"),
    ],
)
def test_a_broken_json_file_stops(content: str, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "records.json"
    file.write_text(content)
    with pytest.raises(DataFileError) as caught:
        load_cases("traffic", data=file, skip_bad=True)
    assert complaint in str(caught.value)


def test_a_broken_csv_file_is_told(tmp_path: Path) -> None:
    file = tmp_path / "art.csv"
    file.write_text("subject,object,question\na,b,c,d\n")
    with pytest.raises(DataFileError, match=r"art\.csv:2: has more cells"):
        load_cases("halluedit", data=file)


def test_a_limit_reads_no_further(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text(json.dumps(FLAT) + "\nbroken\n")
    assert len(load_cases("counterfact", data=file, limit=1).cases) == 1
    assert load_cases("counterfact", data=file, limit=0).cases == ()
    with pytest.raises(ConfigError, match="limit must not be negative"):
        load_cases("counterfact", data=file, limit=-1)


def test_a_folder_is_found_by_argument_or_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "counterfact").mkdir()
    file = written(tmp_path / "counterfact", [FLAT], "dev.jsonl")
    monkeypatch.delenv("MEMEDIT_DATA", raising=False)
    with pytest.raises(ConfigError, match="give data=, or set MEMEDIT_DATA"):
        load_cases("counterfact:dev")
    monkeypatch.setenv("MEMEDIT_DATA", str(tmp_path))
    dataset = load_cases("counterfact:dev")
    assert dataset == load_cases("counterfact:dev", data=tmp_path)
    assert dataset.cases[0].source is not None
    assert dataset.cases[0].source.file == "counterfact/dev.jsonl"
    assert dataset.files[0].sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("name", "error", "complaint"),
    [
        ("counterfac:dev", ConfigError, "There is no dataset 'counterfac'. Did you mean 'counterfact'?"),
        ("counterfact:dve", ConfigError, "Did you mean 'dev'?"),
        ("counterfact", ConfigError, "names no split"),
        ("counterfact:dev", DataFileError, "holds no counterfact/dev.jsonl"),
        ("jsonl", ConfigError, "one file of your own"),
    ],
)
def test_a_wrong_name_is_told(name: str, error: type[Exception], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(error) as caught:
        load_cases(name, data=tmp_path)
    assert complaint in str(caught.value)
    with pytest.raises(DataFileError, match="neither a folder nor a file"):
        load_cases("counterfact:dev", data=tmp_path / "absent")
