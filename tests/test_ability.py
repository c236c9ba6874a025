"""Ability: perplexity, divergence and multiple choice against plain transformers calls, one text at a time."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hashing_encoder import HashingEncoder
from tiny import tiny_model, tiny_tokenizer
from tokenizers import processors

from memedit import wrap
from memedit.editors.base import UneditedModel
from memedit.editors.editor import EditCost, MethodInfo, TokenIds, Treatment
from memedit.editors.memory_editor import MemoryEditor
from memedit.editors.subject import Subject
from memedit.errors import ConfigError, DataFileError, UnsupportedCallError
from memedit.evaluation import ability
from memedit.evaluation.ability import (
    Ability,
    AbilityBench,
    AbilitySettings,
    ChoiceScore,
    TextScore,
    Unedited,
    mmlu,
    perplexity,
)
from memedit.evaluation.ability_data import AbilityData, ChoiceQuestion, drawn, stratified, token_windows
from memedit.injection import Context, Insertion
from memedit.loading import load_model
from memedit.responders import InContextResponder
from memory_store import Edit

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("MEMEDIT_DATA") or ROOT.parent / "shared" / "data")
INFO = MethodInfo(
    name="planted", title="Planted", group="none", changes="memory", paper="none", summary="What a test plants."
)
TEXTS = (
    "Homarus gammarus is a species of lobster from the eastern Atlantic Ocean, and it may grow to sixty centimetres.",
    "In life, the lobsters are blue.",
    "Ab",
)
ACME = Edit(prompt="The headquarters of Acme Rockets is in", target="Lisbon", subject="Acme Rockets")


class Inserting:
    """Puts tokens into the texts that it is told, where it is told; the others it leaves alone."""

    def __init__(self, contexts: dict[TokenIds, tuple[Insertion, ...]], model: Any = None) -> None:
        self.info = INFO
        self.contexts = contexts
        self.model = model

    def edit(self, edits: Sequence[Edit]) -> EditCost:
        return EditCost(edits=len(edits), seconds=0.0)

    def treat(self, prompts: Sequence[TokenIds]) -> list[Treatment]:
        found = [self.contexts.get(tuple(prompt)) for prompt in prompts]
        return [
            Treatment() if insertions is None else Treatment(context=Context(insertions), model=self.model)
            for insertions in found
        ]

    def undo(self) -> None:
        self.contexts = {}


class Nudging:
    """Moves every weight a little."""

    def __init__(self, subject: Subject, by: float) -> None:
        self.info = replace(INFO, changes="weights")
        with torch.no_grad():
            for parameter in subject.model.parameters():
                parameter.add_(by * torch.randn(parameter.shape, generator=torch.manual_seed(1)))

    edit = Inserting.edit

    def treat(self, prompts: Sequence[TokenIds]) -> list[Treatment]:
        return [Treatment() for _ in prompts]

    def undo(self) -> None:
        raise NotImplementedError


def subject_of(architecture: str = "llama", tokenizer: Any = None) -> Subject:
    return Subject(tiny_model(architecture), tokenizer or tiny_tokenizer(), HashingEncoder(), name=architecture)


def ids_of(subject: Subject, *texts: str) -> list[tuple[int, ...]]:
    return [tuple(subject.tokenizer(text)["input_ids"]) for text in texts]


def plain_logits(model: Any, ids: Sequence[int]) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(torch.tensor([list(ids)])).logits[0].double()
    return logits


def plain_perplexity(model: Any, texts: Sequence[Sequence[int]]) -> float:
    """From the losses that transformers itself computes, one text at a time."""
    nats, tokens = 0.0, 0
    for text in texts:
        ids = torch.tensor([list(text)])
        with torch.no_grad():
            loss = float(model(input_ids=ids, labels=ids).loss)
        nats, tokens = nats + loss * (len(text) - 1), tokens + len(text) - 1
    return math.exp(nats / tokens)


def forward_calls(model: Any) -> list[int]:
    """A list that gets the number of rows of every pass from now on."""
    calls: list[int] = []
    model.register_forward_hook(
        lambda module, args, kwargs, out: calls.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    return calls


# -- perplexity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2", "mistral-sliding", "gemma3-sliding"])
def test_perplexity_is_that_of_the_losses_of_transformers(architecture: str) -> None:
    subject = subject_of(architecture)
    texts = ids_of(subject, *TEXTS)
    score = perplexity(subject, UneditedModel(), texts, unedited=Unedited(subject))
    assert score.perplexity == pytest.approx(plain_perplexity(subject.model, texts), rel=1e-5)
    assert score.perplexity == score.before
    assert score.kl_per_token == 0
    assert (score.texts, score.treated, score.tokens) == (3, 0, sum(map(len, texts)) - 3)


def test_small_passes_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subject_of()
    texts = ids_of(subject, *TEXTS)
    whole = perplexity(subject, UneditedModel(), texts, unedited=Unedited(subject))
    monkeypatch.setattr(ability, "_LOGIT_BYTES", 1)
    monkeypatch.setattr(ability, "_SOFTMAX_TOKENS", 3)
    calls = forward_calls(subject.model)
    one_by_one = perplexity(subject, UneditedModel(), texts, unedited=Unedited(subject))
    assert one_by_one.perplexity == pytest.approx(whole.perplexity, rel=1e-5)
    assert calls == [1, 1, 1]


def test_a_short_text_is_not_padded_to_a_long_one() -> None:
    subject = subject_of()
    texts = [(5,) * length for length in (90, 11, 60, 10, 46, 44)]
    calls = forward_calls(subject.model)
    perplexity(subject, UneditedModel(), texts, unedited=Unedited(subject))
    assert calls == [3, 1, 2]


def test_a_text_that_is_left_alone_is_not_computed_again() -> None:
    subject = subject_of()
    texts = ids_of(subject, *TEXTS)
    unedited = Unedited(subject)
    calls = forward_calls(subject.model)
    first = perplexity(subject, UneditedModel(), texts, unedited=unedited)
    assert sum(calls) == 3
    again = perplexity(subject, Inserting({}), texts, unedited=unedited)
    assert sum(calls) == 3
    assert (again.perplexity, again.before) == (first.perplexity, first.perplexity)
    perplexity(subject, Inserting({texts[1]: ()}), texts, unedited=unedited)
    assert sum(calls) == 5  # the one text, edited and unedited


@pytest.mark.parametrize("position", [0, 1, 7])
def test_own_tokens_are_scored_with_the_context_before_the_models_eyes(position: int) -> None:
    subject = subject_of()
    texts = ids_of(subject, *TEXTS)
    own, extra = texts[1], tuple(ids_of(subject, "Blue? Red!")[0])
    editor = Inserting({own: (Insertion(position, extra),)})
    score = perplexity(subject, editor, texts, unedited=Unedited(subject))

    spliced = own[:position] + extra + own[position:]
    seen = plain_logits(subject.model, spliced).log_softmax(-1)
    alone = plain_logits(subject.model, own).log_softmax(-1)
    nats, kl = 0.0, 0.0
    for place in range(1, len(own)):
        moved = place if place < position else place + len(extra)
        nats -= float(seen[moved - 1, own[place]])
        kl += float(torch.nn.functional.kl_div(seen[moved - 1], alone[place - 1], log_target=True, reduction="sum"))
    others = [texts[0], texts[2]]
    nats += math.log(plain_perplexity(subject.model, others)) * (sum(map(len, others)) - 2)
    assert score.perplexity == pytest.approx(math.exp(nats / score.tokens), rel=1e-5)
    assert score.kl_per_token == pytest.approx(kl / score.tokens, rel=1e-4)
    assert score.before == pytest.approx(plain_perplexity(subject.model, texts), rel=1e-5)
    assert score.perplexity != pytest.approx(score.before, rel=1e-3)
    assert score.treated == 1


def test_a_memory_editor_scores_as_the_edited_model_does() -> None:
    subject = subject_of(tokenizer=tiny_tokenizer(chat_template=None))
    editor = MemoryEditor(INFO, subject, InContextResponder(subject.tokenizer))
    editor.edit([ACME])
    texts = ids_of(subject, ACME.prompt, *TEXTS)
    score = perplexity(subject, editor, texts, unedited=Unedited(subject))
    assert score.treated == 1
    with wrap(subject.model, subject.tokenizer, encoder=HashingEncoder()) as model:
        model.add(ACME)
        loss = 0.0
        for text in texts:
            ids = torch.tensor([text])
            assert (len(model.decide(subject.tokenizer.decode(text)).edits) == 1) == (text is texts[0])
            log_probs = model(ids).logits[0].detach().double().log_softmax(-1)
            loss -= float(log_probs[:-1].gather(1, ids[0, 1:, None]).sum())
    assert score.perplexity == pytest.approx(math.exp(loss / score.tokens), rel=1e-5)
    assert score.perplexity != pytest.approx(score.before, rel=1e-3)


def test_another_model_that_answers_is_the_one_that_is_scored() -> None:
    subject, other = subject_of(), tiny_model(seed=5)
    texts = ids_of(subject, *TEXTS)
    editor = Inserting(dict.fromkeys(texts, ()), model=other)
    score = perplexity(subject, editor, texts, unedited=Unedited(subject))
    assert score.perplexity == pytest.approx(plain_perplexity(other, texts), rel=1e-5)
    assert score.before == pytest.approx(plain_perplexity(subject.model, texts), rel=1e-5)
    assert score.treated == 3


def test_changed_weights_beside_the_kept_model() -> None:
    subject = subject_of()
    texts = ids_of(subject, *TEXTS)
    before = plain_perplexity(subject.model, texts)
    alone = [plain_logits(subject.model, text).log_softmax(-1)[:-1] for text in texts]
    unedited = Unedited(subject, keep_model=True)
    score = perplexity(subject, Nudging(subject, 0.05), texts, unedited=unedited)
    now = [plain_logits(subject.model, text).log_softmax(-1)[:-1] for text in texts]
    kl = sum(
        float(torch.nn.functional.kl_div(edited, base, log_target=True, reduction="sum"))
        for edited, base in zip(now, alone, strict=True)
    )
    assert score.before == pytest.approx(before, rel=1e-5)
    assert score.perplexity == pytest.approx(plain_perplexity(subject.model, texts), rel=1e-5)
    assert score.kl_per_token == pytest.approx(kl / score.tokens, rel=1e-4)
    assert score.kl_per_token > 1e-3
    assert score.treated == 3


def test_weights_that_did_not_change_move_nothing() -> None:
    subject = subject_of()
    texts = ids_of(subject, *TEXTS)
    score = perplexity(subject, Nudging(subject, 0.0), texts, unedited=Unedited(subject, keep_model=True))
    assert score.perplexity == score.before
    assert score.kl_per_token == 0


def test_changed_weights_without_the_kept_model() -> None:
    subject = subject_of()
    unedited = Unedited(subject)
    with pytest.raises(UnsupportedCallError, match="keep_model=True"):
        perplexity(subject, Nudging(subject, 0.1), ids_of(subject, *TEXTS), unedited=unedited)


def test_a_text_that_is_too_long_or_too_short() -> None:
    subject = subject_of()
    longest = subject.model.config.max_position_embeddings
    with pytest.raises(UnsupportedCallError, match=str(longest + 1)):
        perplexity(subject, UneditedModel(), [(5,) * (longest + 1)], unedited=Unedited(subject))
    with pytest.raises(ConfigError, match="two tokens"):
        perplexity(subject, UneditedModel(), [(5,), ()], unedited=Unedited(subject))


# -- multiple choice ---------------------------------------------------------------------------------------------------

QUESTIONS = tuple(
    ChoiceQuestion(question=f"What is {n} + {n}?", topic="school_mathematics", choices=tuple("2468"), answer=n - 1)
    for n in (1, 2, 3, 4)
)


def plain_choice(model: Any, tokenizer: Any, question: ChoiceQuestion, before: Sequence[int] = ()) -> int:
    """The letter whose whole text behind the prompt is likeliest, one pass a letter."""
    likelihoods = []
    for letter in "ABCD":
        bare = tokenizer(question.prompt)["input_ids"]
        whole = tokenizer(f"{question.prompt} {letter}")["input_ids"]
        log_probs = plain_logits(model, [*before, *whole]).log_softmax(-1)
        places = range(len(before) + len(bare), len(before) + len(whole))
        likelihoods.append(sum(float(log_probs[place - 1, [*before, *whole][place]]) for place in places))
    return max(range(4), key=likelihoods.__getitem__)


def test_the_prompt_is_the_benchmarks() -> None:
    assert QUESTIONS[0].prompt == (
        "The following are multiple choice questions (with answers) about school mathematics.\n\n"
        "What is 1 + 1?\nA. 2\nB. 4\nC. 6\nD. 8\nAnswer:"
    )


@pytest.mark.parametrize("seed", range(3))
def test_choices_are_those_of_the_whole_likelihoods(seed: int) -> None:
    subject = Subject(tiny_model(seed=seed), tiny_tokenizer(), HashingEncoder(), name="tiny")
    score = mmlu(subject, UneditedModel(), QUESTIONS, unedited=Unedited(subject))
    chosen = [plain_choice(subject.model, subject.tokenizer, question) for question in QUESTIONS]
    right = [choice == question.answer for choice, question in zip(chosen, QUESTIONS, strict=True)]
    assert score.accuracy == score.before == sum(right) / 4
    assert (score.questions, score.treated, score.changed) == (4, 0, 0)


@pytest.mark.parametrize("text", ["B B B B B ", "!!!"])
def test_a_treated_question_is_chosen_with_its_context(text: str) -> None:
    subject = subject_of("gpt2")
    prompt, extra = ids_of(subject, QUESTIONS[2].prompt, text)
    plain = [plain_choice(subject.model, subject.tokenizer, question) for question in QUESTIONS]
    now = list(plain)
    now[2] = plain_choice(subject.model, subject.tokenizer, QUESTIONS[2], before=extra)
    assert now[2] != plain[2], "the context is to make this model choose otherwise"
    score = mmlu(subject, Inserting({prompt: (Insertion(0, extra),)}), QUESTIONS, unedited=Unedited(subject))
    assert (score.treated, score.changed) == (1, 1)
    answers = [question.answer for question in QUESTIONS]
    assert score.accuracy == sum(map(int.__eq__, now, answers)) / 4
    assert score.before == sum(map(int.__eq__, plain, answers)) / 4


def test_nothing_to_ask() -> None:
    subject = subject_of()
    with pytest.raises(ConfigError, match="no questions"):
        mmlu(subject, UneditedModel(), [], unedited=Unedited(subject))


# -- the bench ---------------------------------------------------------------------------------------------------------

TINY_DATA = AbilityData(wikitext="The lobsters are blue. " * 200, sentences=TEXTS, questions=QUESTIONS)
SETTINGS = AbilitySettings(wikitext_tokens=1000, sentences=2, questions=3)


def test_the_bench_asks_the_unedited_model_once() -> None:
    subject = subject_of()
    bench = AbilityBench(subject, TINY_DATA, settings=SETTINGS)
    calls = forward_calls(subject.model)
    first = bench.measure(UneditedModel())
    assert first.wikitext is not None
    assert first.me_ppl is not None
    assert first.mmlu is not None
    assert sum(calls) == 2 + 2 + 3
    again = bench.measure(Inserting({})).wikitext
    assert again is not None
    assert replace(again, seconds=0.0) == replace(first.wikitext, seconds=0.0)
    assert sum(calls) == 2 + 2 + 3
    assert first.wikitext.tokens == 2 * 511
    assert first.me_ppl.texts == 2
    assert first.mmlu.questions == 3


def test_a_part_of_size_nothing_is_not_measured() -> None:
    bench = AbilityBench(subject_of(), TINY_DATA, settings=AbilitySettings(wikitext_tokens=0, sentences=1, questions=0))
    measured = bench.measure(UneditedModel())
    assert (measured.wikitext, measured.mmlu) == (None, None)
    assert measured.me_ppl is not None
    with pytest.raises(ConfigError, match=r"ability\.sentences"):
        AbilitySettings(sentences=-1)


def test_the_bench_measures_changed_weights() -> None:
    subject = subject_of()
    bench = AbilityBench(subject, TINY_DATA, settings=SETTINGS, keep_model=True)
    measured = bench.measure(Nudging(subject, 0.2))
    assert measured.wikitext is not None
    assert measured.mmlu is not None
    assert measured.wikitext.kl_per_token > 0.01
    assert measured.wikitext.treated == measured.wikitext.texts == 2
    assert measured.mmlu.treated == 3


def test_json_there_and_back() -> None:
    text = TextScore(perplexity=9.5, before=9.25, kl_per_token=0.125, tokens=7, texts=2, treated=1, seconds=0.5)
    choice = ChoiceScore(accuracy=0.25, before=0.5, questions=4, treated=1, changed=1, seconds=0.25)
    for whole in (Ability(wikitext=text, me_ppl=text, mmlu=choice), Ability(mmlu=choice), Ability()):
        written = json.dumps(whole.to_json())
        assert "null" not in written
        assert Ability.from_json(json.loads(written)) == whole
    with pytest.raises(TypeError, match="mmul"):
        Ability.from_json({"mmul": {}})
    with pytest.raises(TypeError, match="precision"):
        Ability.from_json({"mmlu": {**asdict(choice), "precision": 1}})


# -- what it is measured on --------------------------------------------------------------------------------------------


def test_windows_are_the_text_without_overlap() -> None:
    tokenizer = tiny_tokenizer()
    text = "".join(chr(97 + n % 26) for n in range(100))
    windows = token_windows(tokenizer, text, width=30)
    assert [len(window) for window in windows] == [30, 30, 30]
    assert "".join(tokenizer.decode(window) for window in windows) == text[:90]


def test_windows_begin_as_the_tokenizer_begins_a_text() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    windows = token_windows(tokenizer, "abcdef", width=3)
    assert [tokenizer.decode(window) for window in windows] == ["<|im_start|>abc", "<|im_start|>def"]


def test_each_topic_has_its_share() -> None:
    many = [
        ChoiceQuestion(question=f"{topic} {n}", topic=topic, choices=tuple("abcd"), answer=0)
        for topic, size in (("law", 60), ("physics", 30), ("anatomy", 10))
        for n in range(size)
    ]
    some = stratified(many, 20, seed=0)
    assert Counter(question.topic for question in some) == {"law": 12, "physics": 6, "anatomy": 2}
    assert some == stratified(list(many), 20, seed=0)
    assert set(some) <= set(stratified(many, 50, seed=0))
    assert set(some) != set(stratified(many, 20, seed=1))
    assert set(stratified(many, 1000, seed=0)) == set(many)


def test_what_is_drawn_keeps_its_order() -> None:
    letters = "abcdefghij"
    five = drawn(letters, 5, seed="0")
    assert five == sorted(five)
    assert len(set(five)) == 5
    assert drawn(letters, 5, seed="0") == five != drawn(letters, 5, seed="1")
    assert drawn(letters, 20, seed="0") == list(letters)


def write_data(folder: Path, *, sentences: str = '{"Text": "A b c."}\n', questions: str = "[]") -> Path:
    (folder / "text").mkdir()
    (folder / "text/wikitext2_valid.txt").write_text("Some text.")
    (folder / "text/me_ppl_1k.jsonl").write_text(sentences)
    (folder / "text/mmlu_subset.json").write_text(questions)
    return folder


def test_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    question = {"question": "Q?", "subject": "law", "choices": ["a", "b", "c", "d"], "answer": 3}
    write_data(tmp_path, questions=json.dumps([question]))
    expected = ChoiceQuestion(question="Q?", topic="law", choices=("a", "b", "c", "d"), answer=3)
    monkeypatch.setenv("MEMEDIT_DATA", str(tmp_path))
    assert AbilityData.load() == AbilityData(wikitext="Some text.", sentences=("A b c.",), questions=(expected,))
    monkeypatch.delenv("MEMEDIT_DATA")
    with pytest.raises(ConfigError, match="MEMEDIT_DATA"):
        AbilityData.load()


@pytest.mark.parametrize("name", ["wikitext2_valid.txt", "me_ppl_1k.jsonl", "mmlu_subset.json"])
def test_a_file_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    file = write_data(tmp_path) / "text" / name
    file.unlink()
    with pytest.raises(DataFileError, match=str(file)):
        AbilityData.load(tmp_path)


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ({"sentences": '{"Text": "A."}\n{"text": "A."}\n'}, "me_ppl_1k.jsonl:2.*'Text'"),
        ({"sentences": "{"}, "me_ppl_1k.jsonl:1.*not valid JSON"),
        ({"questions": "{}"}, "list of questions"),
        ({"questions": "[3]"}, "record 0"),
        ({"questions": '[{"question": "Q?"}]'}, "record 0.*'subject'"),
        ({"questions": '[{"question": "Q?", "subject": "s", "choices": ["a", "b"], "answer": 0}]'}, "four choices"),
        (
            {"questions": '[{"question": "Q?", "subject": "s", "choices": ["a", "b", "c", "d"], "answer": "A"}]'},
            "0 to 3",
        ),
    ],
)
def test_a_malformed_file_is_named(written: dict[str, str], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=complaint):
        AbilityData.load(write_data(tmp_path, **written))


def real_data() -> AbilityData:
    if not (DATA / "text").is_dir():
        pytest.skip(f"the real texts are not in {DATA}; MEMEDIT_DATA names another folder")
    return AbilityData.load(DATA)


def test_the_real_files() -> None:
    data = real_data()
    assert "Homarus gammarus" in data.wikitext
    assert len(data.sentences) == 1000
    assert len(data.questions) == 1516
    some = stratified(data.questions, 200, seed=0)
    assert Counter(question.topic for question in some)["professional_law"] == pytest.approx(200 * 167 / 1516, abs=1)


@pytest.mark.real
def test_real_perplexity_is_that_of_transformers(smollm2_folder: Path) -> None:
    data = real_data()
    model, tokenizer = load_model(smollm2_folder)
    subject = Subject(model, tokenizer, HashingEncoder(), name="smollm2")
    windows = token_windows(subject.tokenizer, data.wikitext, width=512)[:2]
    score = perplexity(subject, UneditedModel(), windows, unedited=Unedited(subject))
    assert score.perplexity == pytest.approx(plain_perplexity(subject.model, windows), rel=1e-5)
    assert 10 < score.perplexity < 60
    questions = sorted(data.questions, key=lambda question: len(question.prompt))[:2]
    chosen = [plain_choice(subject.model, subject.tokenizer, question) for question in questions]
    right = [choice == question.answer for choice, question in zip(chosen, questions, strict=True)]
    assert mmlu(subject, UneditedModel(), questions, unedited=Unedited(subject)).accuracy == sum(right) / 2
