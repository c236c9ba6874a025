"""Chat templates of common model families, after their published formats, and tokenizers that carry them."""

from __future__ import annotations

from dataclasses import dataclass

from tiny import CHATML
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Family:
    """A template, the special tokens around it, and where it puts a system message."""

    template: str
    bos: str
    eos: str
    special: tuple[str, ...] = ()
    system: str = "turn"  # "turn", "merged" into the first user turn without markup, or "refused"
    default_system: str | None = None


_ALTERNATING = (
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
)

FAMILIES = {
    "chatml": Family(CHATML, "<|im_start|>", "<|im_end|>"),
    "smollm2": Family(
        "{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
        "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        "<|im_start|>",
        "<|im_end|>",
        default_system="You are a helpful AI assistant named SmolLM, trained by Hugging Face",
    ),
    "qwen3": Family(
        # the last answer and a prompt that is not to be thought about carry an empty thinking block
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
        "{% if m['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
        "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' }}{% endif %}",
        "<|endoftext|>",
        "<|im_end|>",
        ("<|im_start|>",),
    ),
    "gemma": Family(
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}"
        "{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}"
        "{% for m in rest %}" + _ALTERNATING + "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else "
        "m['role']) + '\n' + (first if loop.first else '') + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
        "<bos>",
        "<eos>",
        ("<start_of_turn>", "<end_of_turn>"),
        system="merged",
    ),
    "llama3": Family(
        "{% for m in messages %}{% set c = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + "
        "m['content'] | trim + '<|eot_id|>' %}{% if loop.first %}{% set c = bos_token + c %}{% endif %}{{ c }}"
        "{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        "<|begin_of_text|>",
        "<|eot_id|>",
        ("<|start_header_id|>", "<|end_header_id|>"),
    ),
    "llama2": Family(
        "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set s = messages[0]['content'] %}"
        "{% else %}{% set rest = messages %}{% set s = false %}{% endif %}{% for m in rest %}"
        + _ALTERNATING
        + "{% if loop.index0 == 0 and s %}{% set c = '<<SYS>>\n' + s + '\n<</SYS>>\n\n' + m['content'] %}"
        "{% else %}{% set c = m['content'] %}{% endif %}{% if m['role'] == 'user' %}"
        "{{ bos_token + '[INST] ' + c.strip() + ' [/INST]' }}{% else %}{{ ' ' + c.strip() + ' ' + eos_token }}"
        "{% endif %}{% endfor %}",
        "<s>",
        "</s>",
    ),
    "mistral": Family(
        "{{ bos_token }}{% for m in messages %}" + _ALTERNATING + "{% if m['role'] == 'user' %}"
        "{{ '[INST] ' + m['content'] + ' [/INST]' }}{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}",
        "<s>",
        "</s>",
        system="refused",
    ),
    "phi3": Family(
        "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
        "<s>",
        "<|endoftext|>",
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    ),
    "zephyr": Family(
        "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token }}"
        "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}{{ '\n' }}{% endfor %}",
        "<s>",
        "</s>",
    ),
    "words": Family(
        "{% for m in messages %}{{ m['role'] | capitalize + ': ' + m['content'] + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}",
        "<s>",
        "</s>",
    ),
}


def family_tokenizer(family: Family) -> PreTrainedTokenizerFast:
    """One token a byte, the family's special tokens parsed as such, and two added tokens that are not special."""
    specials = [*dict.fromkeys(("<pad>", family.bos, family.eos, *family.special))]
    vocabulary = {token: index for index, token in enumerate(specials)}
    for character in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[character] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token=family.bos,
        eos_token=family.eos,
        additional_special_tokens=list(family.special),
        padding_side="left",
        chat_template=family.template,
    )
    made.add_tokens(["<tool_call>", "</tool_call>"])
    return made
