"""What goes on inside a model: activations at chosen tokens, and passes that compute only what a change can reach.

`activations` and its like read the inputs and outputs of modules, and stop behind the last one that is asked for.
`SplitPass` is for optimisation: a vector is added to what a module writes at one token of each row, many times over.
Below the module's layer, and before that token, nothing depends on the vector; these hidden states, keys and values are
computed once, and each pass runs the upper layers on the last tokens alone (`memedit.frozen_layers` tells what else
leaves layers out).

This file works on token ids and module names. It knows nothing of edits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from memedit.architectures import architecture_of
from memedit.hooks import running_instead
from memedit.passes import folded_head, pad_left, positions, takes
from memedit.processors import multiplies_in_bfloat16

if TYPE_CHECKING:
    import torch

__all__ = ["Side", "SplitPass", "activations", "activations_of_all", "inputs_of"]

Side = tuple[str, bool]
"""A module's name, and whether its output is meant; else its input."""

_MOST_TOKENS = 4_096
"""Tokens of one pass of `activations`, padding included."""


class _Reached(Exception):  # noqa: N818 - no error: it ends a pass that has given all it is asked for
    """The last module that is wanted has run."""


def activations(
    model: Any,
    rows: Sequence[Sequence[int]],
    places: Sequence[int],
    sides: Sequence[Side],
    *,
    parameters: Mapping[str, torch.Tensor] | None = None,
) -> dict[Side, torch.Tensor]:
    """Reads what goes into modules, and comes out of them, at one token of each row.

    What stands behind that token is not read: in a decoder-only model it has no influence.

    Args:
        model: The model.
        rows: Token ids.
        places: Which token of each row, from 0.
        sides: What is wanted.
        parameters: Values in place of the model's own parameters, by name.

    Returns:
        For each side the activations, ``[rows, width]``, without gradient.
    """
    import torch

    found: dict[Side, list[tuple[int, torch.Tensor]]] = {side: [] for side in sides}
    for batch in _batches(rows, places):
        cut = [rows[row][: places[row] + 1] for row in batch]
        taken, _ = _taken(model, cut, sides, parameters)
        for side, value in taken.items():
            found[side] += zip(batch, value[:, -1].clone(), strict=True)
    return {side: torch.stack([value for _, value in sorted(pairs, key=_first)]) for side, pairs in found.items()}


def activations_of_all(model: Any, rows: Sequence[Sequence[int]], sides: Sequence[Side]) -> dict[Side, torch.Tensor]:
    """As `activations`, at every token of some rows, in one pass; ``[tokens, width]``, padding left out."""
    taken, mask = _taken(model, rows, sides)
    return {side: value[mask.bool()] for side, value in taken.items()}


