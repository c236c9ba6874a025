"""Which tokens are the subject's, with tokenizers that merge and split."""

from __future__ import annotations

from typing import Any

import pytest
from tiny import tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from memedit.errors import InvalidPromptError, UnsupportedCallError
from memedit.subject_tokens import subject_tokens


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """Byte pairs in which the space, the next word and a following 's may be one token; and a token at the start."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate(["<s>", *alphabet, "ĠN", "ĠNi", "ĠNil", "ĠNile"])}
    merges = [("Ġ", "N"), ("ĠN", "i"), ("ĠNi", "l"), ("ĠNil", "e")]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)]),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")


def words_of(tokenizer: Any, prompt: str, subject: str) -> list[str]:
    place = subject_tokens(tokenizer, prompt, subject)
    assert place.ids == tuple(tokenizer(prompt)["input_ids"])
    assert place.last == place.end - 1
    return [tokenizer.decode([token]) for token in place.ids[place.start : place.end]]


@pytest.mark.parametrize(
    ("prompt", "subject", "expected"),
    [
        ("The Nile flows", "Nile", [" Nile"]),
        ("The Nile flows", " Nile ", [" Nile"]),
        ("The Nile flows", "Nil", [" Nile"]),  # a token that reaches across the subject's end
        ("Nile flows", "Nile", ["N", "i", "l", "e"]),
        ("The Nile", "The Nile", ["T", "h", "e", " Nile"]),
    ],
)
def test_tokens_that_take_in_more_than_the_subject(prompt: str, subject: str, expected: list[str]) -> None:
    assert words_of(merging_tokenizer(), prompt, subject) == expected


def test_a_token_before_the_text_is_none_of_the_subjects() -> None:
    place = subject_tokens(merging_tokenizer(), "Nile flows", "Nile")
    assert (place.start, place.end) == (1, 5)
    assert place.offsets[0] == (0, 0)


def test_a_character_of_several_tokens() -> None:
    tokenizer = tiny_tokenizer(None)
    place = subject_tokens(tokenizer, "in 京都 lies", "京都")
    assert (place.start, place.end) == (3, 9)  # three bytes a character
    assert tokenizer.decode(list(place.ids[3:9])) == "京都"


def test_of_several_the_last_is_taken() -> None:
    place = subject_tokens(tiny_tokenizer(None), "AB, CD, AB.", "AB")
    assert (place.start, place.end, place.occurrences) == (8, 10, 2)


@pytest.mark.parametrize(
    ("prompt", "subject", "message"),
    [
        ("The Nile flows", "Danube", "'Danube' does not stand in the prompt 'The Nile flows'; give it as it is spelt"),
        ("The Nile flows", "nile", r"did you mean 'Nile'\?"),
        ("", "Nile", "a prompt and its subject are needed"),
        ("The Nile", "", "a prompt and its subject are needed"),
    ],
)
def test_a_subject_that_is_not_there(prompt: str, subject: str, message: str) -> None:
    with pytest.raises(InvalidPromptError, match=message):
        subject_tokens(tiny_tokenizer(None), prompt, subject)


def test_a_tokenizer_that_does_not_tell_of_characters() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(UnsupportedCallError, match="Slow does not tell which characters"):
        subject_tokens(Slow(), "The Nile", "Nile")
