"""Causal tracing: equal to one pass a restoration on every family, and the answers to what can go wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import transformers as tf
from slow_tracing import SlowTracer
from test_architectures import MODELS
from tiny import VOCABULARY, tiny_model, tiny_tokenizer

from memedit.architectures import ARCHITECTURES
from memedit.errors import ConfigError, DataFileError, InvalidPromptError, UnsupportedCallError
from memedit.locate.noise import common_subjects, draw, embedding_deviation
from memedit.locate.records import Fact, FactTrace
from memedit.locate.restoring import Kind, restorations
from memedit.locate.tracing import TraceConfig, Tracer

KINDS: tuple[Kind, ...] = get_args(Kind)
CONFIG = TraceConfig(kinds=KINDS, window=2, samples=2, noise=1.5)
FACT = Fact(prompt="On AB lie", subject="AB")
SHORT = Fact(prompt="I AB a", subject="AB")
TOLERANCE = 2e-6
"""GPT-J attends in 32-bit precision, whatever the model's own is."""


def family(name: str) -> Any:
    """A tiny random model whose vocabulary the byte tokenizer fits and whose outputs depend on its inputs."""
    torch.manual_seed(0)
    model = MODELS[name]()
    model.resize_token_embeddings(VOCABULARY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6)
    return model.eval().double()


def own_answer(model: Any, fact: Fact = FACT) -> list[int]:
    """The model's likeliest next token, as its own call has it."""
    with torch.no_grad():
        logits = model(torch.tensor([tiny_tokenizer(None)(fact.prompt)["input_ids"]])).logits
    return [int(logits[0, -1].argmax())]


def by_definition(model: Any, trace: FactTrace, config: TraceConfig, fact: Fact, answer: list[int]) -> dict[str, Any]:
    """The clean and corrupted probabilities and all indirect effects, one pass at a time."""
    tokenizer = tiny_tokenizer(None)
    ids = tokenizer(fact.prompt)["input_ids"]
    width = model.get_input_embeddings().weight.shape[1]
    count = trace.subject_end - trace.subject_start
    noise = trace.deviation * draw(fact.prompt, seed=config.seed, samples=config.samples, tokens=count, width=width)
    runs = [SlowTracer(model, [*ids, *answer[:-1]], one, trace.subject_start, answer) for one in noise]
    layers = runs[0].layers
    found: dict[str, Any] = {
        "clean": runs[0].clean,
        "corrupted": torch.tensor([run.corrupted for run in runs], dtype=torch.float64),
    }
    for kind in config.kinds:
        restored = [
            [[run.restored(kind, token, layer, config.window) for layer in range(layers)] for token in range(len(ids))]
            for run in runs
        ]
        gains = torch.tensor(restored, dtype=torch.float64) - found["corrupted"][:, None, None]
        found[kind] = gains.mean(0)
    return found


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_family_is_traced_as_defined(name: str) -> None:
    model, tokenizer = family(name), tiny_tokenizer(None)
    trace = Tracer(model, tokenizer, CONFIG).trace(SHORT)
    expected = by_definition(model, trace, CONFIG, SHORT, own_answer(model, SHORT))
    assert trace.clean == pytest.approx(expected["clean"], abs=TOLERANCE)
    assert trace.corrupted_runs == pytest.approx(expected["corrupted"].tolist(), abs=TOLERANCE)
    assert trace.total_effect == pytest.approx(trace.clean - float(expected["corrupted"].mean()), abs=TOLERANCE)
    for kind in KINDS:
        ours = torch.tensor(trace.effect(kind).indirect, dtype=torch.float64)
        torch.testing.assert_close(ours, expected[kind], atol=TOLERANCE, rtol=0)
        assert ours.abs().max() > 1e-4, f"{kind} has no effect, so that nothing was compared"


