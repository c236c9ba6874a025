"""Causal tracing as it is defined and nothing else: one ordinary forward pass for each restoration of each sample.

The reference that the batched one is compared with. It shares no code with it but the table of module paths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch

from memedit.architectures import architecture_of

Replacement = Callable[[torch.Tensor], torch.Tensor]


def untupled(output: Any) -> torch.Tensor:
    found: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return found


class SlowTracer:
    """Runs one prompt with one noise sample.

    Args:
        model: The model.
        ids: The prompt's tokens, and all but the last of the answer's.
        noise: What is added to the embeddings, ``[tokens, width]``.
        start: The first token that it is added to.
        answer: The answer's tokens.
    """

    def __init__(self, model: Any, ids: Sequence[int], noise: torch.Tensor, start: int, answer: Sequence[int]) -> None:
        self.model = model
        self.ids = torch.tensor([list(ids)])
        self.noise = noise
        self.start = start
        self.answer = answer
        self.architecture = architecture_of(model)
        self.layers = self.architecture.layer_count(model)
        self.states: dict[str, dict[str, torch.Tensor]] = {}
        self.clean = self.run({}, noisy=False, keep="clean")
        self.corrupted = self.run({}, noisy=True, keep="corrupted")

    def name(self, part: str, layer: int) -> str:
        return self.architecture.module_name(layer, None if part == "hidden" else part)  # type: ignore[arg-type]

    def run(self, replaced: dict[str, tuple[int, str]], *, noisy: bool, keep: str | None = None) -> float:
        """The answer's probability, the outputs of some modules replaced at one token by those of another run."""
        kept: dict[str, torch.Tensor] = {}

        def corrupt(_: Any, __: Any, embedded: torch.Tensor) -> torch.Tensor:
            embedded = embedded.clone()
            embedded[:, self.start : self.start + len(self.noise)] += self.noise.to(embedded.dtype)
            return embedded

        def at(name: str) -> Callable[..., Any]:
            def hook(_: Any, __: Any, output: Any) -> Any:
                value = untupled(output).clone()
                if name in replaced:
                    token, run = replaced[name]
                    value[:, token] = self.states[run][name][:, token]
                kept[name] = value
                return (value, *output[1:]) if isinstance(output, tuple) else value

            return hook

        with ExitStack() as hooks, torch.no_grad():
            if noisy:
                embeddings = self.model.get_submodule(self.architecture.embeddings)
                hooks.callback(embeddings.register_forward_hook(corrupt).remove)
            for layer in range(self.layers):
                for part in ("hidden", "mlp", "attention"):
                    name = self.name(part, layer)
                    hooks.callback(self.model.get_submodule(name).register_forward_hook(at(name)).remove)
            logits = self.model(input_ids=self.ids, use_cache=False).logits[0, -len(self.answer) :]
        if keep is not None:
            self.states[keep] = kept
        chances = logits.double().softmax(dim=-1)
        return float(torch.stack([chances[place, token] for place, token in enumerate(self.answer)]).prod())

    def restored(self, kind: str, token: int, layer: int, window: int = 1) -> float:
        """The answer's probability in the corrupted run with one restoration."""
        replaced: dict[str, tuple[int, str]] = {}
        if kind.startswith("hidden"):
            replaced[self.name("hidden", layer)] = (token, "clean")
            for part in ("mlp", "attention"):
                if kind == f"hidden-{part}-severed":
                    for later in range(layer + 1, self.layers):
                        replaced[self.name(part, later)] = (token, "corrupted")
        else:
            # as the paper's code has it: range(max(0, layer - window // 2), min(layers, layer - (-window // 2)))
            for inside in range(max(0, layer - window // 2), min(self.layers, layer - (-window // 2))):
                replaced[self.name(kind, inside)] = (token, "clean")
        return self.run(replaced, noisy=True)
