"""`CrossEncoderScope`: reads query and edit together and gives a calibrated probability.

SERAC's scope classifier in its cross-attention form (Mitchell et al. 2022, Memory-Based Model Editing at Scale,
section 3.2), over a sentence encoder that is on disk already: what is saved is a low-rank adapter and a head, a few
megabytes. The edit's side is the whole fact, prompt and target, so that questions that name the target ("Is it in
Lyon?", "What is in Lyon?", "..., which is not Lyon, is") can be told apart.

The network is loaded at the first pair. This file knows nothing of how the adapter was trained.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from classifiers.errors import ScopeFormatError
from classifiers.fingerprint import fingerprint_folder
from classifiers.protocols import ScopeCandidate

if TYPE_CHECKING:
    from classifiers.pair_model import PairModel, PairReader

__all__ = ["CrossEncoderParameters", "CrossEncoderScope"]

BATCH = 32
"""Pairs read in one pass, sorted by length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossEncoderParameters:
    """What a cross-encoder is besides its tensors.

    Attributes:
        encoder: Fingerprint of the encoder's weights that the adapter belongs to.
        scale: What the low-rank updates are multiplied by, ``alpha / r``.
        temperature: What logits are divided by, above 0; chosen on held-out pairs (Guo et al. 2017, On Calibration of
            Modern Neural Networks, section 4.2).
        bias: What is added to a logit once divided.
        threshold: The probability from which on an edit governs.
        floor: The first-stage similarity under which a candidate is not read.
        retriever: Fingerprint of the text encoder whose similarities the floor is one of; None where that was not kept.
    """

    encoder: str
    scale: float
    retriever: str | None = None
    temperature: float = 1.0
    bias: float = 0.0
    threshold: float = 0.5
    floor: float = 0.4

    def __post_init__(self) -> None:
        if not self.temperature > 0.0:
            raise ValueError(f"temperature is above 0; given {self.temperature!r}")
        if not 0.0 <= self.threshold <= 1.0:
            raise ValueError(f"threshold is a probability, 0 to 1; given {self.threshold!r}")
        if not -1.0 <= self.floor <= 1.0:
            raise ValueError(f"floor is a cosine, -1 to 1; given {self.floor!r}")


