"""The relation bank: what is read of it, what it refuses, and that the shipped one is sound."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.bank import Bank, load_bank
from training.errors import TrainingDataError

SMALL = """
[types]
person = ""
athlete = "person"
city = ""

[values]
person = ["Ada Lovelace"]
athlete = ["Pelé"]
city = ["Lyon", "Oslo"]

[[relation]]
name = "place of birth"
subject = "person"
object = "city"
labels = ["birthplace"]
stubs = ["{s} was born in"]
questions = ["Where was {s} born?"]
reversed_questions = ["Who was born in {o}?"]
overlaps = ["residence"]

[[relation]]
name = "residence"
subject = "person"
object = "city"
labels = ["residence"]
stubs = ["{s} lives in"]
questions = ["Where does {s} live?"]

[[relation]]
name = "twin city"
subject = "city"
object = "city"
labels = ["twin city"]
stubs = ["{s} is twinned with"]
questions = ["What is {s} twinned with?"]
inverse = "twin city"
"""


def bank_of(folder: Path, text: str = SMALL) -> Bank:
    (folder / "relations_test.toml").write_text(text, encoding="utf-8")
    return load_bank(folder)


def test_a_type_has_the_relations_of_what_it_is_a_kind_of(tmp_path: Path):
    bank = bank_of(tmp_path)
    assert bank.ancestors("athlete") == ("athlete", "person")
    assert [one.name for one in bank.about("athlete")] == ["place of birth", "residence"]
    assert [one.name for one in bank.about("city")] == ["twin city"]
    assert bank.about("river") == ()


def test_a_type_has_the_names_of_its_kinds(tmp_path: Path):
    bank = bank_of(tmp_path).with_names({"athlete": ["Serena Williams", "Pelé"]})
    assert set(bank.names("person")) == {"Ada Lovelace", "Pelé", "Serena Williams"}
    assert bank.names("athlete") == ("Pelé", "Serena Williams")


def test_overlap_holds_both_ways(tmp_path: Path):
    bank = bank_of(tmp_path)
    assert bank.overlapping("residence", "place of birth")
    assert bank.overlapping("place of birth", "residence")
    assert bank.overlapping("twin city", "twin city")
    assert not bank.overlapping("residence", "twin city")


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ('"{s} was born in"', '"He was born in"', "placeholders"),
        ('"Who was born in {o}?"', '"Who was born in {s}?"', "reversed_questions"),
        ('questions = ["Where does {s} live?"]', "questions = []", "at least one each"),
        ('name = "residence"', 'name = "place of birth"', "twice"),
        ('labels = ["residence"]', 'labelz = ["residence"]', "labelz"),
        ("[types]", "[types", "not TOML"),
    ],
)
def test_a_faulty_file_is_told(tmp_path: Path, before: str, after: str, told: str):
    assert before in SMALL
    with pytest.raises(TrainingDataError, match=told) as raised:
        bank_of(tmp_path, SMALL.replace(before, after))
    assert "relations_test.toml" in str(raised.value)


def test_a_folder_without_a_bank_is_told(tmp_path: Path):
    with pytest.raises(TrainingDataError, match="relations_"):
        load_bank(tmp_path)


def test_the_shipped_bank_names_only_what_it_has():
    bank = load_bank()
    for relation in bank.relations.values():
        named = {*relation.overlaps, *([relation.inverse] if relation.inverse else [])}
        assert named <= bank.relations.keys(), relation.name
        assert {relation.subject, relation.object} <= bank.parents.keys(), relation.name
    assert {parent for parent in bank.parents.values() if parent} <= bank.parents.keys()


def test_the_shipped_bank_has_several_relations_and_names_for_each_type_of_subject():
    bank = load_bank()
    for kind in (kind for kind in bank.values if bank.about(kind)):
        assert len(bank.about(kind)) >= 3, kind
        assert len(bank.names(kind)) >= 20, kind
    for relation in bank.relations.values():
        assert len(bank.names(relation.object)) >= 2, relation.name
