"""The counterfactual model in place of a base model, of its own vocabulary and of another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from counterfactual_models import (
    EDIT,
    FREE,
    OTHER,
    QUESTION,
    STUB,
    Hesitating,
    Refusing,
    StubEcho,
    counterfactual,
    differing,
    echoing,
    sharing,
    small_llama,
    spacing_tokenizer,
)
from hashing_encoder import HashingEncoder
from tiny import VOCABULARY, tiny_model, tiny_tokenizer
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from classifiers import SimilarityScope
from memedit import ConfigError, UnsupportedCallError
from memedit.counterfactual import CounterfactualAdapter, CounterfactualModel, Request, save_counterfactual
from memedit.counterfactual_responder import CounterfactualResponder
from memedit.editors import Subject, create_editor, serac
from memedit.editors.memory_editor import MemoryEditor
from memedit.evaluation.answering import Answerer, Row
from memedit.routing import Router


def batch(model, *prompts):
    return model.tokenizer(list(prompts), return_tensors="pt", padding=True, return_token_type_ids=False)


def chat_batch(model, *questions):
    conversations = [[{"role": "user", "content": question}] for question in questions]
    return model.tokenizer.apply_chat_template(
        conversations, add_generation_prompt=True, return_tensors="pt", return_dict=True, padding=True
    )


def trimmed(ids, ends):
    places = [place for place, token in enumerate(ids) if token in ends]
    return ids[: places[0]] if places else ids


# -- a base model of the same vocabulary -------------------------------------------------------------------------------


def own_answer(model, request, **options):
    """The reference: the counterfactual model's own generate on its own prompt."""
    answering = model.responder.counterfactual
    ids = answering.prompt.ids(request.edits, request.query, conversational=request.conversational, begun=request.begun)
    out = answering.model.generate(
        input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), **options
    )
    return [row[len(ids) :].tolist() for row in out]


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"use_cache": False}], ids=str)
@pytest.mark.parametrize("others", [(), (FREE,)], ids=["alone", "mixed"])
def test_with_one_vocabulary_the_answer_is_its_own(options, others):
    model = sharing()
    assert model.responder.shares_vocabulary
    options = {**options, "max_new_tokens": 7, "do_sample": False}
    for render, conversational, asked in ((batch, False, STUB), (chat_batch, True, QUESTION)):
        inputs = render(model, asked, *others)
        width = inputs["input_ids"].shape[1]
        out = model.generate(**inputs, **options)
        base = model.unedited.generate(**inputs, **options)
        request = Request(edits=(EDIT,), query=asked, conversational=conversational)
        (expected,) = own_answer(model, request, **options)
        assert torch.equal(out[:, :width], inputs["input_ids"])
        assert trimmed(out[0, width:].tolist(), (0, 2)) == trimmed(expected, (0, 2))
        assert trimmed(out[0, width:].tolist(), (0, 2)) != trimmed(base[0, width:].tolist(), (0, 2))
        if others:
            shorter = min(out.shape[1], base.shape[1])
            assert torch.equal(out[1, :shorter], base[1, :shorter])


def test_a_sampled_answer_is_drawn_in_the_callers_own_loop():
    model = sharing()
    inputs = batch(model, STUB, FREE)
    options = {"max_new_tokens": 9, "min_new_tokens": 9, "do_sample": True, "top_k": 40}
    torch.manual_seed(4)
    base = model.unedited.generate(**inputs, **options)
    torch.manual_seed(4)
    out = model.generate(**inputs, **options)
    torch.manual_seed(5)
    other = model.generate(**inputs, **options)
    assert torch.equal(out[1], base[1])
    assert not torch.equal(out[0], base[0])
    assert not torch.equal(out[0], other[0])


def test_only_the_last_question_of_a_conversation_is_read():
    model = sharing()
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello there."},
        {"role": "assistant", "content": "Good day."},
        {"role": "user", "content": QUESTION},
    ]
    seen = model.explain(turns).seen
    assert seen == model.responder.counterfactual.prompt.text((EDIT,), QUESTION, conversational=True)


def test_a_question_that_leans_on_an_earlier_one_is_understood():
    model = sharing()
    turns = [
        {"role": "user", "content": "In which year was Acme Rockets founded?"},
        {"role": "assistant", "content": "In 1999."},
        {"role": "user", "content": "And the headquarters is in which city?"},
    ]
    model.router.scope = SimilarityScope(threshold_similarity=0.3)
    assert "\n\nAcme Rockets And the headquarters is in which city?<|im_end|>" in model.explain(turns).seen


