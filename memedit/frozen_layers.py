"""The layers of a model below one, run once for inputs that are asked for again and again.

Where only something at a layer or above it is trained, what the layers below give is the same in every step. It is kept
after the first one, and given out again in place of running them: the results are the same to the last bit, in a
fraction of the time.

Others leave lower layers out, each for a need of its own. `training.lower_layers` keeps what single texts give, in
a file, so that any of them can share a batch; `memedit.editors.activations.SplitPass` leaves out the tokens before a
changed one as well, and keeps their keys and values; `memedit.locate.restoring` runs layers apart, each from a recorded
state. This file knows nothing of what is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

from memedit.architectures import architecture_of
from memedit.hooks import running_instead

__all__ = ["FrozenLayers"]


class FrozenLayers:
    """What the layers below one give, by inputs.

    Args:
        model: The model. Below the layer nothing may change for as long as this is used.
        below: The first layer that is run each time, from 0.
    """

    def __init__(self, model: Any, below: int) -> None:
        architecture = architecture_of(model)
        self._layers = [model.get_submodule(architecture.module_name(layer)) for layer in range(below)]
        self._kept: dict[Hashable, Any] = {}

    @contextmanager
    def of(self, inputs: Hashable) -> Iterator[None]:
        """Have one forward pass, of these inputs, begin at the layer from the second time on.

        Args:
            inputs: What tells these inputs from others.
        """
        if not self._layers:
            yield
            return
        if inputs in self._kept:
            kept = self._kept[inputs]
            with running_instead(self._layers, lambda *_, **__: kept):
                yield
        else:
            last = self._layers[-1]
            with running_instead([last], self._keeping(inputs, last.forward)):
                yield

    def _keeping(self, inputs: Hashable, run: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*arguments: Any, **options: Any) -> Any:
            self._kept[inputs] = given = run(*arguments, **options)
            return given

        return forward
