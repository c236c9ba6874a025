"""Finding a subject's token: under a chat template, with tokenizers that join or cut words, and where there is none."""

from __future__ import annotations

from typing import Any

import pytest
from tiny import tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from memedit.editors.subject_place import subject_token
from memedit.errors import UnsupportedCallError
from memedit.rows import PromptReader


def merging_tokenizer() -> PreTrainedTokenizerFast:
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
    for tokenizer in (tiny_tokenizer(None), merging_tokenizer()):
        assert found(tokenizer, prompt, prompt, "Danielle Darrieux") == "The tongue of Danielle Darrieux"
    assert found(tiny_tokenizer(None), prompt, prompt, "Danielle", place="subject_first") == "The tongue of D"
    assert found(merging_tokenizer(), prompt, prompt, "Danielle", place="subject_first") == "The tongue of Dan"
    assert found(merging_tokenizer(), prompt, prompt, place="last") == prompt


def test_a_token_that_reaches_over_the_subjects_end() -> None:
    prompt = "We love Danielle Darrieux's Paris."
    assert found(merging_tokenizer(), prompt, prompt, "Danielle Darrieux") == "We love Danielle Darrieux'"
    assert found(merging_tokenizer(), prompt, prompt, "Paris") == prompt


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
    assert found(plain, prompt, prompt, "Rome") == "Romeo left rome"
    assert found(plain, prompt, prompt, "Rom") == "Rom"
    assert found(plain, prompt, prompt, "Caesar", "Remo") == prompt
    assert found(plain, prompt, prompt, "left", "Romeo") == "Romeo left"


def test_what_cannot_be_found_is_said() -> None:
    with pytest.raises(UnsupportedCallError, match=r"'The sea is' has no subject.* give the edit a subject"):
        found(tiny_tokenizer(None), "The sea is", "The sea is")
    with pytest.raises(UnsupportedCallError, match=r"the subject 'Oslo' is not in the prompt 'The sea is'.* aliases"):
        found(tiny_tokenizer(None), "The sea is", "The sea is", "Oslo", "Bergen")
    with pytest.raises(UnsupportedCallError, match="'middle' is no token"):
        found(tiny_tokenizer(None), "The sea is", "The sea is", "sea", place="middle")
