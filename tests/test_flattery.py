"""The ways in which evaluations of knowledge editing flatter a method, each planted, and none of them moves a figure.

A method is planted that lives by the flattery alone. Where a harness has the flaw, such a method looks perfect; here it
is shown for what it is. The model says what it reads in «guillemets» (`echo_model`), so every score is known.
"""

from __future__ import annotations

from typing import Any

import pytest
from echo_model import UNKNOWN, echo_model
from hashing_encoder import HashingEncoder
from tiny import tiny_tokenizer

from memedit.editors.editor import EditCost, MethodInfo, Treatment
from memedit.editors.subject import Subject
from memedit.evaluation.cases import EvalCase
from memedit.evaluation.datasets.probes import probe
from memedit.evaluation.datasets.registry import Dataset, load_cases
from memedit.evaluation.runner import evaluate
from memedit.injection import Context, Insertion
from memory_store import Edit

CITIES = "Lisbon Ankara Quito Hanoi Lima Oslo Riga Baku Accra Dakar".split()


@pytest.fixture(scope="module")
def subject():
    return Subject(echo_model(), tiny_tokenizer(), HashingEncoder(), name="echo")


def dataset(count=10, *, aliases=(), name="made:up"):
    """Cases with an edit, a paraphrase and a near miss each."""
    cases = []
    for number, city in enumerate(CITIES[:count]):
        edit = Edit(prompt=f"Company {number} is based in", target=f"«{city}»", subject=f"Company {number}")
        about: dict[str, Any] = {"of_edit": 0, "subject": edit.subject}
        answers = [city, *(alias.format(city) for alias in aliases)]
        cases.append(
            EvalCase(
                id=str(number),
                edits=(edit,),
                probes=(
                    probe("edit", edit.prompt, answers, **about),
                    probe("paraphrase", f"Where is company {number} to be found?", answers, **about),
                    probe("same_subject", f"Who founded company {number}?", subject=edit.subject),
                ),
            )
        )
    return Dataset(name=name, cases=tuple(cases), files=())


def city(edit):
    return edit.target.strip("«»")


class Planted:
    """A method that says of each prompt what a rule makes of its text and the edits made so far."""

    def __init__(self, rule, *, name="planted"):
        self.INFO = MethodInfo(
            name=name, title=name, group="none", changes="memory", paper="none", summary="A planted flattery."
        )
        self.rule = rule
        self.seen: list[str] = []
        self.in_place: list[int] = []

    def create(self, subject):
        self.subject = subject
        self.edits: list[Edit] = []
        return self

    @property
    def info(self):
        return self.INFO

    def edit(self, edits):
        self.edits += edits
        return EditCost(edits=len(edits), seconds=0.0)

    def treat(self, prompts):
        texts = [self.subject.tokenizer.decode(ids) for ids in prompts]
        self.seen += texts
        self.in_place += [len(self.edits)] * len(texts)
        return [self._treated(self.rule(text, self.edits)) for text in texts]

    def undo(self):
        self.edits = []

    def treat_told(self, prompts, gold):
        raise AssertionError("nobody may tell this method anything")

    treat_unscoped = treat_told

    def _treated(self, said):
        if said is None:
            return Treatment()
        ids = self.subject.tokenizer(f"«{said}»\n", add_special_tokens=False)["input_ids"]
        return Treatment(context=Context((Insertion(0, tuple(ids)),)))


def share(report, method, measure, *, edits, reading="anywhere", protocol="free"):
    (figure,) = report.find(method=method, measure=measure, kind=None, edits=edits, reading=reading, protocol=protocol)
    return figure.value


def test_the_model_says_what_it_reads(subject):
    honest = Planted(lambda text, edits: next((city(e) for e in edits if e.prompt in text), None))
    report = evaluate(subject, methods=honest, cases=dataset())
    assert share(report, "planted", "reliability", edits=1) == 1.0
    assert share(report, "planted", "generalization", edits=1) == 0.0
    assert share(report, "planted", "locality", edits=1, reading="identical") == 1.0
    assert share(report, "base", "reliability", edits=0) == 0.0


