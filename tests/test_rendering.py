"""From what is typed to token ids: through the chat template where there is one, bare where there is none."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from hashing_encoder import HashingEncoder
from tiny import CHATML, tiny_model, tiny_tokenizer
from tokenizers import processors
from transformers import AutoTokenizer

from memedit.editors.subject import Subject
from memedit.evaluation import ProbePrompt, Turn
from memedit.evaluation.rendering import answer_ids, bare_ids, prompt_ids

MODEL = tiny_model()
PROMPT = ProbePrompt(text="Where is Acme Rockets based?", form="question")
TALK = ProbePrompt(
    text="And now?", turns=(Turn("user", "Where is Acme based?"), Turn("assistant", "In Porto.")), form="question"
)


def subject_of(tokenizer: Any) -> Subject:
    return Subject(MODEL, tokenizer, HashingEncoder(), name="tiny")


def beginning(template: str | None = None) -> Any:
    """A tokenizer that puts a token of its own before every text."""
    tokenizer = tiny_tokenizer(template)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<pad> $A", special_tokens=[("<pad>", 0)]
    )
    return tokenizer


def read(ids: tuple[int, ...]) -> str:
    """One token a byte: nothing is lost."""
    return str(tiny_tokenizer().decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def test_a_model_with_a_chat_template_is_asked_through_it() -> None:
    chat = subject_of(tiny_tokenizer())
    assert chat.chats
    ids = prompt_ids(chat, PROMPT)
    assert read(ids) == f"<|im_start|>user\n{PROMPT.text}<|im_end|>\n<|im_start|>assistant\n"
    assert ids[0] == chat.tokenizer.bos_token_id  # markup became special tokens


def test_earlier_turns_are_in_it() -> None:
    assert read(prompt_ids(subject_of(tiny_tokenizer()), TALK)) == (
        "<|im_start|>user\nWhere is Acme based?<|im_end|>\n<|im_start|>assistant\nIn Porto.<|im_end|>\n"
        "<|im_start|>user\nAnd now?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_model_without_a_template_reads_what_was_typed() -> None:
    bare = subject_of(tiny_tokenizer(None))
    assert not bare.chats
    assert read(prompt_ids(bare, PROMPT)) == PROMPT.text
    assert prompt_ids(bare, PROMPT) == bare_ids(bare, PROMPT)


@pytest.mark.parametrize("template", [None, CHATML])
def test_bare_turns_are_lines_of_a_dialogue(template: str | None) -> None:
    subject = subject_of(tiny_tokenizer(template))
    expected = "User: Where is Acme based?\nAssistant: In Porto.\nUser: And now?\nAssistant:"
    assert read(bare_ids(subject, TALK)) == expected


def test_a_text_begins_as_the_tokenizer_begins_texts_and_only_once() -> None:
    bare = subject_of(beginning())
    assert prompt_ids(bare, PROMPT) == (0, *prompt_ids(subject_of(tiny_tokenizer(None)), PROMPT))
    chat = subject_of(beginning(CHATML))
    assert prompt_ids(chat, PROMPT) == prompt_ids(subject_of(tiny_tokenizer()), PROMPT)  # the template's own beginning
    assert answer_ids(bare, "Lisbon") == answer_ids(subject_of(tiny_tokenizer()), "Lisbon")


@pytest.mark.parametrize("answer", ["Lisbon", " Lisbon", "Lisbon \n"])
def test_an_answer_is_set_off_by_one_space(answer: str) -> None:
    subject = subject_of(beginning())
    assert read(answer_ids(subject, answer)) == " Lisbon"
    whole = subject.tokenizer(f"{PROMPT.text} Lisbon")["input_ids"]
    assert [*bare_ids(subject, PROMPT), *answer_ids(subject, answer)] == whole


def test_no_reference_can_come_in() -> None:
    for render in (prompt_ids, bare_ids):
        assert list(inspect.signature(render).parameters) == ["subject", "prompt"]


@pytest.mark.real
def test_the_default_model_is_asked_through_its_own_template(smollm2_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2_folder)
    subject = subject_of(tokenizer)
    text = tokenizer.decode(prompt_ids(subject, TALK))
    assert text.endswith(
        "<|im_start|>user\nWhere is Acme based?<|im_end|>\n<|im_start|>assistant\nIn Porto.<|im_end|>\n"
        "<|im_start|>user\nAnd now?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.decode(bare_ids(subject, PROMPT)) == PROMPT.text
    assert tokenizer.decode(answer_ids(subject, "Lisbon")) == " Lisbon"
