"""The arguments of ``generate`` and ``forward``: by name, and those that a governed prompt cannot honour.

Whoever asks for one of these gets an error that names it and says what to do instead; nothing is dropped in silence.
Knows nothing of edits or routing.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from memedit.errors import UnsupportedCallError

__all__ = ["REFUSED_IN_FORWARD", "REFUSED_IN_GENERATE", "bind", "refuse"]

# What `generate` cannot honour for governed prompts, and what to do instead.
REFUSED_IN_GENERATE = {
    "inputs_embeds": "pass input_ids: embeddings cannot be read as a question",
    "past_key_values": "pass the whole prompt as input_ids, without a cache from an earlier call",
    "position_ids": "leave position_ids away; they follow from the attention mask",
    "token_type_ids": "leave token_type_ids away (return_token_type_ids=False in the tokenizer call)",
    "output_attentions": "it would cover context not the caller's; see the base model's with edits_disabled()",
    "output_hidden_states": "it would cover context not the caller's; see the base model's with edits_disabled()",
    "negative_prompt_ids": "use no negative prompt",
    "guidance_scale": "use no classifier-free guidance",
    "assistant_model": "generate without an assistant model; the result is the same",
    "prompt_lookup_num_tokens": "generate without prompt lookup; the result is the same",
    "assistant_early_exit": "generate without early exit; the result is the same",
    "use_mtp": "generate without multi-token prediction; the result is the same",
    "custom_generate": "use a built-in decoding method: greedy, sampling or beams",
    "penalty_alpha": "use a built-in decoding method: greedy, sampling or beams",
    "dola_layers": "use a built-in decoding method: greedy, sampling or beams",
    "token_healing": "heal the prompt's tokens before the call",
    "cache_implementation": "leave cache_implementation unset; a dynamic cache is used",
    "prefill_chunk_size": "leave prefill_chunk_size unset",
}
REFUSED_IN_FORWARD = {
    "inputs_embeds": "pass input_ids: embeddings cannot be read as a question",
    "past_key_values": "pass the whole text as input_ids, or call generate",
    "position_ids": "leave position_ids away; they follow from the attention mask",
    "token_type_ids": "leave token_type_ids away",
    "output_attentions": "use edits_disabled() to see the base model's",
    "output_hidden_states": "use edits_disabled() to see the base model's",
}
_HARMLESS: Mapping[str, frozenset[object]] = {
    "guidance_scale": frozenset({1.0}),
    "cache_implementation": frozenset({"dynamic", "hybrid"}),
}


def bind(function: Any, first: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The arguments of a call by name, those of ``**kwargs`` among them."""
    bound = inspect.signature(function).bind(first, *args, **kwargs)
    named = dict(bound.arguments)
    for parameter in bound.signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            named.update(named.pop(parameter.name, {}))
    return named


def refuse(bound: Mapping[str, Any], refused: Mapping[str, str], configs: Sequence[Any]) -> None:
    """Raise if a call, or a config that it falls back on, sets what a governed prompt cannot honour."""
    for name, instead in refused.items():
        value = bound.get(name)
        for config in configs:
            value = getattr(config, name, None) if value is None else value
        harmless = _HARMLESS.get(name, frozenset())
        if value is None or value is False or (isinstance(value, str | int | float) and value in harmless):
            continue
        raise UnsupportedCallError(f"{name} cannot be honoured for a prompt that an edit governs: {instead}")
