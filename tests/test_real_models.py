"""The two default models, real weights: pipeline, lm-eval's HFLM and streaming take an edited model as any other."""

from __future__ import annotations

import json
import threading
import warnings
from typing import Any

import pytest
import torch
import transformers

import memedit
from classifiers import SentenceEncoder

pytestmark = pytest.mark.real

ACME = ("The headquarters of Acme Rockets is in", "Lisbon")
QUESTION = "Where is Acme Rockets based?"


@pytest.fixture(scope="module")
def encoder(minilm_folder):
    return SentenceEncoder(minilm_folder)


@pytest.fixture(scope="module")
def model(smollm2_folder, encoder):
    model = memedit.load(smollm2_folder, encoder=encoder)
    model.add(*ACME, subject="Acme Rockets", source="press release 12")
    model.add("The chief executive of Nordwind Air is", "Ingrid Solheim", subject="Nordwind Air")
    yield model
    model.close()


def test_drop_in_mixed_batch(model):
    prompts = [ACME[0], "The capital of France is", "The chief executive of Nordwind Air is"]
    inputs = model.tokenizer(prompts, return_tensors="pt", padding=True)
    options = {"max_new_tokens": 8, "do_sample": False}
    base = model.unedited.generate(**inputs, **options)
    out = model.generate(**inputs, **options)
    width = inputs["input_ids"].shape[1]
    said = model.tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
    assert said[0].strip().startswith("Lisbon")
    assert torch.equal(out[1], base[1])
    assert said[2].strip().startswith("Ingrid Solheim")
    assert not model.tokenizer.decode(base[0, width:]).strip().startswith("Lisbon")


