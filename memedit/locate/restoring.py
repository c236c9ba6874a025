"""Corrupted runs with one part put back as it was in the clean run: all of a token's at once.

A restoration puts something back at one token, in one layer or in some that follow one another (Meng et al. 2022,
*Locating and Editing Factual Associations in GPT*, section 2.1 and appendix B). Before that layer, and at all tokens
before, the corrupted run goes on as it did; so nothing of that is worked out again:

- The layers are gone through once for each token. What is put back in layer 3 joins the batch at layer 4, beside what
  was put back in layer 2, and so on: one batch with every layer's restorations, of every kind and noise sample.
- A row of the batch begins at its token. The keys and values of the tokens before are those of the corrupted run.
- Only the places where the answer is read are multiplied with the vocabulary.

Layers are called as the model calls them, with hooks on their attention and MLP, so that this holds for every family of
`memedit.architectures`. `tests/test_tracing.py` compares it with one ordinary pass of the model for each restoration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from memedit.architectures import Architecture
from memedit.errors import ConfigError
from memedit.locate.recording import KeysAndValues, Recording, first_of, hooked, read_out, run_layer, with_first

if TYPE_CHECKING:
    import torch

__all__ = ["CONTROL", "Kind", "Part", "Restoration", "Restorer", "restorations"]

Part = Literal["attention", "mlp"]
"""The two sides of a layer."""

Kind = Literal["hidden", "mlp", "attention", "hidden-mlp-severed", "hidden-attention-severed"]
"""What is put back: a hidden state, what MLPs or attention put out, or a hidden state behind which one of the two is
cut: frozen, at that token and in all later layers, at what it put out in the corrupted run."""

_READ_AT_ONCE = 128
"""Places whose logits are worked out together: over a large vocabulary they are most of the memory."""

CONTROL = -1
"""The layer of the restoration that puts nothing back; it has to come out as the corrupted run did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoration:
    """What is put back at one token.

    Attributes:
        kind: What.
        layer: The layer that it is counted under.
        first: The first layer in which it is put back.
        last: The last one; for a hidden state the same.
    """

    kind: Kind
    layer: int
    first: int
    last: int

    @property
    def starts(self) -> int:
        """The layer from which on the run differs: for a hidden state, what the layer puts out is known already."""
        return self.first + 1 if self.of_hidden else self.first

    @property
    def of_hidden(self) -> bool:
        """Whether it is the hidden state that is put back."""
        return self.kind.startswith("hidden")

    def source(self, part: Part, layer: int) -> Literal["clean", "corrupted"] | None:
        """From which run the token's output of a side of a layer comes; None where it is worked out."""
        if self.kind == part and self.first <= layer <= self.last:
            return "clean"
        if self.kind == f"hidden-{part}-severed" and layer > self.last:
            return "corrupted"
        return None