def inputs_of(model: Any, path: str, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """What one module reads at each token of some rows, in one pass that ends there, without gradients.

    Args:
        model: The model.
        path: The module's path in it.
        rows: Token ids, at least one row.

    Returns:
        For each row the module's first input at the row's own tokens, ``[tokens, width]``.
    """
    side = (path, False)
    taken, _ = _taken(model, rows, [side])
    return [read[-len(row) :] for read, row in zip(taken[side], rows, strict=True)]


def _first(pair: tuple[int, Any]) -> int:
    return pair[0]


def _batches(rows: Sequence[Sequence[int]], places: Sequence[int]) -> Iterator[list[int]]:
    """Indices of rows of about the same length, few enough for one pass."""
    order = sorted(range(len(rows)), key=lambda row: -places[row])
    while order:
        size = max(1, _MOST_TOKENS // (places[order[0]] + 1))
        yield order[:size]
        order = order[size:]


def _taken(
    model: Any,
    rows: Sequence[Sequence[int]],
    sides: Sequence[Side],
    parameters: Mapping[str, torch.Tensor] | None = None,
) -> tuple[dict[Side, torch.Tensor], torch.Tensor]:
    """What passes some modules, ``[rows, width, width of the module]``, and which tokens are the rows' own."""
    import torch

    taken: dict[Side, torch.Tensor] = {}
    wanted = len(set(sides))

    def keep(side: Side, value: Any) -> None:
        taken[side] = (value[0] if isinstance(value, tuple) else value).detach()
        if len(taken) == wanted:
            raise _Reached

    ids, mask = pad_left(rows, device=model.device)
    options: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
    if takes(model, "position_ids"):
        options["position_ids"] = positions(mask)
    with torch.no_grad(), ExitStack() as stack:
        for side in set(sides):
            module = model.get_submodule(side[0])
            if side[1]:
                hook = module.register_forward_hook(lambda _, __, output, side=side: keep(side, output))
            else:
                hook = module.register_forward_pre_hook(
                    lambda _, given, named, side=side: keep(side, given or named["hidden_states"]), with_kwargs=True
                )
            stack.callback(hook.remove)
        stack.enter_context(suppress(_Reached))
        _call(model, parameters, options)
    return taken, mask


def _call(model: Any, parameters: Mapping[str, torch.Tensor] | None, options: dict[str, Any]) -> Any:
    """A model's pass, with other values for some of its parameters."""
    import torch

    return torch.func.functional_call(model, dict(parameters), kwargs=options) if parameters else model(**options)


class SplitPass:
    """A model on some rows, with everything that is the same in each pass computed beforehand.

    Attributes:
        places: For each row the column of its token, counted from where the passes begin.

    Args:
        model: The model, in evaluation mode. Its weights must not change while this is in use.
        rows: Token ids.
        places: Which token of each row is changed, from 0.
        layer: The layer in which it is changed.
        parameters: Values in place of the model's own parameters, by name.
        bfloat16: Whether the passes multiply matrices in that precision; what is computed beforehand is not. A
            processor that would only imitate it, many times as slowly, multiplies in the weights' own.
    """

    def __init__(
        self,
        model: Any,
        rows: Sequence[Sequence[int]],
        places: Sequence[int],
        layer: int,
        *,
        parameters: Mapping[str, torch.Tensor] | None = None,
        bfloat16: bool = False,
    ) -> None:
        import torch
        from transformers import DynamicCache

        architecture = architecture_of(model)
        self._model = model
        self._parameters = dict(parameters or {})
        self._below = [model.get_submodule(architecture.module_name(one)) for one in range(layer)]
        ids, mask = pad_left(rows, device=model.device)
        width = ids.shape[1]
        columns = [width - len(row) + place for row, place in zip(rows, places, strict=True)]
        begin = min(columns)
        self.places = torch.tensor([column - begin for column in columns], device=ids.device)
        self._options: dict[str, Any] = {"input_ids": ids[:, begin:], "attention_mask": mask}
        if takes(model, "position_ids"):
            self._options["position_ids"] = positions(mask)[:, begin:]
        self._before: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._hidden: Any = None
        if layer or begin:
            cache = DynamicCache()
            whole = {**self._options, "input_ids": ids}
            if "position_ids" in whole:
                whole["position_ids"] = positions(mask)
            with torch.no_grad(), folded_head(model), ExitStack() as stack:
                if self._below:
                    stack.callback(self._below[-1].register_forward_hook(self._keep).remove)
                if takes(model, "logits_to_keep"):
                    whole["logits_to_keep"] = 1
                _call(model, self._parameters, {**whole, "past_key_values": cache, "use_cache": True})
            if begin:  # the first layer's are those that masks are measured by
                for one in (0, *range(max(1, layer), len(cache.layers))):
                    held = cache.layers[one]
                    self._before[one] = (held.keys[:, :, :begin].clone(), held.values[:, :, :begin].clone())
            if self._below:
                self._hidden = _sliced(self._hidden, begin)
        self._bfloat16 = bfloat16 and multiplies_in_bfloat16(model.device)

    def __call__(self, added: Mapping[str, torch.Tensor], *, keep: int) -> torch.Tensor:
        """What the model makes of the rows if vectors are added to what modules write at the rows' tokens.

        Args:
            added: A vector a row by the name of the module, ``[rows, width]``; modules of the layer or above it.
            keep: At how many places, counted from the end, logits are wanted.

        Returns:
            Logits, ``[rows, keep, vocabulary]``, with a gradient towards what is added.
        """
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel
        from transformers import DynamicCache

        cache = DynamicCache() if self._before else None
        if cache is not None:
            for layer, (keys, values) in self._before.items():
                cache.update(keys, values, layer)
        options = {**self._options, "past_key_values": cache, "use_cache": cache is not None}
        if takes(self._model, "logits_to_keep"):
            options["logits_to_keep"] = keep
        rows = torch.arange(len(self.places), device=self.places.device)

        def add(vectors: torch.Tensor, output: Any) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output
            changed = hidden.index_put((rows, self.places), vectors.to(hidden.dtype), accumulate=True)
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        with folded_head(self._model), ExitStack() as stack:
            for name, vectors in added.items():
                module = self._model.get_submodule(name)
                hook = module.register_forward_hook(lambda _, __, output, vectors=vectors: add(vectors, output))
                stack.callback(hook.remove)
            # the layers below give what they gave before, without computing it
            stack.enter_context(running_instead(self._below, lambda *_, **__: self._hidden))
            if self.places.device.type == "cpu":  # on a few short rows the fused kernel's gradient is the slower one
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            if self._bfloat16:
                stack.enter_context(torch.autocast(self.places.device.type, dtype=torch.bfloat16))
            logits: torch.Tensor = _call(self._model, self._parameters, options).logits
        return logits[:, -keep:]

    def narrow(self, rows: Sequence[int]) -> None:
        """Goes on with some of the rows alone; ``rows`` are their indices."""
        import torch

        index = torch.tensor(rows, dtype=torch.long, device=self.places.device)
        self.places = self.places[index]
        self._options = {name: value[index] for name, value in self._options.items()}
        self._before = {layer: (keys[index], values[index]) for layer, (keys, values) in self._before.items()}
        if isinstance(self._hidden, tuple):
            self._hidden = (self._hidden[0][index], *self._hidden[1:])
        elif self._hidden is not None:
            self._hidden = self._hidden[index]

    def _keep(self, _: Any, __: Any, output: Any) -> None:
        self._hidden = output


def _sliced(output: Any, begin: int) -> Any:
    if isinstance(output, tuple):
        return (output[0][:, begin:].clone(), *(None for _ in output[1:]))
    return output[:, begin:].clone()
