"""Who answers: the mode asked for, or what the self-test finds."""

from __future__ import annotations

import json

import pytest
from counterfactual_models import (
    EDIT,
    FREE,
    QUESTION,
    Echo,
    Refusing,
    counterfactual,
    differing,
    echoing,
    edited,
    small_llama,
)
from hashing_encoder import HashingEncoder
from tiny import tiny_model, tiny_tokenizer

import memedit
from memedit import PLAIN_FORM, ConfigError, InContextResponder, ModelNotFoundError
from memedit.config import read_config
from memedit.modes import Verdict, choose_mode, self_test, self_test_facts

FACTS = [
    {
        "prompt": f"The home of {name} is «{target}» or",
        "target": target,
        "subject": name,
        "paraphrase": f"{name} lives in",
        "question": f"Where is {name} at home?",
        "near_miss": f"Who is {name}, other than «nobody»?",
    }
    for name, target in (("Ann", "Rome"), ("Bob", "Oslo"), ("Cid", "Lima"))
]


@pytest.fixture(autouse=True)
def facts(monkeypatch, tmp_path):
    """Facts that a model which repeats what stands in «guillemets» answers rightly; a cache of its own."""
    monkeypatch.setattr("memedit.modes._data", lambda: "\n".join(map(json.dumps, FACTS)))
    monkeypatch.setenv("MEMEDIT_CACHE", str(tmp_path / "cache"))
    self_test_facts.cache_clear()
    yield
    self_test_facts.cache_clear()


def echoing_base():
    base = Echo(tiny_model().config).eval()
    base.generation_config.use_cache = False
    return base


def test_the_shipped_facts_can_be_told_apart(monkeypatch):
    monkeypatch.undo()
    self_test_facts.cache_clear()
    found = self_test_facts()
    assert len(found) == 12
    for fact in found:
        assert len({fact.prompt, fact.paraphrase, fact.question, fact.near_miss}) == 4
        assert fact.subject in fact.prompt
        for asked in (fact.prompt, fact.paraphrase, fact.question, fact.near_miss):
            assert fact.target.casefold() not in asked.casefold()


def test_the_self_test_counts_answers_and_near_misses():
    base, tokenizer = echoing_base(), tiny_tokenizer()
    right = self_test(base, tokenizer, InContextResponder(tokenizer, chat_form=PLAIN_FORM))
    assert right == Verdict(right=6, of=6, spared=3, of_spared=3)
    assert right.score == 1.0
    wrong = self_test(tiny_model(), tokenizer, InContextResponder(tokenizer))
    assert wrong == Verdict(right=0, of=6, spared=3, of_spared=3)
    assert wrong.score == pytest.approx(0.07)
    assert (
        Verdict(right=24, of=24, spared=5, of_spared=12).score > Verdict(right=23, of=24, spared=10, of_spared=12).score
    )


def test_the_self_test_of_a_model_without_a_template():
    model = differing(echoing())
    model.tokenizer.chat_template = None
    tokenizer = model.tokenizer
    found = self_test(model.unedited, tokenizer, InContextResponder(tokenizer))
    assert (found.of, found.of_spared) == (6, 3)


def test_near_misses_that_the_counterfactual_model_does_not_answer_are_spared(monkeypatch):
    """An `Echo` answers every near miss with the fact, a `Refusing` one leaves them to the base model."""
    facts = [{**fact, "near_miss": f"Which banana does {fact['subject']} eat?"} for fact in FACTS]
    monkeypatch.setattr("memedit.modes._data", lambda: "\n".join(map(json.dumps, facts)))
    self_test_facts.cache_clear()
    for kind, spared in ((Echo, 0), (Refusing, 3)):
        model = differing(echoing(kind))
        model.responder.refuse_from = 0.5
        found = self_test(model.unedited, model.tokenizer, model.responder)
        assert found == Verdict(right=6, of=6, spared=spared, of_spared=3)