@pytest.mark.parametrize(
    ("name", "attention"),
    [("mistral-sliding", "sdpa"), ("gemma3-sliding", "sdpa"), ("gemma3-sliding", "eager"), ("llama", "eager")],
)
def test_a_prompt_longer_than_the_window_of_attention(name: str, attention: str) -> None:
    """Also with small batches, which cut the restorations of one layer apart."""
    model = tiny_model(name).double()
    model.set_attn_implementation(attention)
    config = replace(CONFIG, batch_tokens=24)
    trace = Tracer(model, tiny_tokenizer(None), config).trace(FACT)
    expected = by_definition(model, trace, config, FACT, own_answer(model))
    for kind in KINDS:
        ours = torch.tensor(trace.effect(kind).indirect, dtype=torch.float64)
        torch.testing.assert_close(ours, expected[kind], atol=TOLERANCE, rtol=0)


def test_an_answer_of_several_tokens_as_a_whole() -> None:
    model, tokenizer = family("llama"), tiny_tokenizer(None)
    config, fact = replace(CONFIG, score="whole", window=1), replace(FACT, answer="xy")
    trace = Tracer(model, tokenizer, config).trace(fact)
    expected = by_definition(model, trace, config, fact, tokenizer(" xy")["input_ids"])
    assert trace.clean == pytest.approx(expected["clean"], rel=1e-6)
    for kind in KINDS:
        ours = torch.tensor(trace.effect(kind).indirect, dtype=torch.float64)
        torch.testing.assert_close(ours, expected[kind], atol=1e-12, rtol=1e-5)
    assert trace.clean < Tracer(model, tokenizer, replace(config, score="first")).trace(fact).clean


def test_a_window_is_cut_off_at_the_ends() -> None:
    spans = [(one.first, one.last) for one in restorations("mlp", 30, window=10)]
    assert spans[0] == (0, 4)
    assert spans[5] == (0, 9)
    assert spans[15] == (10, 19)
    assert spans[29] == (24, 29)
    assert [(one.first, one.last) for one in restorations("attention", 3, window=1)] == [(0, 0), (1, 1), (2, 2)]
    assert [(one.first, one.last) for one in restorations("hidden", 3, window=10)] == [(0, 0), (1, 1), (2, 2)]
    with pytest.raises(ConfigError, match="a window has at least 1 layer, not 0"):
        restorations("mlp", 3, window=0)


# What a trace says.


def tracer(config: TraceConfig = CONFIG, model: Any = None) -> Tracer:
    return Tracer(tiny_model() if model is None else model, tiny_tokenizer(None), config)


def test_before_the_subject_nothing_has_an_effect() -> None:
    trace = tracer().trace(FACT)
    assert (trace.subject_start, trace.subject_end) == (3, 5)
    assert trace.tokens == tuple("On AB lie")
    for effect in trace.effects:
        assert all(value == 0 for row in effect.indirect[:3] for value in row)
        assert any(value != 0 for row in effect.indirect[3:] for value in row)


def test_putting_back_the_last_hidden_state_gives_the_clean_answer() -> None:
    """At the last token and layer the whole total effect comes back; at other tokens of that layer nothing does."""
    trace = tracer().trace(FACT)
    last = [row[-1] for row in trace.effect("hidden").indirect]
    assert last[-1] == pytest.approx(trace.total_effect, abs=1e-6)
    assert last[:-1] == pytest.approx([0] * (len(last) - 1), abs=1e-6)


def test_the_answer_is_the_models_own_where_none_is_given() -> None:
    model = tiny_model()
    trace = tracer(model=model).trace(FACT)
    assert trace.known
    assert trace.answer == trace.says == tiny_tokenizer(None).decode(own_answer(model))


def test_an_answer_that_the_model_does_not_give_is_said_to_be_unknown() -> None:
    trace = tracer().trace(replace(FACT, answer="Rome"))
    assert not trace.known
    assert trace.answer == " Rome"
    assert trace.notes[-1].startswith("the model itself says ")
    assert trace.notes[-1].endswith(", not 'Rome'")
    assert not tracer().knows(replace(FACT, answer="Rome"))


def test_what_the_model_says_instead_is_its_own_greedy_continuation() -> None:
    """Not what it would say behind the beginning of the answer that was expected."""
    model, tokenizer = tiny_model(), tiny_tokenizer(None)
    ids = tokenizer(FACT.prompt)["input_ids"]
    expected = model.generate(torch.tensor([ids]), max_new_tokens=5, do_sample=False, eos_token_id=None)[0, len(ids) :]
    assert tracer(model=model).trace(replace(FACT, answer="Rome")).says == tokenizer.decode(expected)