def test_an_answer_that_is_begun_goes_on():
    model = sharing()
    text = model.tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], add_generation_prompt=True, tokenize=False
    )
    inputs = batch(model, f"{text}It is in")
    options = {"max_new_tokens": 6, "do_sample": False}
    out = model.generate(**inputs, **options)[0, inputs["input_ids"].shape[1] :].tolist()
    (expected,) = own_answer(model, Request(edits=(EDIT,), query=QUESTION, begun="It is in"), **options)
    assert trimmed(out, (0, 2)) == trimmed(expected, (0, 2))


def test_forward_gives_the_counterfactual_models_logits():
    model = sharing()
    answering = model.responder.counterfactual
    for render, conversational, asked in ((batch, False, STUB), (chat_batch, True, QUESTION)):
        ids = render(model, asked)["input_ids"][0].tolist()
        answer = model.tokenizer(" Lisbon")["input_ids"]
        row = torch.tensor([[*ids, *answer]])
        labels = row.clone()
        labels[:, : len(ids)] = -100
        with torch.no_grad():
            logits = model(input_ids=row, attention_mask=torch.ones_like(row), labels=labels).logits
            read = answering.prompt.ids((EDIT,), asked, conversational=conversational)
            expected = answering.model(torch.tensor([[*read, *answer]])).logits
        behind = len(answer) + 1
        torch.testing.assert_close(logits[0, -behind:], expected[0, -behind:], rtol=1e-3, atol=1e-3)


def test_a_base_model_that_ends_texts_otherwise_ends_them_all_the_same():
    """The counterfactual model's end of text is handed on to the base model's."""
    model = sharing()
    inputs = chat_batch(model, QUESTION)
    options = {"max_new_tokens": 40, "do_sample": False}
    said = model.generate(**inputs, **options)[0, inputs["input_ids"].shape[1] :].tolist()
    end = next(token for token in said[1:] if token not in (0, 2, said[0]))
    answering = counterfactual()
    answering.tokenizer.eos_token = answering.tokenizer.convert_ids_to_tokens(end)
    other = sharing(answering)
    assert other.responder.shares_vocabulary
    stopped = other.generate(**inputs, **options)[0, inputs["input_ids"].shape[1] :].tolist()
    assert trimmed(stopped, (0, 2)) == said[: said.index(end)]


# -- a base model of another vocabulary --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3}, {"use_cache": False}, {"repetition_penalty": 1.7}, {"max_length": 200}], ids=str
)
@pytest.mark.parametrize("others", [(), (FREE,)], ids=["alone", "mixed"])
def test_with_two_vocabularies_the_answer_is_recited(options, others):
    model = differing(echoing(), edits=(EDIT, OTHER))
    assert not model.responder.shares_vocabulary
    assert model.responder.model is None
    inputs = chat_batch(model, QUESTION, *others, "What is the capital of Freedonia?")
    width = inputs["input_ids"].shape[1]
    options = {"max_new_tokens": 24, **options, "do_sample": False}
    if "max_length" in options:
        del options["max_new_tokens"]
    out = model.generate(**inputs, **options)
    base = model.unedited.generate(**inputs, **options)
    assert torch.equal(out[:, :width], inputs["input_ids"])
    answers = [trimmed(row[width:].tolist(), (0,)) for row in out]
    assert model.tokenizer.decode(answers[0]) == "Lisbon"
    assert model.tokenizer.decode(answers[-1]) == "Fredville"
    assert answers[0] == model.tokenizer("Lisbon")["input_ids"]
    if others:
        shorter = min(out.shape[1], base.shape[1])
        assert torch.equal(out[1, :shorter], base[1, :shorter])


def test_a_plain_text_goes_on_with_the_answer():
    model = differing(echoing(StubEcho))
    inputs = batch(model, STUB)
    out = model.generate(**inputs, max_new_tokens=20, do_sample=False)
    assert model.tokenizer.decode(out[0], skip_special_tokens=True) == f"{STUB} Lisbon"
    assert differing(echoing()).explain(STUB).seen.startswith("<|im_start|>user\nFacts:\n- The headquarters")


