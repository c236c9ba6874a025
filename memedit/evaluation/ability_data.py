"""What general ability is measured on: running text, sentences and multiple-choice questions, and how some are drawn.

Knows files and tokenizers; nothing of models, methods or scores.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from memedit.errors import ConfigError, DataFileError
from memedit.evaluation.datasets.registry import DATA_VARIABLE, data_folder

__all__ = [
    "LETTERS",
    "AbilityData",
    "ChoiceQuestion",
    "drawn",
    "stratified",
    "token_windows",
]

WIKITEXT_FILE = "text/wikitext2_valid.txt"
"""The validation part of WikiText-2, as plain text."""

ME_PPL_FILE = "text/me_ppl_1k.jsonl"
"""The sentences of ME-PPL-1k (Yang et al. 2024, The Butterfly Effect of Model Editing)."""

MMLU_FILE = "text/mmlu_subset.json"
"""Questions of MMLU (Hendrycks et al. 2021, Measuring Massive Multitask Language Understanding)."""

LETTERS = "ABCD"
"""What the choices of a question are called."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceQuestion:
    """A question with four choices.

    Attributes:
        question: What is asked.
        topic: What it is sorted under, such as ``"high_school_physics"``.
        choices: The four choices.
        answer: Place of the right one, from 0.
    """

    question: str
    topic: str
    choices: tuple[str, ...]
    answer: int

    @property
    def prompt(self) -> str:
        """The question as the benchmark's authors ask it, without worked examples, up to the letter."""
        listed = "".join(f"{letter}. {choice}\n" for letter, choice in zip(LETTERS, self.choices, strict=True))
        topic = self.topic.replace("_", " ")
        head = f"The following are multiple choice questions (with answers) about {topic}.\n\n"
        return f"{head}{self.question.strip()}\n{listed}Answer:"


@dataclass(frozen=True, slots=True, kw_only=True)
class AbilityData:
    """The texts and questions, whole.

    Attributes:
        wikitext: Running text.
        sentences: Sentences.
        questions: Multiple choice.
    """

    wikitext: str
    sentences: tuple[str, ...]
    questions: tuple[ChoiceQuestion, ...]

    @classmethod
    def load(cls, data: str | Path | None = None) -> Self:
        """Read the three files of the data folder.

        Args:
            data: The folder; None takes the one that ``MEMEDIT_DATA`` names.

        Raises:
            ConfigError: Nothing says where the folder is.
            DataFileError: A file is absent or is not what it should be; the message names the file.
        """
        named = data_folder(data)
        if not named:
            raise ConfigError(f"Nothing says where the data is: pass its folder, or set {DATA_VARIABLE}.")
        root = Path(named)
        return cls(
            wikitext=_read(root / WIKITEXT_FILE),
            sentences=tuple(_sentences(root / ME_PPL_FILE)),
            questions=tuple(_questions(root / MMLU_FILE)),
        )


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise DataFileError(f"{file} cannot be read: {error.strerror or error}; ability is measured on it.") from error
    except UnicodeDecodeError as error:
        raise DataFileError(f"{file} is not UTF-8 text (the byte at offset {error.start}).") from error


def _sentences(file: Path) -> Iterator[str]:
    for number, line in enumerate(_read(file).split("\n"), start=1):
        if line.strip():
            record = _parsed(line, f"{file}:{number}")
            text = record.get("Text") if isinstance(record, dict) else None
            if not isinstance(text, str) or not text.strip():
                raise DataFileError(f"{file}:{number}: the field 'Text' must hold a sentence.")
            yield text


def _questions(file: Path) -> Iterator[ChoiceQuestion]:
    records = _parsed(_read(file), str(file))
    if not isinstance(records, list):
        raise DataFileError(f"{file}: must be a list of questions, not {type(records).__name__}.")
    for number, record in enumerate(records):
        try:
            question, topic = record["question"], record["subject"]
            choices, answer = tuple(record["choices"]), record["answer"]
        except (TypeError, KeyError) as error:
            raise DataFileError(
                f"{file}: record {number} must have question, subject, choices and answer; wrong: {error}."
            ) from error
        texts = all(isinstance(one, str) for one in (question, topic, *choices))
        if not texts or len(choices) != len(LETTERS) or answer not in range(len(LETTERS)):
            raise DataFileError(f"{file}: record {number} must have four choices, and an answer from 0 to 3.")
        yield ChoiceQuestion(question=question, topic=topic, choices=choices, answer=answer)


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataFileError(f"{place}: is not valid JSON: {error}.") from error


def token_windows(tokenizer: Any, text: str, *, width: int) -> list[tuple[int, ...]]:
    """Cut running text into windows of tokens, without overlap.

    Args:
        tokenizer: The model's tokenizer.
        text: The text.
        width: Tokens of the text in each window; what is left over at the end is not used.

    Returns:
        The windows, each behind the tokens that the tokenizer itself begins a text with (mostly one, or none).
    """
    head = _begins_with(tokenizer)
    # long texts are cut into windows right here, so the tokenizer need not warn of their length
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return [(*head, *ids[begin : begin + width]) for begin in range(0, len(ids) - width + 1, width)]


def _begins_with(tokenizer: Any) -> tuple[int, ...]:
    """The special tokens that the tokenizer puts before a text."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    place = next(begin for begin in range(len(whole) - len(plain) + 1) if whole[begin : begin + len(plain)] == plain)
    return tuple(whole[:place])


def stratified(questions: Sequence[ChoiceQuestion], count: int, *, seed: int) -> list[ChoiceQuestion]:
    """Draw questions so that each topic has its share.

    Args:
        questions: What is drawn from.
        count: How many; all of them where there are fewer.
        seed: Draws within each topic. More questions with the same seed include the fewer.
    """
    topics: dict[str, list[ChoiceQuestion]] = defaultdict(list)
    for question in questions:
        topics[question.topic].append(question)
    placed: list[tuple[float, str, ChoiceQuestion]] = []
    for topic, asked in topics.items():
        random.Random(f"{seed}:{topic}").shuffle(asked)
        placed += [((rank + 0.5) / len(asked), topic, question) for rank, question in enumerate(asked)]
    placed.sort(key=lambda one: one[:2])
    return [question for _, _, question in placed[:count]]


def drawn(items: Sequence[T], count: int, *, seed: str) -> list[T]:
    """Draw some of the items, which keep their order.

    Args:
        items: What is drawn from.
        count: How many; all of them where there are fewer.
        seed: Draws.
    """
    places = random.Random(seed).sample(range(len(items)), min(count, len(items)))
    return [items[place] for place in sorted(places)]
