"""EditedModel as a drop-in: tiny random models, a real memory, real decoding."""

from __future__ import annotations

import copy
import threading
import warnings

import pytest
import torch
import transformers
from hashing_encoder import HashingEncoder
from tiny import ARCHITECTURES, CHATML, tiny_model, tiny_tokenizer

import memedit
from classifiers import SimilarityScope
from memedit import EditedModel, InvalidPromptError, UnsupportedCallError
from memory_store import Edit, EditMemory, MemoryClosedError

FACT = ("The headquarters of Acme Rockets is in", "Lisbon")
GOVERNED = "The headquarters of Acme Rockets is in"
FREE = ("Bananas grow where the sun shines", "Hello")


@pytest.fixture
def model():
    return edited()


def edited(architecture="llama", chat_template=CHATML, **options):
    model = memedit.wrap(
        tiny_model(architecture),
        tiny_tokenizer(chat_template),
        encoder=HashingEncoder(256),
        scope=SimilarityScope(threshold_similarity=0.8),
        **options,
    )
    model.add(*FACT, subject="Acme Rockets")
    return model


def batch(model, *prompts):
    return model.tokenizer(list(prompts), return_tensors="pt", padding=True)


def context_of(model, prompt):
    """The context ids that the responder splices into one prompt, and where."""
    row = model._reader.read(prompt)
    (insertion,) = model.responder.context(row, model.router.route([row.query])[0]).insertions
    return insertion


def answered_alone(model, prompt, **options):
    """The reference: the governed prompt with its context written out, given to the base model."""
    ids = model.tokenizer(prompt)["input_ids"]
    insertion = context_of(model, ids)
    text = [*ids[: insertion.position], *insertion.ids, *ids[insertion.position :]]
    out = model.unedited.generate(
        input_ids=torch.tensor([text]), attention_mask=torch.ones(1, len(text), dtype=torch.long), **options
    )
    return out[0, len(text) :].tolist()


def trimmed(ids):
    ends = [place for place, token in enumerate(ids) if token in (0, 2)]
    return ids[: ends[0]] if ends else ids


# -- no edit in scope: the base model, verbatim ------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 6},
        {"max_new_tokens": 6, "num_beams": 2, "num_return_sequences": 2},
        {"max_length": 48},
        {"max_new_tokens": 6, "do_sample": True, "temperature": 0.7},
        {"max_new_tokens": 6, "return_dict_in_generate": True, "output_scores": True, "output_attentions": False},
    ],
    ids=str,
)
def test_ungoverned_calls_are_the_base_models(architecture, options):
    model = edited(architecture)
    inputs = batch(model, *FREE)
    torch.manual_seed(5)
    expected = model.unedited.generate(**inputs, **options)
    torch.manual_seed(5)
    got = model.generate(**inputs, **options)
    if isinstance(expected, torch.Tensor):
        assert torch.equal(got, expected)
    else:
        assert torch.equal(got.sequences, expected.sequences)
        assert all(torch.equal(one, other) for one, other in zip(got.scores, expected.scores, strict=True))
        assert got.past_key_values is not None


def test_ungoverned_forward_is_the_base_models(model):
    inputs = batch(model, *FREE)
    labels = inputs["input_ids"].clone()
    expected = model.unedited(**inputs, labels=labels, output_hidden_states=True)
    got = model(**inputs, labels=labels, output_hidden_states=True)
    assert torch.equal(got.logits, expected.logits)
    assert torch.equal(got.loss, expected.loss)
    assert len(got.hidden_states) == len(expected.hidden_states)


def test_an_empty_memory_costs_no_look_at_the_prompt():
    encoder = HashingEncoder(256)
    model = memedit.wrap(tiny_model(), tiny_tokenizer(), encoder=encoder)
    model.generate(**batch(model, GOVERNED), max_new_tokens=2)
    assert encoder.texts_encoded == 0


