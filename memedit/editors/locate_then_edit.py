"""What the methods that locate and then edit do alike: set-up once, facts from edits, writing, undoing, what it costs.

A method says what its layers' weights become (`LocateThenEdit._changed`). They are worked out beside the model and
written into it at the end, so that it stays as it was if anything fails. This file knows nothing of any method.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from memedit.editors.editor import EditCost, MethodInfo
from memedit.editors.key_statistics import StatisticsProgress, corpus_of, key_moments
from memedit.editors.located import FactLocator, LocateConfig, LocatedFact
from memedit.editors.subject import Subject
from memedit.editors.weight_editor import WeightEditor
from memedit.editors.weights import output_projection
from memedit.errors import ConfigError
from memory_store import Edit

if TYPE_CHECKING:
    import torch

__all__ = ["LocateThenEdit"]

_TOKENS_A_DIMENSION = 20


class LocateThenEdit(WeightEditor, ABC):
    """A method that changes MLP output projections of one model in place, at the token of a fact's subject.

    Attributes:
        projections: What is changed, from the lowest layer up.
        progress: Told how the statistics go on, if anyone is; set it before the first edit.

    Args:
        subject: The model, unedited.
        config: What such methods have in common.
        info: What the method is.
        layers: The layers that are changed.

    Raises:
        UnsupportedCallError: The model's architecture is not supported, or a weight cannot be changed.
        ConfigError: The model has no such layer, or no chat template where one is asked for.
        DataFileError: The text of the statistics cannot be read.
    """

    def __init__(self, subject: Subject, config: LocateConfig, *, info: MethodInfo, layers: Sequence[int]) -> None:
        super().__init__(subject, info)
        self.projections = tuple(output_projection(subject, layer) for layer in sorted(layers))
        self.progress: StatisticsProgress | None = None
        self._tokens = config.statistics_tokens
        self._corpus = corpus_of(subject, config.statistics)
        self._locate = FactLocator(subject, config)
        self._moments: dict[int, torch.Tensor] | None = None

    def edit(self, edits: Sequence[Edit]) -> EditCost:
        """Make edits on top of those made before.

        Args:
            edits: Drafts, each with a subject. Of those with the same prompt the last one holds.

        Returns:
            What it cost. What is made at the first call, statistics and contexts, is its set-up.

        Raises:
            UnsupportedCallError: One of them is incomplete, or its subject is not in its prompt. Nothing is changed.
            ConfigError: The optimisation diverged. Nothing is changed.
        """
        if not edits:
            return EditCost(edits=0, seconds=0.0, stored_bytes=0)
        started = time.perf_counter()
        new = self._moments is None
        moments = self._set_up()
        ready = time.perf_counter()
        facts = [self._locate(edit) for edit in {edit.prompt: edit for edit in edits}.values()]
        values = self._changed(facts, moments)
        for name, value in values.items():
            if not value.isfinite().all():
                raise ConfigError(f"the edits make {name} overflow; nothing was changed. Make fewer of them together")
        stored = self._weights.write(values) + self._written()
        return EditCost(
            edits=len(edits),
            seconds=time.perf_counter() - ready,
            setup_seconds=ready - started if new else 0.0,
            stored_bytes=stored,
        )

    @abstractmethod
    def _changed(self, facts: Sequence[LocatedFact], moments: Mapping[int, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The new weights by name; the model is not touched.

        Args:
            facts: What is to be said.
            moments: C of each layer, ``[k, k]``, 64-bit; empty where it is to be the identity.
        """

    def _written(self) -> int:
        """The edits are in the model now; returns how many bytes more the method keeps of them."""
        return 0

    def _set_up(self) -> dict[int, torch.Tensor]:
        """Statistics and contexts, made while the model is as yet unedited."""
        if self._moments is None:
            moments: dict[int, torch.Tensor] = {}
            if self._corpus is not None:
                layers = [projection.layer for projection in self.projections]
                tokens = self._tokens or _TOKENS_A_DIMENSION * self._widest_key()
                moments = key_moments(self.subject, layers, self._corpus, tokens=tokens, progress=self.progress)
            _ = self._locate.contexts
            self._moments = moments
        return self._moments

    def _widest_key(self) -> int:
        weights = [(one, self.subject.model.get_parameter(one.parameter)) for one in self.projections]
        return max(projection.turned(weight).shape[1] for projection, weight in weights)
