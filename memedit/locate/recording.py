"""The clean run and the corrupted runs of one prompt, with everything inside them that is put back later.

One ordinary forward pass of the model over a batch of the same prompt: row 0 is clean, and in each further row the
embeddings of the subject's tokens have noise added, at the output of the embedding layer (Meng et al. 2022, *Locating
and Editing Factual Associations in GPT*, section 2.1). Hooks take down what each layer is given and puts out, what its
attention and its MLP put out, and the keys and values that it attends to. The arguments that the model hands to its
layers (positions, rotary embeddings, masks) are kept as well, so that a layer can be run again by itself exactly as the
model runs it: `Recording.arguments`.

Layers are found through `memedit.architectures`. This file knows nothing of restorations or effects.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memedit.architectures import Architecture
from memedit.errors import UnsupportedCallError
from memedit.passes import folded_head, takes

if TYPE_CHECKING:
    import torch

__all__ = [
    "KeysAndValues",
    "Recording",
    "first_of",
    "hooked",
    "read_out",
    "record",
    "run_layer",
    "with_first",
]

_CACHE_NAMES = ("past_key_values", "layer_past")
"""What the layers of different families call the cache of keys and values."""

_ATTENTION = frozenset({"eager", "sdpa"})
"""Ways of attending whose masks are known here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What went on inside the clean run (row 0) and the corrupted runs (the others) of a prompt.

    Each list has one tensor a layer.

    Attributes:
        inputs: What the first layer is given, ``[rows, tokens, width]``.
        outputs: What each layer puts out: the hidden state, ``[rows, tokens, width]``.
        attention: What its attention adds, before a norm behind it; the same shape.
        mlp: The same of its MLP.
        keys: The keys of each layer, as the cache has them, ``[rows, key heads, tokens, head width]``.
        values: The values; the same shape.
        arguments: What each layer is called with besides the hidden state.
        logits: The model's own, where they are asked for, ``[rows, places, vocabulary]``.
    """

    inputs: torch.Tensor
    outputs: Sequence[torch.Tensor]
    attention: Sequence[torch.Tensor]
    mlp: Sequence[torch.Tensor]
    keys: Sequence[torch.Tensor]
    values: Sequence[torch.Tensor]
    arguments: Sequence[Mapping[str, Any]]
    logits: torch.Tensor

    @property
    def tokens(self) -> int:
        """How many tokens the prompt has."""
        return int(self.inputs.shape[1])

    def given(self, layer: int) -> torch.Tensor:
        """What a layer is given, ``[rows, tokens, width]``."""
        return self.outputs[layer - 1] if layer else self.inputs

    def call(self, layer: int, start: int, end: int) -> dict[str, Any]:
        """What a layer is called with where it reads only some of the tokens, the keys of all before them at hand.

        Args:
            layer: Which layer.
            start: The first token that is read.
            end: The place behind the last one.
        """
        return {name: _between(name, value, start, end, self.tokens) for name, value in self.arguments[layer].items()}


class KeysAndValues:
    """Stands where a layer looks for its cache: puts keys and values of earlier tokens before those of its own.

    Args:
        keys: Keys of the tokens before, ``[rows, key heads, tokens before, head width]``.
        values: Their values.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self._keys = keys
        self._values = values

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """What the layer attends to, in the order of the tokens."""
        import torch

        if not self._keys.shape[2]:
            return keys, values
        return torch.cat([self._keys.to(keys.dtype), keys], dim=2), torch.cat(
            [self._values.to(values.dtype), values], dim=2
        )


class _Taken:
    """Takes down the keys and values of one layer, and hands them back as they are."""

    def __init__(self) -> None:
        self.keys: torch.Tensor
        self.values: torch.Tensor

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        self.keys, self.values = keys, values
        return keys, values


