"""The lower layers of a frozen model, run once a text: what trains only on the upper ones need not run them again.

An edit of the last layers leaves all that is below as it is, and below is most of the model. `LowerLayers` keeps what
enters the lowest edited layer for each of a known set of texts, in a file, and has the model go on from there.

`memedit.frozen_layers` is for whole batches that come again as they were, and tells what else leaves layers out. This
file knows nothing of edits or of training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memedit.architectures import architecture_of
from memedit.editors.activations import inputs_of
from memedit.hooks import running_instead
from training.progress import SILENT, Progress

if TYPE_CHECKING:
    import torch

__all__ = ["LowerLayers"]

_TOGETHER = 16
"""Texts of one pass."""


class LowerLayers:
    """What enters one layer of a model, by text.

    Args:
        model: The model; below the layer it must not change from now on.
        layer: The layer, from 0.
    """

    def __init__(self, model: Any, layer: int) -> None:
        architecture = architecture_of(model)
        self._model = model
        self._path = architecture.module_name(layer)
        self._above = model.get_submodule(self._path)
        self._below = [model.get_submodule(architecture.module_name(below)) for below in range(layer)]
        self._entering: dict[tuple[int, ...], torch.Tensor] = {}
        self._in_tuples = False
        if self._below:
            self._in_tuples = isinstance(self._written_by_one(), tuple)

    def remember(
        self, texts: Sequence[Sequence[int]], *, cache: Path, described: str, progress: Progress = SILENT
    ) -> None:
        """Runs the lower layers on some texts, or reads what they gave the last time.

        Args:
            texts: Token ids of each text.
            cache: The folder that it is kept in.
            described: What tells this model and its precision from others.
            progress: Is told how far it is.
        """
        import torch
        from safetensors.torch import load_file, save_file

        if not self._below:
            return
        # neighbours are of like length, and always the same: what a text gives may depend on its batch in the last bit
        rows = sorted({tuple(text) for text in texts}, key=lambda row: (len(row), row))
        digest = hashlib.sha256(json.dumps([described, len(self._below), rows]).encode()).hexdigest()
        path = cache / f"lower-layers-{digest[:24]}.safetensors"
        if path.exists():
            whole = load_file(path)["entering"]
        else:
            parts: list[torch.Tensor] = []
            for begin in range(0, len(rows), _TOGETHER):
                progress.stage("running the lower layers", begin, len(rows))
                entering = inputs_of(self._model, self._path, rows[begin : begin + _TOGETHER])
                parts += [one.cpu().clone() for one in entering]
            progress.stage("running the lower layers", len(rows), len(rows))
            whole = torch.cat(parts)
            cache.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".tmp")
            save_file({"entering": whole}, temporary)
            temporary.replace(path)
        end = 0
        for row in rows:
            end += len(row)
            self._entering[row] = whole[end - len(row) : end]

    @contextmanager
    def resumed(self, texts: Sequence[Sequence[int]]) -> Iterator[None]:
        """Within the block the model takes what the lower layers gave instead of running them.

        Args:
            texts: The rows of the batch that the model is called on, padded on the right.

        Raises:
            KeyError: One of them was not remembered.
        """
        from torch.nn.utils.rnn import pad_sequence

        if not self._below:
            yield
            return
        device = self._model.device
        hidden = pad_sequence([self._entering[tuple(text)] for text in texts], batch_first=True).to(device)

        def enter(
            _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            if args:
                return (hidden, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": hidden}

        hook = self._above.register_forward_pre_hook(enter, with_kwargs=True)
        try:
            with running_instead(self._below, self._pass_on):
                yield
        finally:
            hook.remove()

    def _pass_on(self, hidden_states: torch.Tensor, *_args: Any, **_kwargs: Any) -> Any:
        return (hidden_states,) if self._in_tuples else hidden_states

    def _written_by_one(self) -> Any:
        """What the layer below writes, of one token."""
        import torch

        caught: list[Any] = []
        hook = self._below[-1].register_forward_hook(lambda _module, _args, written: caught.append(written))
        try:
            with torch.no_grad():
                self._model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=self._model.device), use_cache=False)
        finally:
            hook.remove()
        return caught[0]