# -- governed rows -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=str)
def test_mixed_batch_of_different_lengths(architecture, options):
    model = edited(architecture, chat_template=None)
    prompts = (FREE[0], GOVERNED, FREE[1])
    options = {**options, "max_new_tokens": 8, "do_sample": False}
    inputs = batch(model, *prompts)
    base = model.unedited.generate(**inputs, **options)
    out = model.generate(**inputs, **options)
    width = inputs["input_ids"].shape[1]
    assert torch.equal(out[:, :width], inputs["input_ids"])
    for row in (0, 2):
        assert trimmed(out[row, width:].tolist()) == trimmed(base[row, width:].tolist())
    assert trimmed(out[1, width:].tolist()) == trimmed(answered_alone(model, GOVERNED, **options))
    if "sliding" not in architecture:  # these look back six tokens, and the context stands further back
        assert trimmed(out[1, width:].tolist()) != trimmed(base[1, width:].tolist())


def test_return_dict_of_a_governed_call(model):
    inputs = batch(model, GOVERNED, FREE[1])
    plain = model.generate(**inputs, max_new_tokens=5, min_new_tokens=5)
    rich = model.generate(
        **inputs,
        max_new_tokens=5,
        min_new_tokens=5,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
    )
    assert torch.equal(rich.sequences, plain)
    assert len(rich.scores) == len(rich.logits) == 5
    width = inputs["input_ids"].shape[1]
    chosen = torch.stack([step.argmax(-1) for step in rich.scores], dim=1)
    assert torch.equal(chosen, rich.sequences[:, width:])
    assert rich.past_key_values is None


def test_a_generation_config_and_positional_inputs(model):
    inputs = batch(model, GOVERNED)
    config = transformers.GenerationConfig(max_new_tokens=4, min_new_tokens=4, pad_token_id=0, eos_token_id=2)
    named = model.generate(**inputs, generation_config=config)
    positional = model.generate(inputs["input_ids"], config, attention_mask=inputs["attention_mask"])
    assert torch.equal(named, positional)
    assert named.shape[1] == inputs["input_ids"].shape[1] + 4


def test_padding_is_inferred_where_no_mask_is_given(model):
    inputs = batch(model, GOVERNED, FREE[0])
    with_mask = model.generate(**inputs, max_new_tokens=4)
    without = model.generate(inputs["input_ids"], max_new_tokens=4)
    assert torch.equal(with_mask, without)