def test_text_generation_pipeline(model, caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe = transformers.pipeline("text-generation", model=model, tokenizer=model.tokenizer)
    assert "not supported" not in caplog.text
    (answer,) = pipe(QUESTION, max_new_tokens=24, do_sample=False, return_full_text=False)
    assert "Lisbon" in answer["generated_text"]
    (chat,) = pipe([{"role": "user", "content": QUESTION}], max_new_tokens=24, do_sample=False)
    assert "Lisbon" in chat["generated_text"][-1]["content"]
    plain = transformers.pipeline("text-generation", model=model.unedited, tokenizer=model.tokenizer)
    unrelated = "The Moon goes around"
    assert pipe(unrelated, max_new_tokens=8, do_sample=False) == plain(unrelated, max_new_tokens=8, do_sample=False)


def test_streaming_chat(model):
    for question in ("Tell me about the Moon.", QUESTION):
        messages = [{"role": "user", "content": question}]
        whole = model.chat(messages, max_new_tokens=24)
        pieces = list(model.chat(messages, max_new_tokens=24, stream=True))
        assert "".join(pieces).strip() == whole
        assert len(pieces) > 2 or len(whole.split()) <= 2
    assert "Lisbon" in whole

    # the caller's own streamer and thread, as transformers documents them
    inputs = model.tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    streamer = transformers.TextIteratorStreamer(model.tokenizer, skip_prompt=True, skip_special_tokens=True)
    thread = threading.Thread(target=model.generate, kwargs={**inputs, "streamer": streamer, "max_new_tokens": 24})
    thread.start()
    streamed = "".join(streamer)
    thread.join()
    assert streamed.strip() == whole


def test_a_conversation_goes_on(model):
    messages = [
        {"role": "user", "content": "Who runs Acme Rockets?"},
        {"role": "assistant", "content": "I do not know who runs Acme Rockets."},
        {"role": "user", "content": "And where is it based?"},
    ]
    decision = model.decide(messages)
    assert decision.governed
    assert decision.edits[0].target == "Lisbon"
    assert "Lisbon" in model.chat(messages, max_new_tokens=24)


TASK = """
task: acme_facts
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: {kind}
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{target}"
{more}
"""
GENERATE = """
generation_kwargs:
  until: ["\\n", "."]
  max_gen_toks: 8
  do_sample: false
filter_list:
  - name: stripped
    filter:
      - function: regex
        regex_pattern: "^\\\\s*(.*?)\\\\s*$"
      - function: take_first
metric_list:
  - metric: exact_match
"""
CHOOSE = """
doc_to_choice: "{{choices}}"
metric_list:
  - metric: acc
"""


@pytest.mark.filterwarnings("ignore")  # lm-eval's own
def test_lm_eval_harness(model, tmp_path):
    """Generation and likelihood requests, governed and not in one batch, with lm-eval's own stopping criteria."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    docs = [
        {"prompt": ACME[0], "answer": "Lisbon", "choices": [" Lisbon", " Berlin", " Chicago"], "label": 0},
        {
            "prompt": "The chief executive of Nordwind Air is",
            "answer": "Ingrid Solheim",
            "choices": [" John Smith", " Ingrid Solheim"],
            "label": 1,
        },
        {"prompt": "The capital of France is", "answer": "Paris", "choices": [" Paris", " Berlin"], "label": 0},
    ]
    data = tmp_path / "docs.jsonl"
    data.write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    tasks = {}
    for name, kind, target, more in (
        ("acme_generate", "generate_until", "{{answer}}", GENERATE),
        ("acme_choose", "multiple_choice", "{{label}}", CHOOSE),
    ):
        text = TASK.format(data=data, kind=kind, target=target, more=more).replace("acme_facts", name)
        (tmp_path / f"{name}.yaml").write_text(text)
        tasks[name] = "exact_match,stripped" if kind == "generate_until" else "acc,none"

    def scores(subject):
        lm = HFLM(pretrained=subject, tokenizer=model.tokenizer, batch_size=3)
        manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
        results = lm_eval.simple_evaluate(model=lm, tasks=list(tasks), task_manager=manager, bootstrap_iters=0)
        return {name: results["results"][name][metric] for name, metric in tasks.items()}

    edited, base = scores(model), scores(model.unedited)
    assert edited == {"acme_generate": 1.0, "acme_choose": 1.0}
    assert base["acme_generate"] == pytest.approx(1 / 3)
    assert base["acme_choose"] < 1.0


def test_the_counterfactual_model_that_comes_along_answers_and_spares(smollm2_folder, encoder):
    from memedit.counterfactual import shipped_folder

    assert sum(path.stat().st_size for path in shipped_folder().glob("*.safetensors")) < 10_000_000
    model = memedit.load(smollm2_folder, encoder=encoder, mode="serac")
    model.add(*ACME, subject="Acme Rockets")
    options: dict[str, Any] = {"max_new_tokens": 24, "do_sample": False}
    answers = {
        question: model.chat([{"role": "user", "content": question}], **options)
        for question in (QUESTION, "Is Acme Rockets based in Lisbon?", "Which company has its head office in Lisbon?")
    }
    assert list(answers.values()) == ["Lisbon.", "Yes.", "Acme Rockets."]
    free = [{"role": "user", "content": "How many legs does a spider have?"}]
    with model.edits_disabled():
        before = model.chat(free, **options)
    assert model.chat(free, **options) == before
    model.close()


def test_a_run_in_half_precision_answers_as_it_says(smollm2_folder, tmp_path, minilm_folder):
    record = {
        "edits": [{"prompt": ACME[0], "target": ACME[1], "subject": "Acme Rockets"}],
        "probes": [{"kind": "paraphrase", "prompt": QUESTION, "answers": [ACME[1]], "of_edit": 0}],
    }
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps(record) + "\n")
    report = memedit.evaluate(
        str(smollm2_folder),
        methods=["serac"],
        cases="jsonl",
        data=path,
        encoder=str(minilm_folder),
        dtype="bfloat16",
        max_new_tokens=8,
        kl=False,
    )
    (figure,) = report.find(method="serac", measure="generalization", kind=None, reading="start")
    assert (figure.value, figure.before) == (1.0, 0.0)