@pytest.mark.parametrize("shared", [True, False])
def test_auto_takes_the_better_and_says_why(shared):
    model = edited(tiny_model(), tiny_tokenizer(), counterfactual()) if shared else differing(echoing())
    choice = choose_mode("auto", model.unedited, model.tokenizer, counterfactual=model.responder.counterfactual)
    if shared:  # a random model is no better than a random one
        assert choice.mode == "ike"
        assert "as good, and needs no second model" in choice.reason
        return
    assert choice.mode == "serac"
    assert "3 made-up facts, serac 6 of 6 answered, 3 of 3 near misses spared; ike 0 of 6 answered" in choice.reason
    assert choice.responder.name == "counterfactual model tiny"


def test_auto_stays_with_the_base_model_that_obeys():
    base, tokenizer = echoing_base(), tiny_tokenizer()
    assert choose_mode("auto", base, tokenizer, counterfactual=counterfactual()).mode == "ike"


def test_a_model_is_tried_once(tmp_path, monkeypatch):
    model = differing(echoing())
    answering = model.responder.counterfactual
    tried = []

    def counted(*given):
        tried.append(given)
        return self_test(*given)

    monkeypatch.setattr("memedit.modes.self_test", counted)

    def choose(base=model.unedited):
        return choose_mode("auto", base, model.tokenizer, counterfactual=answering)

    first = choose()
    assert len(tried) == 2
    assert choose().reason == first.reason
    assert len(tried) == 2
    (kept,) = (tmp_path / "cache" / "modes").glob("*.json")
    kept.write_text("{")
    assert choose().reason == first.reason
    assert len(tried) == 4
    choose(small_llama(len(model.tokenizer), layers=1, end=0))
    assert len(tried) == 6


def test_a_cache_that_cannot_be_written_costs_time_alone(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEMEDIT_CACHE", str(tmp_path / "file"))
    model = differing(echoing())
    choice = choose_mode("auto", model.unedited, model.tokenizer, counterfactual=model.responder.counterfactual)
    assert choice.mode == "serac"


def test_without_a_counterfactual_model(tmp_path, monkeypatch):
    monkeypatch.setattr("memedit.counterfactual.shipped_folder", lambda: tmp_path)
    model, tokenizer = tiny_model(), tiny_tokenizer()
    choice = choose_mode("auto", model, tokenizer)
    assert choice.mode == "ike"
    assert "comes with no counterfactual model" in choice.reason
    with pytest.raises(ModelNotFoundError, match="memedit train counterfactual"):
        choose_mode("serac", model, tokenizer)
    with pytest.raises(ConfigError, match="no mode 'serak'"):
        choose_mode("serak", model, tokenizer)  # type: ignore[arg-type]  # what is tested


def test_a_model_says_who_answers_and_why():
    plain = memedit.wrap(tiny_model(), tiny_tokenizer(), encoder=HashingEncoder(256))
    assert (plain.mode, plain.mode_reason) == ("ike", "asked for")
    model = differing(echoing())
    assert (model.mode, model.mode_reason) == ("serac", "asked for")
    assert model.explain(QUESTION).responder == "counterfactual model tiny"
    chosen = memedit.wrap(
        model.unedited,
        model.tokenizer,
        memory=model.memory,
        mode="auto",
        counterfactual=model.responder.counterfactual,
    )
    assert chosen.mode == "serac"
    explained = chosen.explain(EDIT.prompt)
    assert explained.responder.startswith("counterfactual model tiny (chosen by auto: in a self-test")
    assert chosen.explain(FREE).responder == "base model"
    own = InContextResponder(model.tokenizer)
    chosen.responder = own
    assert (chosen.mode, chosen.mode_reason) == ("in-context", "a responder was given")
    given = memedit.wrap(model.unedited, model.tokenizer, memory=model.memory, responder=own)
    assert (given.mode, given.mode_reason) == ("in-context", "a responder was given")


def test_the_mode_is_a_setting(tmp_path):
    file = tmp_path / "memedit.toml"
    file.write_text('mode = "auto"')
    assert read_config(file).mode == "auto"
    file.write_text('mode = "sera"')
    with pytest.raises(ConfigError, match=r"'mode' must be one of \"ike\", \"serac\", \"auto\""):
        read_config(file)