def test_of_an_answer_of_several_tokens_it_is_said_what_is_measured() -> None:
    first = tracer().trace(replace(FACT, answer="Rome"))
    assert first.notes[0] == "the answer has 5 tokens; measured is its first, ''"  # the space before it
    whole = tracer(replace(CONFIG, score="whole")).trace(replace(FACT, answer="Rome"))
    assert not any("measured" in note for note in whole.notes)


def test_a_fact_is_known_if_every_token_of_its_answer_is_the_likeliest() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer(None)
    ids = tokenizer("On AB lie")["input_ids"]
    space = tokenizer(" ")["input_ids"]
    with torch.no_grad():
        # what the model says behind the space that stands before every answer
        said = int(model(torch.tensor([[*ids, *space]])).logits[0, -1].argmax())
        first = int(model(torch.tensor([ids])).logits[0, -1].argmax())
    knows = Tracer(model, tokenizer, CONFIG).knows
    assert first != space[0]
    assert not knows(replace(FACT, answer=tokenizer.decode([said])))
    assert Tracer(model, tokenizer, CONFIG).trace(replace(FACT, answer="x")).says[0] == tokenizer.decode([first])


def test_the_subject_that_stands_last_is_taken_and_it_is_said() -> None:
    trace = tracer().trace(Fact(prompt="AB and AB lie", subject="AB"))
    assert (trace.subject_start, trace.subject_end) == (7, 9)
    assert trace.notes == ("the subject stands in the prompt twice; the last one was corrupted",)