def test_no_answer_is_in_the_query(subject):
    """A method that repeats the city in its prompt would be perfect, were the gold answer handed over with it."""
    parrot = Planted(lambda text, _: next((city for city in CITIES if city.casefold() in text.casefold()), None))
    report = evaluate(
        subject,
        methods=parrot,
        cases=dataset(),
        protocol=("free", "teacher-forced", "probability"),
        edits=[1, 10],
    )
    assert parrot.seen
    assert not [text for text in parrot.seen if any(city.casefold() in text.casefold() for city in CITIES)]
    assert share(report, "planted", "reliability", edits=10) == 0.0
    assert share(report, "planted", "generalization", edits=10) == 0.0


def test_a_memory_of_one_does_not_pass_for_a_memory(subject):
    """A method that always obeys its newest edit is perfect where each record is tried with its own edit alone."""
    newest = Planted(lambda _, edits: city(edits[-1]))
    report = evaluate(subject, methods=newest, cases=dataset(), edits=[1, 10])
    assert share(report, "planted", "generalization", edits=1) == 1.0
    assert share(report, "planted", "generalization", edits=10) == pytest.approx(0.1)
    assert share(report, "planted", "locality", edits=1, reading="identical") == 0.0
    assert set(newest.in_place) == {1, 10}


def test_a_prefix_gives_nothing_away(subject, tmp_path):
    """zsRE's locality questions begin alike; a method that keeps still at that prefix has perfect locality by it."""
    record = (
        '{{"subject": "Company {n}", "src": "Where is company {n}?", "pred": "Rome", '
        '"rephrase": "What is the place of company {n}?", "alt": "{city}", "answers": ["Rome"], '
        '"loc": "nq question: who sang song {n}", "loc_ans": "Ann", '
        '"cond": "Rome >> {city} || Where is company {n}?"}}\n'
    )
    file = tmp_path / "zsre.jsonl"
    file.write_text("".join(record.format(n=n, city=name) for n, name in enumerate(CITIES)))
    cases = load_cases("zsre-counterfactual", data=file)
    still = Planted(lambda text, edits: None if "nq question" in text else edits[0].target)
    report = evaluate(subject, methods=still, cases=cases, edits=1)
    assert share(report, "planted", "reliability", edits=1) == 1.0
    assert share(report, "planted", "locality", edits=1, reading="identical") == 0.0


def test_every_alias_counts(subject):
    """Scoring by the first alias alone makes methods differ by which name they happen to say."""
    second = Planted(lambda text, edits: next((f"City of {city(e)}" for e in edits if e.prompt in text), None))
    by_second = evaluate(subject, methods=second, cases=dataset(aliases=["City of {}"]))
    assert share(by_second, "planted", "reliability", edits=1, reading="exact") == 1.0
    without = evaluate(subject, methods=second, cases=dataset())
    assert share(without, "planted", "reliability", edits=1, reading="exact") == 0.0


def test_an_answer_is_not_cut_to_the_length_of_the_gold_one(subject):
    """ "Limassol" begins as "Lim" does: as many tokens as the gold answer has, and the wrong answer looks right."""
    longer = Planted(lambda text, edits: next((f"{city(e)}assol" for e in edits if e.prompt in text), None))
    report = evaluate(subject, methods=longer, cases=dataset(), protocol=("free", "teacher-forced"))
    assert share(report, "planted", "reliability", edits=1) == 0.0
    assert {figure.comparability for figure in report.find(protocol="teacher-forced")} == {
        "teacher-forced (legacy, not comparable)"
    }


def test_what_the_model_knew_is_not_put_to_a_methods_credit(subject):
    """A fact that the unedited model states already tests nothing, and is counted instead of scored."""
    known = dataset(2)
    easy = [
        EvalCase(
            id=f"easy {number}",
            edits=(Edit(prompt=f"Thing {number} is", target=UNKNOWN),),
            probes=(probe("edit", f"Thing {number} is", [UNKNOWN], of_edit=0),),
        )
        for number in range(8)
    ]
    idle = Planted(lambda *_: None)
    report = evaluate(subject, methods=idle, cases=Dataset(name="a:b", cases=(*known.cases, *easy), files=()))
    assert share(report, "planted", "reliability", edits=1) == 0.0
    (summary,) = [one for one in report.cells if one.cell.method == "planted"]
    assert (summary.cases, summary.not_testable) == (10, 8)


def test_methods_that_are_told_the_edit_stand_apart(subject):
    report = evaluate(subject, methods=["ice-oracle", "ike"], cases=dataset(4), edits=4)
    groups = {figure.method: figure.comparability for figure in report.figures if figure.measure == "reliability"}
    assert groups["ike"] == "free"
    assert groups["ice-oracle"] == "free · told the edit"