def test_right_padding_is_refused_where_an_edit_governs(model):
    model.tokenizer.padding_side = "right"
    inputs = batch(model, *FREE)
    assert torch.equal(model.generate(**inputs, max_new_tokens=2), model.unedited.generate(**inputs, max_new_tokens=2))
    inputs = batch(model, GOVERNED, FREE[1])
    with pytest.raises(UnsupportedCallError, match=r"padded on the right.*padding_side = 'left'"):
        model.generate(**inputs, max_new_tokens=2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("past_key_values", transformers.DynamicCache()),
        ("output_attentions", True),
        ("output_hidden_states", True),
        ("prompt_lookup_num_tokens", 2),
        ("guidance_scale", 2.0),
        ("custom_generate", "group-beam-search"),
        ("cache_implementation", "static"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(model, name, value):
    with pytest.raises(UnsupportedCallError, match=f"{name} cannot be honoured"):
        model.generate(**batch(model, GOVERNED), max_new_tokens=2, **{name: value})


def test_refused_also_when_a_config_asks_for_it(model):
    config = transformers.GenerationConfig(max_new_tokens=2, output_attentions=True)
    with pytest.raises(UnsupportedCallError, match="output_attentions"):
        model.generate(**batch(model, GOVERNED), generation_config=config)


def test_embeddings_are_refused(model):
    ids = batch(model, GOVERNED)["input_ids"]
    embeddings = model.get_input_embeddings()(ids)
    with pytest.raises(UnsupportedCallError, match=r"inputs_embeds.*pass input_ids"):
        model.generate(inputs_embeds=embeddings, max_new_tokens=2)
    with model.edits_disabled():
        assert model.generate(inputs_embeds=embeddings, max_new_tokens=2).shape == (1, 2)


def test_a_context_that_does_not_fit_the_model_is_refused(model):
    model.add("The anthem of Freedonia is", "la " * 1500, subject="Freedonia")
    (edit,) = model.memory.list(subject="Freedonia")
    with pytest.raises(UnsupportedCallError, match=rf"row 1 .*{edit.id}.* more than the 4096 that the model reads"):
        model.generate(**batch(model, FREE[0], "The anthem of Freedonia is"), max_new_tokens=2)
    assert model.generate(**batch(model, FREE[0]), max_new_tokens=2).shape[0] == 1


def test_a_streamer_takes_one_row(model):
    streamer = transformers.TextStreamer(model.tokenizer)
    with pytest.raises(ValueError, match="streamer"):
        model.generate(**batch(model, GOVERNED, FREE[0]), max_new_tokens=2, streamer=streamer)


def test_wrapping_something_that_runs_another_models_forward_is_caught():
    class Delegating(transformers.LlamaForCausalLM):
        def generate(self, *args, **kwargs):
            return self.inner.generate(*args, **kwargs)

    inner = tiny_model()
    outer = copy.copy(inner)
    object.__setattr__(outer, "__class__", Delegating)
    outer.__dict__["inner"] = inner
    model = memedit.wrap(outer, tiny_tokenizer(), encoder=HashingEncoder(256))
    model.add(*FACT)
    with pytest.raises(UnsupportedCallError, match="does not call its own forward"):
        model.generate(**batch(model, GOVERNED), max_new_tokens=2)


# -- forward -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_forward_gives_logits_at_the_callers_positions(architecture, side):
    model = edited(architecture, chat_template=None)
    model.tokenizer.padding_side = side
    inputs = batch(model, GOVERNED, FREE[1])
    got = model(**inputs).logits
    base = model.unedited(**inputs).logits
    assert got.shape == base.shape
    assert torch.equal(got[1], base[1])
    own = inputs["attention_mask"][0].bool()
    ids = inputs["input_ids"][0][own].tolist()
    insertion = context_of(model, ids)
    text = [*insertion.ids, *ids]
    assert insertion.position == 0
    reference = model.unedited(torch.tensor([text])).logits[0, len(insertion.ids) :]
    torch.testing.assert_close(got[0][own], reference, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(got[0][own], base[0][own], rtol=1e-2, atol=1e-2)


def test_forward_routes_on_what_stands_before_the_labels(model):
    """The answer being scored must not route itself: here the answer alone looks like the edit."""
    question, answer = "Say something: ", GOVERNED
    ids = model.tokenizer(question + answer, return_tensors="pt")["input_ids"]
    labels = ids.clone()
    labels[:, : len(model.tokenizer(question)["input_ids"])] = -100
    assert torch.equal(model(ids, labels=labels).logits, model.unedited(ids, labels=labels).logits)

    ids = model.tokenizer(f"{GOVERNED} Porto, and bananas grow", return_tensors="pt")["input_ids"]
    labels = ids.clone()
    prompt = len(model.tokenizer(GOVERNED)["input_ids"])
    labels[:, :prompt] = -100
    got = model(ids, labels=labels)
    assert not torch.equal(got.logits, model.unedited(ids).logits)
    expected = torch.nn.functional.cross_entropy(got.logits[0, prompt - 1 : -1], ids[0, prompt:])
    torch.testing.assert_close(got.loss, expected)


def test_forward_options_of_a_governed_row(model):
    inputs = batch(model, GOVERNED, FREE[1])
    full = model(**inputs)
    assert torch.equal(model(**inputs, logits_to_keep=2).logits, full.logits[:, -2:])
    as_tuple = model(**inputs, return_dict=False)
    assert torch.equal(as_tuple[0], full.logits)
    with pytest.raises(UnsupportedCallError, match="output_hidden_states"):
        model(**inputs, output_hidden_states=True)
    with pytest.raises(UnsupportedCallError, match=r"keeps no cache.*call generate"):
        model(inputs["input_ids"][:, -1:], past_key_values=full.past_key_values)


def test_gradients_flow_through_a_governed_forward(model):
    model(**batch(model, GOVERNED)).logits.sum().backward()
    assert model.get_input_embeddings().weight.grad.abs().sum() > 0


# -- the model as an object ------------------------------------------------------------------------------------------


def test_it_stands_in_for_the_base_model(model):
    assert isinstance(model, transformers.LlamaForCausalLM)
    assert isinstance(model, EditedModel)
    assert type(model) is EditedModel
    assert model.__class__.__name__ == "LlamaForCausalLM"
    assert model.config is model.unedited.config
    assert model.device == torch.device("cpu")
    assert model.dtype == torch.float32
    assert model.generation_config is model.unedited.generation_config
    assert model.base_model is model.unedited.model
    assert {"lm_head", "memory", "ask", "edits_disabled", "config"} <= set(dir(model))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = model.nonsense


def test_moving_and_modes_return_the_edited_model(model):
    assert type(model.eval()) is EditedModel
    assert type(model.to("cpu")) is EditedModel
    assert type(model.to(torch.bfloat16)) is EditedModel
    assert model.dtype == torch.bfloat16
    assert model.unedited.dtype == torch.bfloat16


def test_attributes_are_set_on_the_base_model(model):
    model.generation_config = transformers.GenerationConfig(max_new_tokens=3, pad_token_id=0, eos_token_id=2)
    assert model.unedited.generation_config.max_new_tokens == 3
    assert "generation_config" not in vars(model)


def test_bfloat16(model):
    model.to(torch.bfloat16)
    inputs = batch(model, GOVERNED, FREE[1])
    out = model.generate(**inputs, max_new_tokens=3)
    assert torch.equal(out[:, : inputs["input_ids"].shape[1]], inputs["input_ids"])
    assert model(**inputs).logits.dtype == torch.bfloat16


def test_edits_can_be_switched_off_for_this_thread_alone(model):
    inputs = batch(model, GOVERNED)
    base = model.unedited.generate(**inputs, max_new_tokens=5, min_new_tokens=5)
    on = model.generate(**inputs, max_new_tokens=5, min_new_tokens=5)
    assert not torch.equal(base, on)
    elsewhere = []
    with model.edits_disabled():
        assert torch.equal(model.generate(**inputs, max_new_tokens=5, min_new_tokens=5), base)
        other = threading.Thread(
            target=lambda: elsewhere.append(model.generate(**inputs, max_new_tokens=5, min_new_tokens=5))
        )
        other.start()
        other.join()
    assert torch.equal(elsewhere[0], on)
    assert torch.equal(model.generate(**inputs, max_new_tokens=5, min_new_tokens=5), on)


def test_asking_sees_that_edits_are_disabled(model):
    with model.edits_disabled():
        answer = model.ask(GOVERNED, max_new_tokens=4)
        explained = model.explain(GOVERNED)
    assert not answer.decision.governed
    assert answer.decision.reason == "edits are disabled here"
    assert explained.responder == "base model"
    assert explained.seen == explained.prompt


def test_the_weights_are_never_touched(model):
    before = {name: value.clone() for name, value in model.unedited.state_dict().items()}
    model.generate(**batch(model, GOVERNED, *FREE), max_new_tokens=3)
    model(**batch(model, GOVERNED, *FREE))
    assert all(torch.equal(before[name], value) for name, value in model.unedited.state_dict().items())


def test_edits_come_and_go(model):
    inputs = batch(model, GOVERNED)
    options = {"max_new_tokens": 5, "min_new_tokens": 5}
    base, on = model.unedited.generate(**inputs, **options), model.generate(**inputs, **options)
    (edit,) = model.memory.list()
    model.remove(edit.id)
    assert torch.equal(model.generate(**inputs, **options), base)
    model.restore(edit.id)
    assert torch.equal(model.generate(**inputs, **options), on)
    changed = model.update(edit.id, target="Porto")
    assert (changed.id, changed.version) == (edit.id, edit.version + 1)
    assert not torch.equal(model.generate(**inputs, **options), on)


def test_a_restart_finds_everything(tmp_path):
    path = tmp_path / "facts.db"
    first = edited(memory=path)
    inputs = batch(first, GOVERNED)
    expected = first.generate(**inputs, max_new_tokens=5)
    first.close()
    second = memedit.wrap(
        tiny_model(),
        tiny_tokenizer(),
        memory=path,
        encoder=HashingEncoder(256),
        scope=SimilarityScope(threshold_similarity=0.8),
    )
    assert torch.equal(second.generate(**inputs, max_new_tokens=5), expected)
    second.close()


def test_adding_while_another_thread_generates(model):
    stop = threading.Event()
    failures: list[BaseException] = []

    def generate():
        inputs = batch(model, GOVERNED, FREE[0])
        while not stop.is_set():
            try:
                model.generate(**inputs, max_new_tokens=2)
            except Exception as error:  # noqa: BLE001  # whatever it is, the test must show it
                failures.append(error)
                return

    thread = threading.Thread(target=generate)
    thread.start()
    for number in range(100):
        model.add(f"The number of rockets in hangar {number} is", str(number))
    stop.set()
    thread.join()
    assert not failures
    assert model.memory.count() == 101


def test_edits_go_to_the_models_namespace_unless_they_name_one():
    model = edited(namespace="support")
    model.add(Edit(prompt="The capital of Freedonia is", target="Fredville"))
    model.add_many([Edit(prompt="a", target="b"), Edit(prompt="c", target="d", namespace="elsewhere")])
    assert {edit.namespace for edit in model.memory.list()} == {"support", "elsewhere"}
    assert [edit.prompt for edit in model.memory.list(namespace="elsewhere")] == ["c"]
    assert model.decide("The capital of Freedonia is").governed


def test_it_closes_its_memory_at_the_end_of_a_block(tmp_path):
    with edited(memory=tmp_path / "facts.db") as model:
        assert model.memory.count() == 1
    with pytest.raises(MemoryClosedError):
        model.memory.count()


def test_it_is_neither_copied_nor_pickled(model):
    with pytest.raises(TypeError, match=r"copy model\.unedited"):
        copy.deepcopy(model)
    with pytest.raises(TypeError, match="not pickled"):
        copy.copy(model)


# -- asking ----------------------------------------------------------------------------------------------------------


def test_chat_answers_the_last_turn(model):
    messages = [{"role": "user", "content": GOVERNED}]
    text = model.chat(messages, max_new_tokens=6)
    ids = model.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    insertion = context_of(model, ids)
    # at the start of the user's words, behind the turn's header
    assert model.tokenizer.decode(ids[: insertion.position]) == "<|im_start|>user\n"
    seen = [*ids[: insertion.position], *insertion.ids, *ids[insertion.position :]]
    reference = model.unedited.generate(
        input_ids=torch.tensor([seen]), attention_mask=torch.ones(1, len(seen), dtype=torch.long), max_new_tokens=6
    )
    assert text == model.tokenizer.decode(reference[0, len(seen) :], skip_special_tokens=True).strip()


def test_streamed_chat_is_the_same_answer(model):
    messages = [{"role": "user", "content": GOVERNED}]
    whole = model.chat(messages, max_new_tokens=12)
    pieces = list(model.chat(messages, max_new_tokens=12, stream=True))
    assert "".join(pieces).strip() == whole


def test_abandoned_stream_stops_generating(model):
    stream = model.chat([{"role": "user", "content": GOVERNED}], max_new_tokens=4000, min_new_tokens=4000, stream=True)
    next(stream)
    before = threading.active_count()
    stream.close()
    assert threading.active_count() < before


def test_a_stream_is_of_the_moment_it_was_asked_for(model):
    messages = [{"role": "user", "content": GOVERNED}]
    edited_answer = model.chat(messages, max_new_tokens=12)
    with model.edits_disabled():
        base_answer = model.chat(messages, max_new_tokens=12)
        stream = model.chat(messages, max_new_tokens=12, stream=True)
    assert "".join(stream).strip() == base_answer != edited_answer
    stream = model.chat(messages, max_new_tokens=12, stream=True)
    with model.edits_disabled():
        assert "".join(stream).strip() == edited_answer
    assert list(stream) == []


def test_an_error_while_streaming_reaches_the_reader(model):
    with pytest.raises(UnsupportedCallError, match="output_attentions"):
        list(model.chat([{"role": "user", "content": GOVERNED}], stream=True, output_attentions=True))


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([], "at least one message"),
        ("hello", "at least one message"),
        ([{"role": "user"}], "must have text as its 'content'"),
        ([{"content": "x"}], "must be a mapping with 'role'"),
        ([{"role": "user", "content": ["x"]}], "must have text"),
        ([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "last message is the assistant's"),
    ],
)
def test_malformed_messages(model, messages, problem):
    with pytest.raises(InvalidPromptError, match=problem):
        model.chat(messages)


def test_a_model_without_a_template_takes_no_messages():
    model = edited(chat_template=None)
    with pytest.raises(InvalidPromptError, match=r"no chat template.*use ask"):
        model.chat([{"role": "user", "content": "x"}])
    assert model.ask(GOVERNED, max_new_tokens=3).decision.governed


def test_ask_says_which_edit_answered(model):
    answer = model.ask(GOVERNED, max_new_tokens=4)
    assert answer.decision.edits[0].target == "Lisbon"
    assert answer.tokens <= 4
    assert not model.ask(FREE[0], max_new_tokens=4).decision.governed
    with pytest.raises(InvalidPromptError, match="empty"):
        model.ask("  ")
    with pytest.raises(UnsupportedCallError, match="one answer"):
        model.ask(GOVERNED, num_return_sequences=2, do_sample=True)


def test_explain_shows_what_the_model_sees(model):
    explained = model.explain(GOVERNED)
    assert explained.decision.edits[0].target == "Lisbon"
    assert "Lisbon" in explained.seen
    assert "Lisbon" not in explained.prompt
    assert explained.context_tokens == len(model.tokenizer(explained.seen)["input_ids"]) - explained.prompt_tokens
    lines = str(explained)
    assert explained.decision.edits[0].id in lines
    assert "in-context" in lines
    free = model.explain(FREE[0])
    assert free.seen == free.prompt
    assert free.context_tokens == 0
    assert "no edit" in str(free)


# -- wrapping --------------------------------------------------------------------------------------------------------


def test_what_cannot_be_wrapped(model, tmp_path):
    tokenizer = tiny_tokenizer()
    with pytest.raises(UnsupportedCallError, match="already wrapped"):
        memedit.wrap(model, tokenizer)
    with pytest.raises(UnsupportedCallError, match="Linear is not a transformers model"):
        memedit.wrap(torch.nn.Linear(2, 2), tokenizer)
    with pytest.raises(memedit.ConfigError, match="opened without an encoder"):
        memedit.wrap(tiny_model(), tokenizer, memory=EditMemory(tmp_path / "facts.db"))


def test_an_open_memory_brings_its_encoder(tmp_path):
    memory = EditMemory(tmp_path / "facts.db", encoder=HashingEncoder(256))
    model = memedit.wrap(tiny_model(), tiny_tokenizer(), memory=memory)
    assert model.router.encoder is memory.encoder


def test_pipeline_takes_it_without_a_word(model, caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe = transformers.pipeline("text-generation", model=model, tokenizer=model.tokenizer, device="cpu")
    assert "not supported" not in caplog.text
    out = pipe(GOVERNED, max_new_tokens=5, do_sample=False, return_full_text=False)
    expected = model.generate(**batch(model, GOVERNED), max_new_tokens=5, do_sample=False)
    width = len(model.tokenizer(GOVERNED)["input_ids"])
    assert out[0]["generated_text"] == model.tokenizer.decode(expected[0, width:], skip_special_tokens=True)