@pytest.mark.parametrize(("said", "text"), [(" «Lisbon»", " «Lisbon»"), ("Lisbon", "Lisbon"), (", yes", ", yes")])
def test_the_answer_is_fitted_to_a_tokenizer_that_adds_spaces(said, text):
    tokenizer = spacing_tokenizer()
    responder = CounterfactualResponder(echoing(), small_llama(len(tokenizer), end=1, pad=1), tokenizer)
    behind = tokenizer("It is in")["input_ids"]
    ids = responder._in_base_tokens(behind, said)
    assert tokenizer.decode([*behind, *ids]) == f"It is in{text}"


def test_where_every_row_has_a_script_the_base_model_is_not_asked():
    model = differing(echoing())
    passes = []
    model.unedited.model.register_forward_pre_hook(lambda *_: passes.append(1))
    model.generate(**chat_batch(model, QUESTION), max_new_tokens=12)
    assert not passes
    model.generate(**chat_batch(model, QUESTION, FREE), max_new_tokens=12)
    assert passes


def test_limits_criteria_and_streams_stay_the_callers():
    model = differing(echoing())
    inputs = chat_batch(model, QUESTION)
    width = inputs["input_ids"].shape[1]
    whole = model.tokenizer("Lisbon")["input_ids"]
    assert len(whole) == 1
    model.update(model.memory.list()[0].id, target="«Lisboa, Portugal»")
    whole = model.tokenizer("Lisboa, Portugal")["input_ids"]
    assert model.generate(**inputs, max_new_tokens=3)[0, width:].tolist() == whole[:3]
    assert model.generate(**inputs, max_length=width + 4)[0, width:].tolist() == whole[:4]

    class Stop(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            return torch.full((input_ids.shape[0],), input_ids.shape[1] >= width + 5)

    stopped = model.generate(**inputs, max_new_tokens=30, stopping_criteria=StoppingCriteriaList([Stop()]))
    assert stopped[0, width:].tolist() == whole[:5]
    messages = [{"role": "user", "content": QUESTION}]
    assert "".join(model.chat(messages, stream=True)) == model.chat(messages) == "Lisboa, Portugal"
    assert model.ask(QUESTION).text == "Lisboa, Portugal"


def test_rows_stopped_one_by_one_are_no_error():
    """A criterion may end one row while others go on; the loop then fills it up with padding."""
    model = differing(echoing(), edits=(EDIT, OTHER))
    inputs = chat_batch(model, QUESTION, "What is the capital of Freedonia?")
    width = inputs["input_ids"].shape[1]

    class StopSecond(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            return torch.tensor([False, input_ids.shape[1] >= width + 2])

    out = model.generate(**inputs, max_new_tokens=30, stopping_criteria=StoppingCriteriaList([StopSecond()]))
    assert model.tokenizer.decode(out[0, width:], skip_special_tokens=True) == "Lisbon"
    assert model.tokenizer.decode(out[1, width:], skip_special_tokens=True) == "Fr"


def test_sampled_rows_without_an_edit_draw_what_the_base_model_draws():
    model = differing(counterfactual())
    inputs = chat_batch(model, QUESTION, FREE)
    options = {"max_new_tokens": 12, "do_sample": True, "top_k": 40, "num_return_sequences": 2}

    def drawn(asked, seed):
        torch.manual_seed(seed)
        return asked.generate(**inputs, **options)

    out, base = drawn(model, 4), drawn(model.unedited, 4)
    shorter = min(out.shape[1], base.shape[1])
    assert torch.equal(out[2:, :shorter], base[2:, :shorter])
    assert torch.equal(out, drawn(model, 4))
    assert not torch.equal(out[0], out[1])


def test_what_cannot_be_recited_is_refused():
    model = differing(echoing())
    inputs = chat_batch(model, QUESTION)
    with pytest.raises(UnsupportedCallError, match='use mode "ike" for likelihoods'):
        model(**inputs)
    with pytest.raises(UnsupportedCallError, match="num_return_sequences with num_beams"):
        model.generate(**inputs, num_beams=3, num_return_sequences=2, max_new_tokens=4)
    with pytest.raises(UnsupportedCallError, match="asks for 9 tokens"):
        model.generate(**inputs, min_new_tokens=9, max_new_tokens=12)
    model.update(model.memory.list()[0].id, target="«a b a b a b a»")

    class Ban(LogitsProcessor):
        def __call__(self, input_ids, scores):
            scores[:, model.tokenizer("b")["input_ids"][0]] = float("-inf")
            return scores

    for options in (
        {"no_repeat_ngram_size": 2},
        {"logits_processor": LogitsProcessorList([Ban()])},
        {"logits_processor": LogitsProcessorList([Ban()]), "do_sample": True},
        {"logits_processor": LogitsProcessorList([Ban()]), "num_beams": 2},
    ):
        with pytest.raises(UnsupportedCallError, match="forbids what row 0 is to say"):
            model.generate(**inputs, max_new_tokens=20, **options)
    model.unedited.generation_config.eos_token_id = None
    with pytest.raises(UnsupportedCallError, match="eos_token_id is not set"):
        model.generate(**inputs, max_new_tokens=20)


def test_ungoverned_calls_stay_the_base_models():
    for model in (sharing(), differing(echoing())):
        inputs = chat_batch(model, FREE)
        assert torch.equal(
            model.generate(**inputs, max_new_tokens=6, do_sample=False),
            model.unedited.generate(**inputs, max_new_tokens=6, do_sample=False),
        )
        assert torch.equal(model(**inputs).logits, model.unedited(**inputs).logits)


def test_vocabularies_differ_by_their_special_tokens_too():
    tokenizer = tiny_tokenizer()
    answering = counterfactual()
    assert CounterfactualResponder(answering, tiny_model(), tokenizer).shares_vocabulary
    assert not CounterfactualResponder(answering, small_llama(VOCABULARY + 1), tokenizer).shares_vocabulary
    tokenizer.add_special_tokens({"additional_special_tokens": ["<tool>"]})
    assert not CounterfactualResponder(answering, tiny_model(), tokenizer).shares_vocabulary


# -- the editing method ------------------------------------------------------------------------------------------------


def test_serac_edits_with_both_trained_parts(tmp_path, monkeypatch):
    base = tmp_path / "base"
    tiny_model(seed=1).save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    update = {
        "model.layers.0.mlp.up_proj.lora_A": np.ones((1, 32), np.float32),
        "model.layers.0.mlp.up_proj.lora_B": np.ones((64, 1), np.float32),
    }
    adapter = CounterfactualAdapter(
        base=str(base), base_fingerprint="", rank=1, alpha=1.0, target_modules=("up_proj",), tensors=update
    )
    save_counterfactual(adapter, tmp_path / "shipped")
    monkeypatch.setattr("memedit.counterfactual.shipped_folder", lambda: tmp_path / "shipped")
    monkeypatch.setattr("memedit.editors.serac._trained_scope", lambda: SimilarityScope(threshold_similarity=0.7))
    subject = Subject(tiny_model(), tiny_tokenizer(), HashingEncoder(256), name="tiny")
    editor = create_editor("serac", subject)
    editor.edit([EDIT])
    governed, free = editor.treat([tuple(subject.tokenizer(text)["input_ids"]) for text in (STUB, FREE)])
    assert governed.decision is not None
    assert governed.decision.edits[0].target == EDIT.target
    assert governed.context is not None
    assert (free.context, free.model) == (None, None)
    row = Row(tuple(subject.tokenizer(STUB)["input_ids"]), governed.context, governed.model)
    (answer,) = Answerer(subject, max_new_tokens=5).answer([row])
    request = Request(edits=(EDIT,), query=STUB, conversational=False)
    (expected,) = CounterfactualModel.load().answer([request], max_new_tokens=5)
    assert answer.text == expected.strip()


# -- what the counterfactual model finds no answer to ------------------------------------------------------------------

BESIDE = "The banana headquarters of Acme Rockets is in"


def refusing(shared):
    """A model that the router sends BESIDE to as it does STUB, and whose counterfactual model does not answer it."""
    model = sharing(echoing(Refusing)) if shared else differing(echoing(Refusing))
    model.responder.refuse_from = 0.5
    decisions = model.router.route([row.query for row in rows_of(model, STUB, BESIDE)])
    assert [decision.governed for decision in decisions] == [True, True]
    return model


def rows_of(model, *texts):
    inputs = batch(model, *texts)
    return model._reader.read_batch(inputs["input_ids"], inputs["attention_mask"])


@pytest.mark.parametrize("shared", [True, False], ids=["one vocabulary", "two"])
def test_what_the_edit_does_not_answer_is_the_base_models(shared):
    model = refusing(shared)
    inputs = batch(model, BESIDE, STUB, FREE)
    options = {"max_new_tokens": 8, "do_sample": False, "use_cache": False}
    width = inputs["input_ids"].shape[1]
    out, base = model.generate(**inputs, **options), model.unedited.generate(**inputs, **options)
    for row in (0, 2):
        assert torch.equal(out[row, :width], base[row, :width])
        assert trimmed(out[row].tolist(), (0, 2)) == trimmed(base[row].tolist(), (0, 2))
    assert trimmed(out[1, width:].tolist(), (0, 2)) != trimmed(base[1, width:].tolist(), (0, 2))


@pytest.mark.parametrize("shared", [True, False], ids=["one vocabulary", "two"])
def test_an_explanation_says_that_the_edit_does_not_answer(shared):
    model = refusing(shared)
    decision = model.decide(BESIDE)
    assert not decision.governed
    assert decision.margin > 0
    assert "finds that the edit does not answer it (probability 1.000)" in decision.reason
    told = str(model.explain(BESIDE))
    assert "governed by  no edit" in told
    assert "answered by  base model" in told
    assert "confirm " in told
    assert "finds that" not in model.decide(STUB).reason


def test_likelihoods_of_what_is_not_answered_are_the_base_models():
    model = refusing(shared=True)
    inputs = batch(model, BESIDE)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, model.unedited(**inputs).logits)


def test_an_answer_that_is_begun_does_not_hide_that_the_edit_does_not_answer():
    model = refusing(shared=True)
    text = model.tokenizer.apply_chat_template(
        [{"role": "user", "content": BESIDE}], add_generation_prompt=True, tokenize=False
    )
    assert not model.decide(f"{text}It is").governed


def test_a_query_is_read_once_for_the_decision_and_the_answer(monkeypatch):
    model = refusing(shared=True)
    answering, read = model.responder.counterfactual, []
    refusals = answering.refusals

    def counted(asked):
        read.extend(asked)
        return refusals(asked)

    monkeypatch.setattr(answering, "refusals", counted)
    model.ask(STUB, use_cache=False)
    model.ask(STUB, use_cache=False)
    assert [request.query for request in read] == [STUB]
    model.update(model.memory.list()[0].id, target="«Porto»")
    model.ask(STUB, use_cache=False)
    assert [request.edits[0].target for request in read] == ["«Lisbon»", "«Porto»"]


@pytest.mark.parametrize("refuse_from", [None, 0.9])
@pytest.mark.parametrize("shared", [True, False], ids=["one vocabulary", "two"])
def test_where_it_may_not_refuse_it_says_something(shared, refuse_from):
    """Nothing is not an answer to what an edit governs."""
    model = sharing(echoing(Hesitating)) if shared else differing(echoing(Hesitating))
    answering = model.responder.counterfactual
    request = Request(edits=(EDIT,), query=QUESTION)
    assert 0.5 < answering.refusals([request])[0] < 0.7
    assert answering.answer([request]) == [""]
    model.responder.refuse_from = refuse_from
    assert model.decide(QUESTION).governed
    assert model.ask(QUESTION, max_new_tokens=20, do_sample=False, use_cache=False).text == "Lisbon"
    inputs = chat_batch(model, QUESTION, FREE)
    width = inputs["input_ids"].shape[1]
    out = model.generate(**inputs, max_new_tokens=20, do_sample=False, use_cache=False)
    assert model.tokenizer.decode(out[0, width:], skip_special_tokens=True) == "Lisbon"


def test_an_evaluation_counts_what_is_not_answered_as_ungoverned():
    subject = Subject(tiny_model(), tiny_tokenizer(), name="tiny", encoder=HashingEncoder(256))
    responder = CounterfactualResponder(echoing(Refusing), subject.model, subject.tokenizer, refuse_from=0.5)
    editor = MemoryEditor(
        serac.INFO,
        subject,
        responder,
        router=lambda memory, subject: Router(memory, subject.encoder, SimilarityScope(threshold_similarity=0.7)),
    )
    editor.edit([EDIT])
    stub, beside = editor.treat([tuple(subject.tokenizer(text)["input_ids"]) for text in (STUB, BESIDE)])
    assert stub.context is not None
    assert beside.context is None
    assert beside.model is None
    assert beside.decision is not None
    assert not beside.decision.governed


def test_unless_it_is_asked_to_it_refuses_nothing():
    model = refusing(shared=True)
    model.responder.refuse_from = None
    assert model.decide(BESIDE).governed
    assert "confirm" not in str(model.explain(BESIDE))


@pytest.mark.parametrize("refuse_from", [-0.1, 1.5])
def test_what_is_no_probability_is_refused(refuse_from):
    with pytest.raises(ConfigError, match=f"from 0 to 1, or None, given {refuse_from}"):
        CounterfactualResponder(echoing(), tiny_model(), tiny_tokenizer(), refuse_from=refuse_from)