@pytest.mark.parametrize(
    ("fact", "message"),
    [
        (Fact(prompt="On AB lie", subject="CD"), r"subject 'CD' does not stand in the prompt 'On AB lie'; give it"),
        (Fact(prompt="On AB lie", subject="ab"), r"did you mean 'AB'\?"),
        (Fact(prompt=" ", subject="AB"), r"a prompt and its subject are needed"),
        (Fact(prompt="On AB lie", subject=" "), r"a prompt and its subject are needed"),
        (Fact(prompt="On AB lie", subject="AB", answer=" "), r"the answer to 'On AB lie' is empty"),
        (Fact(prompt="AB" * 2050, subject="AB"), r"the prompt has 4100 tokens; the model reads 4096 at most"),
    ],
)  # fmt: skip
def test_a_fact_that_cannot_be_traced(fact: Fact, message: str) -> None:
    with pytest.raises(InvalidPromptError, match=message):
        tracer().trace(fact)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kinds": ("mpl",)}, "'mpl' cannot be put back; what can: hidden, mlp"),
        ({"kinds": ()}, "say what is put back"),
        ({"window": 0}, "window must be at least 1, not 0"),
        ({"samples": 0}, "samples must be at least 1"),
        ({"noise": 0.0}, "noise must be above 0"),
        ({"noise": float("nan")}, "noise must be above 0"),
        ({"score": "last"}, "score is 'first' or 'whole'"),
        ({"precision": "int8"}, "precision is one of float32, bfloat16"),
    ],
)
def test_a_wrong_configuration(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(CONFIG, **values)


def test_a_model_of_another_family_is_refused() -> None:
    model = tf.OPTForCausalLM(
        tf.OPTConfig(
            vocab_size=8, hidden_size=8, ffn_dim=8, num_hidden_layers=1, num_attention_heads=1, word_embed_proj_dim=8
        )
    )
    with pytest.raises(UnsupportedCallError, match=r"model_type 'opt'.*supported: GPT-2"):
        tracer(model=model)


def test_layers_that_do_not_run_by_themselves_as_the_model_runs_them_are_found_out() -> None:
    """Here the model does something behind its final norm that the layers do not know of."""
    model = tiny_model()
    model.register_forward_hook(lambda _, __, output: setattr(output, "logits", output.logits / 2))
    with pytest.raises(UnsupportedCallError, match="away from its own; it cannot be traced"):
        tracer(replace(CONFIG, noise=1e-3), model).trace(FACT)


def test_the_model_stays_as_it_is() -> None:
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    tracer(model=model).trace(FACT)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_trace_goes_to_json_and_back() -> None:
    trace = tracer().trace(FACT)
    assert FactTrace.from_json(trace.to_json()) == trace
    broken = trace.to_json()
    del broken["effects"][0]["window"]
    with pytest.raises(DataFileError, match="no field 'window'"):
        FactTrace.from_json(broken)


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    tracer().trace(FACT, report=lambda done, total: told.append((done, total)))
    assert told == [(done * len(KINDS) * 3, 6 * len(KINDS) * 3) for done in range(1, 7)]


# The noise.


def test_noise_is_the_same_for_the_same_text_and_seed() -> None:
    first = draw("a", seed=0, samples=4, tokens=2, width=100)
    assert torch.equal(first, draw("a", seed=0, samples=4, tokens=2, width=100))
    assert torch.equal(first[:2], draw("a", seed=0, samples=2, tokens=2, width=100))
    assert not torch.equal(first, draw("a", seed=1, samples=4, tokens=2, width=100))
    assert not torch.equal(first, draw("b", seed=0, samples=4, tokens=2, width=100))
    assert float(first.std()) == pytest.approx(1, abs=0.1)


def test_its_strength_is_the_deviation_of_the_embeddings_as_the_layer_gives_them() -> None:
    """Gemma scales its embeddings by the root of their width."""
    tokenizer = tiny_tokenizer(None)
    for name, scale in (("llama", 1.0), ("gemma3-sliding", 32**0.5)):
        model = tiny_model(name)
        ids = tokenizer("Rome")["input_ids"] + tokenizer("Paris")["input_ids"]
        values = scale * model.get_input_embeddings().weight[ids].detach().double()
        by_hand = ((values - values.mean()).square().sum() / (values.numel() - 1)).sqrt()
        assert embedding_deviation(model, tokenizer, ["Rome", "Paris"]) == pytest.approx(float(by_hand), rel=1e-5)
    with pytest.raises(ConfigError, match="over a body of subjects; it is empty"):
        embedding_deviation(model, tokenizer, [])


def test_the_body_of_subjects_that_comes_with_it() -> None:
    subjects = common_subjects()
    assert len(subjects) == len(set(subjects)) > 200
    assert "Marie Curie" in subjects


# A real model.

REAL_FACTS = (
    Fact(prompt="The Eiffel Tower is in", subject="The Eiffel Tower", answer="Paris"),
    Fact(prompt="The capital of Japan is", subject="Japan", answer="Tokyo"),
    Fact(prompt="Beats Music is owned by", subject="Beats Music", answer="Apple"),
)


@pytest.mark.real
def test_a_real_model_is_traced_as_defined(smollm2_folder: Path) -> None:
    """Ours in 32-bit precision, the reference in 64-bit, one restoration a pass, at places all over the grids."""
    from memedit.pretrained import load_model

    model, tokenizer = load_model(smollm2_folder, dtype=torch.float32)
    exact, _ = load_model(smollm2_folder, dtype=torch.float64)
    config = TraceConfig(samples=1, kinds=KINDS)
    for number, fact in enumerate(REAL_FACTS):
        trace = Tracer(model, tokenizer, config).trace(fact)
        ids = tokenizer(fact.prompt)["input_ids"]
        answer = tokenizer(f" {fact.answer}")["input_ids"][:1]
        shape = (1, trace.subject_end - trace.subject_start, model.config.hidden_size)
        noise = trace.deviation * draw(fact.prompt, seed=0, samples=shape[0], tokens=shape[1], width=shape[2])
        slow = SlowTracer(exact, ids, noise[0], trace.subject_start, answer)
        assert trace.clean == pytest.approx(slow.clean, abs=1e-4)
        assert trace.corrupted == pytest.approx(slow.corrupted, abs=1e-4)
        places = [(trace.subject_end - 1, 3 + 9 * number), (len(ids) - 1, 28 - 9 * number)]
        for effect in trace.effects:
            for token, layer in places:
                by_definition = slow.restored(effect.kind, token, layer, effect.window) - slow.corrupted
                assert effect.indirect[token][layer] == pytest.approx(by_definition, abs=1e-4)