def record(
    model: Any, architecture: Architecture, ids: Sequence[int], *, noise: torch.Tensor, start: int, places: int = 1
) -> Recording:
    """Run a prompt clean and corrupted, and take down what goes on inside.

    Args:
        model: The model, in evaluation mode.
        architecture: Where its parts are.
        ids: The prompt's token ids; for an answer of several tokens, followed by all of them but the last.
        noise: What is added to the embeddings of the tokens from ``start`` on, ``[corrupted runs, tokens, width]``.
        start: The first token that is corrupted.
        places: At how many places, counted from the end, logits are wanted.

    Raises:
        UnsupportedCallError: The model attends in a way whose masks are not known, or to tokens that come later, or its
            layers do not hand their keys to a cache.
    """
    import torch

    kind = getattr(model.config.get_text_config(), "_attn_implementation", "eager")
    if kind not in _ATTENTION:
        raise UnsupportedCallError(
            f"the model attends by {kind!r}; load it with attn_implementation='sdpa' or 'eager' to trace it"
        )
    layers = model.get_submodule(architecture.layers)
    rows = 1 + noise.shape[0]
    given: list[torch.Tensor] = []
    outputs: list[torch.Tensor] = []
    attention: list[torch.Tensor] = []
    mlp: list[torch.Tensor] = []
    taken = [_Taken() for _ in layers]
    arguments: list[dict[str, Any]] = []

    def corrupt(_: Any, __: Any, embedded: torch.Tensor) -> torch.Tensor:
        embedded = embedded.clone()
        embedded[1:, start : start + noise.shape[1]] += noise.to(embedded.device, embedded.dtype)
        return embedded

    def before(layer: int) -> Callable[..., Any]:
        def hook(module: Any, positional: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
            hidden, named = _hidden_and_named(module, positional, named)
            if layer == 0:
                given.append(hidden)
            arguments.append(_without_cache(named))
            return (hidden,), {**named, _cache_name(module): taken[layer]}

        return hook

    def after(kept: list[torch.Tensor]) -> Callable[..., None]:
        def hook(_: Any, __: Any, output: Any) -> None:
            kept.append(first_of(output))

        return hook

    with ExitStack() as hooks, torch.no_grad():
        embeddings = model.get_submodule(architecture.embeddings)
        hooks.enter_context(hooked(embeddings.register_forward_hook(corrupt)))
        for place, layer in enumerate(layers):
            hooks.enter_context(hooked(layer.register_forward_pre_hook(before(place), with_kwargs=True)))
            hooks.enter_context(hooked(layer.register_forward_hook(after(outputs))))
            for path, kept in ((architecture.attention, attention), (architecture.mlp, mlp)):
                hooks.enter_context(hooked(layer.get_submodule(path).register_forward_hook(after(kept))))
        batch = torch.tensor([list(ids)] * rows, device=model.device)
        options = {"logits_to_keep": places} if takes(model, "logits_to_keep") else {}
        hooks.enter_context(folded_head(model))
        logits = model(input_ids=batch, use_cache=False, **options).logits[:, -places:]
    if not all(hasattr(one, "keys") for one in taken):
        raise UnsupportedCallError(f"the layers of {architecture.title} do not hand their keys and values to a cache")
    for named in arguments:
        named["attention_mask"] = _mask(named.get("attention_mask"), len(ids), kind, given[0])
    return Recording(
        inputs=given[0],
        outputs=outputs,
        attention=attention,
        mlp=mlp,
        keys=[one.keys for one in taken],
        values=[one.values for one in taken],
        arguments=arguments,
        logits=logits,
    )


def read_out(model: Any, architecture: Architecture, hidden: torch.Tensor) -> torch.Tensor:
    """The logits that the model makes of the last layer's hidden states: final norm, unembedding, Gemma's soft cap.

    Args:
        model: The model.
        architecture: Where its parts are.
        hidden: ``[..., width]``.

    Returns:
        ``[..., vocabulary]``, in 32-bit precision or higher.
    """
    import torch

    normed = model.get_submodule(architecture.final_norm)(hidden)
    logits: torch.Tensor = model.get_submodule(architecture.unembedding)(normed)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def first_of(output: Any) -> torch.Tensor:
    """What a module puts out, where attention also gives its weights."""
    value: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return value


def with_first(output: Any, value: torch.Tensor) -> Any:
    """A module's output with another tensor in the place of `first_of`."""
    return (value, *output[1:]) if isinstance(output, tuple) else value


@contextmanager
def hooked(handle: Any) -> Iterator[None]:
    """Removes a hook at the end of the block."""
    try:
        yield
    finally:
        handle.remove()


def run_layer(layer: Any, hidden: torch.Tensor, call: Mapping[str, Any], cache: KeysAndValues) -> torch.Tensor:
    """Run one layer by itself.

    Args:
        layer: The layer.
        hidden: What it is given, ``[rows, tokens, width]``.
        call: Its further arguments, of `Recording.call`.
        cache: The keys and values of the tokens before.

    Returns:
        The hidden state that it puts out; the same shape.
    """
    return first_of(layer(hidden, **call, **{_cache_name(layer): cache}))


def _hidden_and_named(
    module: Any, positional: tuple[Any, ...], named: Mapping[str, Any]
) -> tuple[torch.Tensor, dict[str, Any]]:
    """The hidden state, and all other arguments by name."""
    names = list(inspect.signature(module.forward).parameters)
    given = {**dict(zip(names, positional, strict=False)), **named}
    hidden: torch.Tensor = given.pop("hidden_states")
    return hidden, given


def _cache_name(layer: Any) -> str:
    parameters = inspect.signature(layer.forward).parameters
    for name in _CACHE_NAMES:
        if name in parameters:
            return name
    raise UnsupportedCallError(f"{type(layer).__name__} takes no cache of keys and values")


def _without_cache(named: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in named.items() if name not in _CACHE_NAMES}


def _mask(given: torch.Tensor | None, tokens: int, kind: str, like: torch.Tensor) -> torch.Tensor:
    """The mask of a layer in full, ``[1, 1, tokens, tokens]``; where there is none, each token sees those before it.

    Raises:
        UnsupportedCallError: A token sees later ones.
    """
    import torch

    causal = torch.ones(tokens, tokens, dtype=torch.bool, device=like.device).tril()
    if given is None:
        if kind == "sdpa":
            return causal[None, None]
        hidden = torch.finfo(like.dtype).min
        return torch.zeros(tokens, tokens, dtype=like.dtype, device=like.device).masked_fill(~causal, hidden)[
            None, None
        ]
    seen = given[0, 0] if given.dtype == torch.bool else given[0, 0] >= 0
    if bool((seen & ~causal).any()):
        raise UnsupportedCallError(
            "the model attends to tokens that come later; only models that read from left to right can be traced"
        )
    return given[:1, :1]


def _between(name: str, value: Any, start: int, end: int, tokens: int) -> Any:
    """An argument of a layer for some of the tokens alone."""
    import torch

    if isinstance(value, tuple):
        return tuple(_between(name, one, start, end, tokens) for one in value)
    if not isinstance(value, torch.Tensor):
        return value
    if name == "attention_mask":
        return value[:, :, start:end, :end]
    if value.dim() == 1 and value.shape[0] == tokens:
        return value[start:end]
    if value.dim() >= 2 and value.shape[1] == tokens:
        return value[:1, start:end]
    return value