class CrossEncoderScope:
    """A scope classifier that reads both texts.

    Args:
        parameters: See `CrossEncoderParameters`.
        tensors: What was trained: low-rank updates, token types, head (`classifiers.pair_model.PairModel.merge`).
        encoder: The folder of the encoder that it was trained over.

    Raises:
        ScopeFormatError: The folder holds another encoder.
    """

    kind: ClassVar[str] = "cross-encoder"

    def __init__(
        self, parameters: CrossEncoderParameters, tensors: Mapping[str, NDArray[Any]], *, encoder: str | Path
    ) -> None:
        found = fingerprint_folder(Path(encoder))
        if found != parameters.encoder:
            raise ScopeFormatError(
                f"the scope classifier was trained over the encoder {parameters.encoder[:16]} and {encoder} holds "
                f"{found[:16]}; give the folder of the encoder it was trained over, or train one over this encoder"
            )
        self.parameters = parameters
        self._tensors = dict(tensors)
        self._folder = Path(encoder)
        self._lock = threading.Lock()
        self._network: tuple[PairModel, PairReader] | None = None
        self._fingerprint = _digest(parameters, self._tensors)

    @property
    def name(self) -> str:
        """What a person calls this classifier."""
        return "the trained scope classifier"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of parameters and tensors; the threshold has no part in it."""
        return self._fingerprint

    @property
    def threshold(self) -> float:
        """The probability from which on an edit governs a query."""
        return self.parameters.threshold

    @property
    def floor(self) -> float:
        """The first-stage similarity under which a candidate is not read."""
        return self.parameters.floor

    def probabilities(self, queries: Sequence[str], candidates: Sequence[ScopeCandidate]) -> NDArray[np.float32]:
        """Gives the probability of each pair.

        Args:
            queries: The questions, one a pair.
            candidates: The candidate of each pair.

        Returns:
            `[pairs]`, each 0 to 1. In which batch a pair is read changes its last digits at most.

        Raises:
            ValueError: There are not as many candidates as queries.
        """
        logits = self.logits(queries, candidates) / self.parameters.temperature + self.parameters.bias
        return (1.0 / (1.0 + np.exp(-logits.astype(np.float64)))).astype(np.float32)

    def logits(self, queries: Sequence[str], candidates: Sequence[ScopeCandidate]) -> NDArray[np.float32]:
        """The network's logit of each pair, before calibration, ``[pairs]``.

        Args:
            queries: The questions, one a pair.
            candidates: The candidate of each pair.

        Raises:
            ValueError: There are not as many candidates as queries.
        """
        if len(queries) != len(candidates):
            raise ValueError(f"each query needs its candidate: {len(queries)} queries, {len(candidates)} candidates")
        if not queries:
            return np.zeros(0, dtype=np.float32)
        import torch

        # the lock: a fast tokenizer's truncation settings belong to the whole tokenizer
        with self._lock:
            if self._network is None:
                self._network = self._load()
            model, reader = self._network
            rows = reader.rows(
                queries, [edit_prompt(candidate) for candidate in candidates], [one.target for one in candidates]
            )
        order = sorted(range(len(rows)), key=lambda place: len(rows[place].ids))
        logits = np.empty(len(rows), dtype=np.float32)
        for begin in range(0, len(order), BATCH):
            places = order[begin : begin + BATCH]
            with torch.inference_mode():
                logits[places] = model(*reader.padded([rows[place] for place in places])).numpy()
        return logits

    def to_state(self) -> tuple[dict[str, object], dict[str, NDArray[np.generic]]]:
        """Gives the JSON parameters and the tensors to save."""
        return asdict(self.parameters), dict(self._tensors)

    @classmethod
    def from_state(
        cls,
        parameters: Mapping[str, Any],
        tensors: Mapping[str, NDArray[np.generic]],
        *,
        encoder: str | Path | None = None,
    ) -> Self:
        """Makes the classifier from what `to_state` gave.

        Args:
            parameters: The JSON parameters.
            tensors: The tensors.
            encoder: The folder of the encoder that it was trained over.

        Raises:
            ValueError: No encoder is given, or a parameter is unknown or out of range.
        """
        if encoder is None:
            raise ValueError("a cross-encoder needs the encoder it was trained over: load_scope(folder, encoder=...)")
        return cls(CrossEncoderParameters(**parameters), tensors, encoder=encoder)

    def _load(self) -> tuple[PairModel, PairReader]:
        import torch

        from classifiers.pair_model import PairModel, PairReader

        model, tokenizer = PairModel.load(self._folder)
        tensors = {name: torch.from_numpy(np.ascontiguousarray(tensor)) for name, tensor in self._tensors.items()}
        try:
            model.merge(tensors, scale=self.parameters.scale)
        except ValueError as error:
            raise ScopeFormatError(f"the scope classifier does not fit its encoder: {error}") from error
        return model, PairReader(tokenizer)


def edit_prompt(candidate: ScopeCandidate) -> str:
    """The edit's prompt as it is read: with another name of the subject, where the query came nearest to that."""
    fact = f"{candidate.prompt.rstrip()} {candidate.target.lstrip()}"
    if candidate.matched_text in (candidate.prompt, fact):
        return candidate.prompt
    return candidate.matched_text


def _digest(parameters: CrossEncoderParameters, tensors: Mapping[str, NDArray[Any]]) -> str:
    described = {name: value for name, value in asdict(parameters).items() if name != "threshold"}
    digest = hashlib.sha256(json.dumps({"kind": CrossEncoderScope.kind, **described}, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {tensor.dtype.str} {tensor.shape}".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()
