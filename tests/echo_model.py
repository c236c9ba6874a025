"""A language model whose answers are known beforehand: it says the last (ASCII) text in «guillemets» that it has read.

It is a ``transformers`` model like any other, so that everything from the tokenizer to ``generate`` is real; only what
it computes is a rule. An evaluation over it has right answers that can be worked out by hand.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from tiny import tiny_model, tiny_tokenizer
from transformers import LlamaForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

UNKNOWN = "I cannot say"
_ASSISTANT = "<|im_start|>assistant\n"
_CERTAIN = 20.0


class EchoModel(LlamaForCausalLM):
    """Says the last «…» of what it reads, or that it cannot say, and then ends."""

    def forward(self, input_ids: Any = None, attention_mask: Any = None, **_: Any) -> Any:
        tokenizer: Any = tiny_tokenizer()
        logits = torch.zeros((*input_ids.shape, self.config.vocab_size))
        for row, ids in enumerate(input_ids.tolist()):
            own = [token for token, kept in zip(ids, attention_mask[row].tolist(), strict=True) if kept]
            text = tokenizer.decode(own, clean_up_tokenization_spaces=False)
            read, _mark, said = text.rpartition(_ASSISTANT) if _ASSISTANT in text else (text, "", "")
            answer = (re.findall("«([^»]*)»", read) or [UNKNOWN])[-1]
            rest = answer[len(said) :] if answer.startswith(said) else ""
            follows = tokenizer(rest, add_special_tokens=False)["input_ids"] or [tokenizer.eos_token_id]
            logits[row, -1, follows[0]] = _CERTAIN
        return CausalLMOutputWithPast(logits=logits)


def echo_model() -> Any:
    model = tiny_model()
    echo = EchoModel(model.config).eval()
    echo.generation_config.use_cache = False
    return echo