def restorations(kind: Kind, layers: int, *, window: int) -> list[Restoration]:
    """What is put back of one kind, for every layer.

    Args:
        kind: What.
        layers: How many layers the model has.
        window: How many layers around each are put back together, cut off at the model's ends, as the paper's code has
            it; 1 for the layer alone. Hidden states are always put back alone.

    Raises:
        ConfigError: The window is empty.
    """
    if window < 1:
        raise ConfigError(f"a window has at least 1 layer, not {window}.")
    if kind.startswith("hidden"):
        window = 1
    return [
        Restoration(
            kind=kind,
            layer=layer,
            first=max(0, layer - window // 2),
            last=min(layers, layer + (window + 1) // 2) - 1,
        )
        for layer in range(layers)
    ]


class Restorer:
    """Runs restorations over one recording.

    Args:
        model: The model.
        architecture: Where its parts are.
        recording: Its clean and corrupted runs.
        score: Turns logits ``[rows, places, vocabulary]`` into what is measured, ``[rows]``.
        places: At how many places, counted from the end, the answer is read.
        batch_tokens: The most tokens of a batch.
    """

    def __init__(
        self,
        model: Any,
        architecture: Architecture,
        recording: Recording,
        *,
        score: Callable[[torch.Tensor], torch.Tensor],
        places: int,
        batch_tokens: int,
    ) -> None:
        self._model = model
        self._architecture = architecture
        self._layers = model.get_submodule(architecture.layers)
        self._recording = recording
        self._score = score
        self._places = places
        self._batch_tokens = batch_tokens
        self._samples = recording.inputs.shape[0] - 1

    def at(self, token: int, wanted: Sequence[Restoration]) -> torch.Tensor:
        """The scores with each restoration made at one token.

        Args:
            token: Which token.
            wanted: The restorations.

        Returns:
            ``[restorations, samples]``, in the order given.
        """
        import torch

        # what is known before a layer is run stands before what has to be run in it
        order = sorted(range(len(wanted)), key=lambda place: (wanted[place].starts, not wanted[place].of_hidden))
        scores = self._in_order(token, [wanted[place] for place in order])
        result = torch.empty_like(scores)
        result[torch.tensor(order, device=scores.device)] = scores
        return result

    def _in_order(self, token: int, wanted: Sequence[Restoration]) -> torch.Tensor:
        """As `at`, for restorations in the order in which they join the batch."""
        import torch

        record, samples = self._recording, self._samples
        state = record.inputs.new_empty(0, record.tokens - token, record.inputs.shape[2])
        joined = 0
        for layer in range(len(self._layers)):
            starting = [one for one in wanted[joined:] if one.starts == layer]
            ready = [one for one in starting if one.of_hidden]
            entering = starting[len(ready) :]
            if ready:
                state = torch.cat([state, *(self._restored(one, layer, token) for one in ready)])
                joined += len(ready)
            if joined:
                state = self._run(layer, token, state, wanted[:joined], end=record.tokens)
            if entering:
                state = torch.cat([state, self._entered(layer, token, entering)])
                joined += len(entering)
        if joined < len(wanted):  # hidden states of the last layer
            rest = wanted[joined:]
            state = torch.cat([state, *(self._restored(one, len(self._layers), token) for one in rest)])
        read, step = state[:, -self._places :], max(1, _READ_AT_ONCE // self._places)
        scored = [
            self._score(read_out(self._model, self._architecture, read[begin : begin + step]))
            for begin in range(0, len(read), step)
        ]
        return torch.cat(scored).view(len(wanted), samples)

    def _restored(self, one: Restoration, layer: int, token: int) -> torch.Tensor:
        """What a layer is given in the corrupted runs, the hidden state of the token put back, ``[samples, ...]``."""
        given = self._recording.given(layer)
        rows = given[1:, token:].clone()
        if one.layer != CONTROL:
            rows[:, 0] = given[0, token]
        return rows

    def _entered(self, layer: int, token: int, entering: Sequence[Restoration]) -> torch.Tensor:
        """What a layer puts out in which a part is put back for the first time: only the token itself is run."""
        import torch

        given, put_out = self._recording.given(layer)[1:], self._recording.outputs[layer][1:]
        alone = given[:, token : token + 1].repeat(len(entering), 1, 1)
        own = self._run(layer, token, alone, entering, end=token + 1)
        return torch.cat([own, put_out[:, token + 1 :].repeat(len(entering), 1, 1)], dim=1)

    def _run(
        self, layer: int, token: int, state: torch.Tensor, wanted: Sequence[Restoration], *, end: int
    ) -> torch.Tensor:
        """Run a layer over the rows of some restorations, ``[restorations x samples, end - token, width]``."""
        import torch

        record, samples = self._recording, self._samples
        call = record.call(layer, token, end)
        step = max(1, self._batch_tokens // (samples * (end - token)))
        keys, values = record.keys[layer][1:, :, :token], record.values[layer][1:, :, :token]
        done = []
        for begin in range(0, len(wanted), step):
            some = wanted[begin : begin + step]
            cache = KeysAndValues(keys.repeat(len(some), 1, 1, 1), values.repeat(len(some), 1, 1, 1))
            with self._put_back(layer, token, some):
                rows = state[begin * samples : (begin + len(some)) * samples]
                done.append(run_layer(self._layers[layer], rows, call, cache))
        return torch.cat(done)

    @contextmanager
    def _put_back(self, layer: int, token: int, wanted: Sequence[Restoration]) -> Iterator[None]:
        """Puts what the restorations say in the place of what a layer's attention and MLP give at the token."""
        module, record = self._layers[layer], self._recording
        with ExitStack() as hooks:
            sides: tuple[tuple[Part, str, torch.Tensor], ...] = (
                ("attention", self._architecture.attention, record.attention[layer]),
                ("mlp", self._architecture.mlp, record.mlp[layer]),
            )
            for part, path, recorded in sides:
                sources = [one.source(part, layer) for one in wanted]
                if any(sources):
                    hook = _replacing(sources, recorded[:, token])
                    hooks.enter_context(hooked(module.get_submodule(path).register_forward_hook(hook)))
            yield


def _replacing(sources: Sequence[str | None], recorded: torch.Tensor) -> Callable[[Any, Any, Any], Any]:
    """A hook that replaces the first token's output in the rows of some restorations.

    Args:
        sources: For each restoration the run that its value comes from, or None.
        recorded: The values, ``[1 + samples, width]``, the clean run's first.
    """
    import torch

    samples = recorded.shape[0] - 1
    changed = [place for place, source in enumerate(sources) if source is not None]
    values = torch.cat(
        [recorded[1:] if sources[place] == "corrupted" else recorded[:1].expand(samples, -1) for place in changed]
    )
    rows = torch.cat([torch.arange(place * samples, (place + 1) * samples) for place in changed]).to(recorded.device)

    def hook(_: Any, __: Any, output: Any) -> Any:
        given = first_of(output).clone()
        given[rows, 0] = values.to(given.dtype)
        return with_first(output, given)

    return hook
