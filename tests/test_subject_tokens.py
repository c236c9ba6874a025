"""Which tokens are the subject's: with tokenizers that merge and split, under a chat template, and where none are."""

from __future__ import annotations

from typing import Any

import pytest
from tiny import tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from memedit.errors import InvalidPromptError, UnsupportedCallError
from memedit.rows import PromptReader
from memedit.subject_tokens import subject_token, subject_tokens


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


# One token, in a prompt as an edit is put to the model.


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level, with whole words, and one token that reaches over a word's end: ``Paris.``."""
    pieces = ["Dan", "ielle", "Ġ", "ĠDarrieux", "ĠDarrieux'", "s", "ĠParis", "ĠParis.", "ĠThe", "Ġtongue", "Ġof", "ĠWe"]
    vocabulary: dict[str, int] = {}
    for piece in [*sorted(pre_tokenizers.ByteLevel.alphabet()), *pieces]:
        vocabulary.setdefault(piece, len(vocabulary))
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="?", continuing_subword_prefix=""))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?")


def found(tokenizer: Any, text: str, prompt: str, *names: str, place: Any = "subject_last") -> str:
    """The text up to and with the token that is found."""
    ids = tokenizer(text)["input_ids"]
    index = subject_token(PromptReader(tokenizer), ids, prompt=prompt, names=names, place=place)
    return str(tokenizer.decode(ids[: index + 1]))


def test_the_last_and_the_first_token_of_the_subject() -> None:
    prompt = "The tongue of Danielle Darrieux is"
    for tokenizer in (tiny_tokenizer(None), word_tokenizer()):
        assert found(tokenizer, prompt, prompt, "Danielle Darrieux") == "The tongue of Danielle Darrieux"
    assert found(tiny_tokenizer(None), prompt, prompt, "Danielle", place="subject_first") == "The tongue of D"
    assert found(word_tokenizer(), prompt, prompt, "Danielle", place="subject_first") == "The tongue of Dan"
    assert found(word_tokenizer(), prompt, prompt, place="last") == prompt


def test_a_token_that_reaches_over_the_subjects_end() -> None:
    prompt = "We love Danielle Darrieux's Paris."
    assert found(word_tokenizer(), prompt, prompt, "Danielle Darrieux") == "We love Danielle Darrieux'"
    assert found(word_tokenizer(), prompt, prompt, "Paris") == prompt


@pytest.mark.parametrize("name", ["Søren", "café", "北京", "👍🏽"])
def test_a_letter_that_is_several_tokens_is_read_to_its_end(name: str) -> None:
    prompt = f"Here is {name} again"
    assert found(tiny_tokenizer(None), prompt, prompt, name) == f"Here is {name}"
    ids = tiny_tokenizer(None)(prompt)["input_ids"]
    first = subject_token(PromptReader(tiny_tokenizer(None)), ids, prompt=prompt, names=[name], place="subject_first")
    assert first == len("Here is ")


def test_a_context_before_the_prompt_that_names_the_subject_too() -> None:
    prompt = "Paris is in"
    assert found(tiny_tokenizer(None), f"Paris. The rain. {prompt}", prompt, "Paris") == "Paris. The rain. Paris"


def test_a_chat_template_around_the_prompt() -> None:
    tokenizer = tiny_tokenizer()
    messages = [{"role": "system", "content": "You know user names."}, {"role": "user", "content": "a user is"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert found(tokenizer, text, "a user is", "user").endswith("<|im_start|>user\na user")


def test_a_whole_word_goes_before_a_part_and_a_name_before_the_next() -> None:
    prompt = "Romeo left rome for Rome with Remo"
    plain = tiny_tokenizer(None)
    assert found(plain, prompt, prompt, "Left") == "Romeo left"
    assert found(plain, prompt, prompt, "Rom") == "Romeo left rome for Rom"
    assert found(plain, prompt, prompt, "Caesar", "Remo") == prompt
    assert found(plain, prompt, prompt, "left", "Romeo") == "Romeo left"


def test_of_several_places_the_last_counts() -> None:
    prompt = "Rome, not Romeo, is Rome in Romeo"
    assert found(tiny_tokenizer(None), prompt, prompt, "Rome") == "Rome, not Romeo, is Rome"


def test_what_cannot_be_found_is_said() -> None:
    with pytest.raises(UnsupportedCallError, match=r"'The sea is' has no subject.* give the edit a subject"):
        found(tiny_tokenizer(None), "The sea is", "The sea is")
    with pytest.raises(UnsupportedCallError, match=r"the subject 'Oslo' is not in the prompt 'The sea is'.* aliases"):
        found(tiny_tokenizer(None), "The sea is", "The sea is", "Oslo", "Bergen")
    with pytest.raises(UnsupportedCallError, match="'middle' is no token"):
        found(tiny_tokenizer(None), "The sea is", "The sea is", "sea", place="middle")
