"""Knowledge neurons: which neurons of the MLPs an answer rests on, and what happens when they are changed.

Dai et al. 2022, *Knowledge Neurons in Pretrained Transformers*. A neuron is one number that an MLP's last projection is
given. At the last token of the prompt, the neurons of one layer are scaled together from 0 to their value; a neuron's
attribution is its integrated gradient along that way ("knowledge attribution")::

    Attr(w) = w * integral over a from 0 to 1 of dP(a w)/dw

with P the probability of the answer. The integral is a Gauss-Legendre sum where the paper has a Riemann sum of as many
steps, and in u with a = u^3: where a norm stands behind the MLP (Gemma, OLMo 2), nearly all that happens on the way
happens close to 0. By completeness the attributions of a layer add up to P - P(all its neurons at 0). How far they are
from that is measured for every layer, since it tells whether the steps were enough.

The knowledge neurons of a fact are those whose attribution is above a share of the largest one (t in the paper), for a
share of the prompts that ask for it (p; "knowledge neuron refining").

All layers and steps go through the model as one batch, as restorations do: what is scaled in layer 3 joins at layer 3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from memedit.architectures import Architecture, architecture_of
from memedit.errors import InvalidPromptError
from memedit.locate.answers import answer_tokens, own_answer
from memedit.locate.recording import KeysAndValues, Recording, hooked, read_out, record, run_layer
from memedit.passes import logits_of
from memedit.ranges import check_fields

if TYPE_CHECKING:
    import torch

__all__ = [
    "Attributions",
    "Neuron",
    "NeuronChange",
    "NeuronConfig",
    "NeuronReport",
    "attribute",
    "complete_attributions",
    "find_neurons",
    "refined",
]


_COMPLETE = 0.01
"""How far attributions may be from adding up, as a share."""

_DOUBLINGS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuronConfig:
    """How knowledge neurons are found. The defaults are the paper's.

    Attributes:
        steps: Steps of the integral (m). Where attributions do not add up to 1%, it is worked out again with twice as
            many, up to 16 times as many (in 16 bits, as long as that halves what is missing).
        threshold: The share of the largest attribution that a neuron has to have (t).
        share: In what share of the prompts it has to have it (p).
    """

    steps: int = 20
    threshold: float = 0.2
    share: float = 0.7

    def __post_init__(self) -> None:
        check_fields(self, "steps", least=1)
        check_fields(self, "threshold", "share", above=0, most=1)


@dataclass(frozen=True, slots=True)
class Attributions:
    """The attributions of one prompt's neurons.

    Attributes:
        values: Of each neuron, ``[layers, neurons]``.
        differences: P - P(the layer's neurons at 0), ``[layers]``.
        probability: P.
    """

    values: torch.Tensor
    differences: torch.Tensor
    probability: float

    @property
    def missing(self) -> torch.Tensor:
        """How far each layer's sum is from its difference, as a share of all layers' differences, ``[layers]``."""
        apart = (self.values.sum(dim=1) - self.differences).abs()
        return apart / self.differences.abs().sum().clamp(min=1e-30)

    @property
    def incompleteness(self) -> float:
        """How far the sums of the layers are from the differences, as a share of the differences, over all layers."""
        return float(self.missing.sum())

    def with_layers(self, layers: Sequence[int], others: Attributions) -> Attributions:
        """These, with some layers' values in place of their own; ``others`` has a row for each of ``layers``."""
        values = self.values.clone()
        values[list(layers)] = others.values
        return replace(self, values=values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Neuron:
    """A knowledge neuron.

    Attributes:
        layer: Its layer.
        place: Its place among the layer's neurons.
        attribution: Its mean attribution over the prompts.
        prompts: In how many prompts it is above the threshold.
    """

    layer: int
    place: int
    attribution: float
    prompts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuronChange:
    """What changing the neurons does to one prompt.

    Attributes:
        prompt: The prompt.
        clean: The answer's probability.
        suppressed: With the neurons at 0.
        amplified: With the neurons doubled.
    """

    prompt: str
    clean: float
    suppressed: float
    amplified: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuronReport:
    """The knowledge neurons of a fact.

    Attributes:
        answer: The answer's first token, whose probability is measured.
        neurons: The neurons, the largest attribution first.
        by_layer: The sum of all attributions of each layer, the mean over the prompts.
        changes: What changing the neurons does, one record a prompt.
        incompleteness: The largest of the prompts: how far attributions are from adding up, as a share.
        config: How they were found.
    """

    answer: str
    neurons: tuple[Neuron, ...]
    by_layer: tuple[float, ...]
    changes: tuple[NeuronChange, ...]
    incompleteness: float
    config: NeuronConfig

    def to_json(self) -> dict[str, Any]:
        """The record as JSON has it."""
        return asdict(self)


def find_neurons(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    answer: str | None = None,
    config: NeuronConfig | None = None,
    report: Callable[[int, int], None] | None = None,
) -> NeuronReport:
    """Find the knowledge neurons of a fact, and see what they do.

    Args:
        model: A model of a family in `memedit.architectures`.
        tokenizer: Its tokenizer.
        prompts: The prompt and paraphrases of it, all of which the answer continues.
        answer: The answer; None for what the model itself says behind the first prompt. Its first token is measured.
        config: How to look.
        report: Is told how many prompts are done.

    Raises:
        InvalidPromptError: There is no prompt, or one is empty.
    """
    config = config if config is not None else NeuronConfig()
    if not prompts or not all(prompt.strip() for prompt in prompts):
        raise InvalidPromptError("give a prompt that the answer continues; there is none, or an empty one")
    rows = [tuple(tokenizer(prompt)["input_ids"]) for prompt in prompts]
    if answer is None:
        token = own_answer(model, tokenizer, rows[0]).ids[0]
    else:
        token = answer_tokens(model, tokenizer, prompts[0], rows[0], answer).ids[0]
    found = []
    for done, ids in enumerate(rows):
        found.append(complete_attributions(model, ids, token, steps=config.steps))
        if report is not None:
            report(done + 1, len(rows))
    neurons = refined([one.values for one in found], config)
    places = [(one.layer, one.place) for one in neurons]
    changes = [
        NeuronChange(
            prompt=prompt,
            clean=one.probability,
            suppressed=changed_probability(model, ids, token, places, factor=0.0),
            amplified=changed_probability(model, ids, token, places, factor=2.0),
        )
        for prompt, ids, one in zip(prompts, rows, found, strict=True)
    ]
    return NeuronReport(
        answer=tokenizer.decode([token]),
        neurons=tuple(neurons),
        by_layer=tuple(sum(one.values.sum(dim=1) for one in found).div(len(found)).tolist()),  # type: ignore[union-attr]
        changes=tuple(changes),
        incompleteness=max(one.incompleteness for one in found),
        config=config,
    )


def attribute(
    model: Any, ids: Sequence[int], answer: int, *, steps: int = 20, layers: Sequence[int] | None = None
) -> Attributions:
    """The attributions of every neuron at a prompt's last token.

    Args:
        model: The model, in evaluation mode.
        ids: The prompt's token ids.
        answer: The token whose probability is measured.
        steps: Steps of the integral.
        layers: The layers whose neurons are wanted, in ascending order; None for all. A row of the result is one.
    """
    import torch

    architecture = architecture_of(model)
    recording, neurons = _recorded(model, architecture, ids)
    places = list(range(len(neurons)) if layers is None else layers)
    neurons = [neurons[layer] for layer in places]
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    like = neurons[0]
    along = (nodes + 1) / 2  # from [-1, 1] to [0, 1]
    # the last row, all neurons at 0, is for completeness alone
    scales = torch.tensor([*along**3, 0.0], dtype=like.dtype, device=like.device)
    with torch.enable_grad():
        scaled = [(scales[:, None] * one).requires_grad_(True) for one in neurons]
        chances = _with_neurons(model, architecture, recording, dict(zip(places, scaled, strict=True)), answer)
        gradients = torch.autograd.grad(chances[:, :-1].sum(), scaled)
    shares = torch.tensor([*(weights / 2 * 3 * along**2), 0.0], dtype=like.dtype, device=like.device)
    values = [one * (shares @ gradient) for one, gradient in zip(neurons, gradients, strict=True)]
    clean = float(_chance(recording.logits[0, -1], answer))
    return Attributions(torch.stack(values), clean - chances[:, -1].detach(), clean)


def complete_attributions(model: Any, ids: Sequence[int], answer: int, *, steps: int = 20) -> Attributions:
    """As `attribute`, with more steps until attributions add up to 1%, if they can be brought to.

    Only the layers that miss more than their even share of that take more steps, in SmolLM2 the first alone. In 16 bits
    steps often do not help: SmolLM2's in bfloat16 stay 6 to 13% apart.

    Args:
        model: The model.
        ids: The prompt's token ids.
        answer: The token whose probability is measured.
        steps: Steps to begin with. `Attributions.incompleteness` says how far it got.
    """
    import torch

    found = attribute(model, ids, answer, steps=steps)
    for _ in range(_DOUBLINGS):
        if found.incompleteness <= _COMPLETE:
            break
        steps *= 2
        layers = [
            layer for layer, missing in enumerate(found.missing.tolist()) if missing > _COMPLETE / len(found.missing)
        ]
        finer = found.with_layers(layers, attribute(model, ids, answer, steps=steps, layers=layers))
        # steps halve what is missing at the least; where they do not, 16 bits are what is missing
        if torch.finfo(model.dtype).bits < 32 and finer.incompleteness > found.incompleteness / 2:
            return min(found, finer, key=lambda one: one.incompleteness)
        found = finer
    return found


def refined(attributions: Sequence[torch.Tensor], config: NeuronConfig) -> list[Neuron]:
    """The neurons that are above the threshold in enough prompts, the largest mean attribution first.

    Args:
        attributions: Of each prompt, ``[layers, neurons]``.
        config: The threshold and the share.
    """
    counts: Counter[tuple[int, int]] = Counter()
    for values in attributions:
        above = (values > config.threshold * values.max()).nonzero().tolist()
        counts.update((layer, place) for layer, place in above)
    mean = sum(attributions[1:], attributions[0]) / len(attributions)
    kept = [
        Neuron(layer=layer, place=place, attribution=float(mean[layer, place]), prompts=count)
        for (layer, place), count in counts.items()
        if count >= config.share * len(attributions)
    ]
    return sorted(kept, key=lambda one: (-one.attribution, one.layer, one.place))


def changed_probability(
    model: Any, ids: Sequence[int], answer: int, neurons: Sequence[tuple[int, int]], *, factor: float
) -> float:
    """The answer's probability with some neurons multiplied at the last token.

    Args:
        model: The model.
        ids: The prompt's token ids.
        answer: The token whose probability is measured.
        neurons: Layer and place of each.
        factor: What they are multiplied by: 0 suppresses, 2 amplifies as the paper does.
    """
    import torch

    architecture = architecture_of(model)
    by_layer: dict[int, list[int]] = {}
    for layer, place in neurons:
        by_layer.setdefault(layer, []).append(place)

    def multiplying(places: list[int]) -> Callable[[Any, tuple[Any, ...]], tuple[Any, ...]]:
        def hook(_: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
            values = given[0].clone()
            values[:, -1, places] *= factor
            return (values, *given[1:])

        return hook

    with ExitStack() as hooks, torch.no_grad():
        for layer, places in by_layer.items():
            module = model.get_submodule(architecture.module_name(layer, "mlp_out"))
            hooks.enter_context(hooked(module.register_forward_pre_hook(multiplying(places))))
        return float(_chance(logits_of(model, [list(ids)], keep=1)[0, -1], answer))


def _recorded(model: Any, architecture: Architecture, ids: Sequence[int]) -> tuple[Recording, list[torch.Tensor]]:
    """The clean run, and the neurons of each layer at the last token, ``[neurons]``."""
    import torch

    neurons: list[torch.Tensor] = []

    def keep(_: Any, given: tuple[Any, ...]) -> None:
        neurons.append(given[0][0, -1].detach())

    with ExitStack() as hooks:
        for layer in range(architecture.layer_count(model)):
            module = model.get_submodule(architecture.module_name(layer, "mlp_out"))
            hooks.enter_context(hooked(module.register_forward_pre_hook(keep)))
        width = model.get_input_embeddings().weight.shape[1]
        recording = record(model, architecture, ids, noise=torch.zeros(0, 0, width), start=0)
    return recording, neurons


def _with_neurons(
    model: Any, architecture: Architecture, recording: Recording, scaled: Mapping[int, torch.Tensor], answer: int
) -> torch.Tensor:
    """The answer's probability with the neurons of one layer at a time replaced at the last token.

    Args:
        model: The model.
        architecture: Where its parts are.
        recording: Its clean run.
        scaled: What layers' neurons are replaced by, ``[steps, neurons]`` each, in ascending order of the layers.
        answer: The token whose probability is measured.

    Returns:
        ``[layers, steps]``.
    """
    import torch

    last, first, steps = recording.tokens - 1, min(scaled), len(next(iter(scaled.values())))
    state = recording.inputs.new_empty(0, 1, recording.inputs.shape[2])
    for layer, module in enumerate(model.get_submodule(architecture.layers)[first:], start=first):
        with ExitStack() as hooks:
            if layer in scaled:
                state = torch.cat([state, recording.given(layer)[:, last:].expand(steps, -1, -1)])
                module_out = module.get_submodule(architecture.mlp_out)
                hooks.enter_context(hooked(module_out.register_forward_pre_hook(_last_rows_are(scaled[layer]))))
            keys, values = (one[layer][:, :, :last] for one in (recording.keys, recording.values))
            rows = (len(state), -1, -1, -1)
            cache = KeysAndValues(keys.expand(rows), values.expand(rows))
            state = run_layer(module, state, recording.call(layer, last, last + 1), cache)
    chances = _chance(read_out(model, architecture, state[:, -1]), answer)
    return chances.view(len(scaled), steps)


def _last_rows_are(own: torch.Tensor) -> Callable[[Any, tuple[Any, ...]], tuple[Any, ...]]:
    """A hook by which a module reads its last rows from elsewhere, ``[rows, neurons]``."""
    import torch

    def hook(_: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return (torch.cat([given[0][: len(given[0]) - len(own)], own[:, None]]), *given[1:])

    return hook


def _chance(logits: torch.Tensor, token: int) -> torch.Tensor:
    """The probability of a token, ``[...]``."""
    import torch

    return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(dim=-1)[..., token]
