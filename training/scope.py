"""Trains the scope classifier: low-rank updates and a head over the frozen sentence encoder.

The network is `classifiers.pair_model.PairModel`, the pairs are `training.pairs`; the loss is binary cross-entropy
(Mitchell et al. 2022, Memory-Based Model Editing at Scale, equation 3). From `mine_from` on each batch is chosen from
more pairs than it holds, half of them those that the network as it stands gets most wrong.

Afterwards the probability is calibrated on pairs of facts that were held out (Guo et al. 2017, On Calibration of Modern
Neural Networks), and the result is saved as `classifiers.load_scope` reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from memedit.known_models import DEFAULT_ENCODER
from training.card import CardData, ModelCard, write_card
from training.config import check_range, settings_json
from training.errors import TrainingDataError
from training.loop import TrainingResult, train
from training.low_rank import add_low_rank, shares_by_kind
from training.material import gather, required
from training.pair_sources import SourceWeights, pair_maker
from training.pairs import Pair, PairMaker
from training.progress import SILENT, Progress
from training.settings import LoopSettings, device_for, settled
from training.task import ParameterGroup

if TYPE_CHECKING:
    import torch


__all__ = ["ScopeSettings", "SourceWeights", "run"]

_TOGETHER = 8
"""Pairs of one forward pass: padding to the longest of a whole batch would cost more than it saves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeSettings:
    """How the scope classifier is trained.

    Attributes:
        init: Where training starts: the shipped weights, or the bare encoder.
        rank: Rank of the low-rank updates.
        alpha: Their scale is alpha / rank.
        batch_size: Pairs of a batch.
        mine_from: The share of the steps after which hard pairs are looked for; 1 never does.
        mine_pool: Out of how many pairs for each one of a batch.
        dev_pairs: Held-out pairs that choose the best state.
        calibration_pairs: Other held-out pairs that choose the temperature.
        threshold: The probability from which on an edit governs.
        floor: The similarity under which a candidate is not read.
        sources: How often each source is drawn.
        loop: How long and how fast it trains.
    """

    init: Literal["shipped", "scratch"] = "scratch"
    rank: int = 48
    alpha: int = 48
    batch_size: int = 32
    mine_from: float = 0.4
    mine_pool: int = 3
    dev_pairs: int = 1500
    calibration_pairs: int = 3000
    threshold: float = 0.7
    floor: float = 0.4
    sources: SourceWeights = field(default_factory=SourceWeights)
    loop: LoopSettings = field(
        default_factory=lambda: LoopSettings(
            steps=2600, learning_rate=1e-3, evaluate_every=520, weight_decay=0.0, precision="auto"
        )
    )

    def __post_init__(self) -> None:
        check_range("rank", self.rank, least=1, most=128)
        check_range("alpha", self.alpha, least=1)
        check_range("batch_size", self.batch_size, least=2)
        check_range("mine_from", self.mine_from, least=0, most=1)
        check_range("mine_pool", self.mine_pool, least=1)
        check_range("dev_pairs", self.dev_pairs, least=10)
        check_range("calibration_pairs", self.calibration_pairs, least=10)
        check_range("threshold", self.threshold, least=0, most=1)
        check_range("floor", self.floor, least=-1, most=1)


def run(
    settings: ScopeSettings,
    *,
    out: Path,
    data: Sequence[Path] = (),
    data_folder: Path | None = None,
    fresh: bool = False,
    progress: Progress = SILENT,
) -> TrainingResult:
    """Trains, calibrates and saves a scope classifier.

    Args:
        settings: How.
        out: Where checkpoints, log, card and the classifier go.
        data: Files of one's own records.
        data_folder: Where CounterFact, zsRE, relations and traffic are.
        fresh: Begin anew where ``out`` holds another run.
        progress: Told how it goes.

    Returns:
        What came of it.

    Raises:
        TrainingError: Data are missing or malformed, or the folder holds something else.
    """
    from classifiers import SentenceEncoder
    from memedit import resolve

    settings = replace(settings, loop=settled(settings.loop))
    there = required(data_folder, "a scope classifier")
    folder = Path(resolve(DEFAULT_ENCODER, progress=progress.stage))
    retriever = SentenceEncoder(folder)
    unused = [name for name, weight in asdict(settings.sources).items() if weight == 0]
    learnt, held_out, files = gather(there, own=data, without=unused)
    training, dev = (
        pair_maker(
            half,
            retriever,
            sources=settings.sources,
            seed=settings.loop.seed,
            cache=out / "cache",
            progress=progress.stage,
        )
        for half in (learnt, held_out)
    )
    task = _ScopeTask(settings, files, folder, training, dev)
    result = train(task, settings.loop, out, fresh=fresh, progress=progress)
    figures = task.save(out, retriever=retriever.fingerprint)
    write_card(
        out,
        ModelCard(
            title="Scope classifier",
            summary=(
                "Reads a query and an edit and gives the probability that the edit governs the query: low-rank updates "
                "and a head over a frozen sentence encoder (SERAC's scope classifier, Mitchell et al. 2022)."
            ),
            base_model=f"{DEFAULT_ENCODER} {task.encoder_fingerprint}",
            data=list(files.values()),
            settings=settings,
            result=result,
            figures=figures,
            licence="that of the project; trained over an encoder under Apache-2.0",
            notes=("No record of KnowEdit, HalluEditBench, UnKE or MQuAKE was trained on.",),
        ),
    )
    return result


class _ScopeTask:
    """Scope classification as the loop trains it."""

    name = "scope"
    maximised = "mean accuracy of kinds"

    def __init__(
        self,
        settings: ScopeSettings,
        files: Mapping[str, CardData],
        encoder: Path,
        training: PairMaker,
        held_out: PairMaker,
    ) -> None:
        import torch

        from classifiers.fingerprint import fingerprint_folder
        from classifiers.pair_model import PairModel, PairReader

        self._settings = settings
        self._files = files
        self._folder = encoder
        self._training = training
        self._held_out = held_out
        self.encoder_fingerprint = fingerprint_folder(encoder)
        self._device = device_for(settings.loop)
        torch.manual_seed(settings.loop.seed)
        self._model, tokenizer = PairModel.load(encoder)
        self._reader = PairReader(tokenizer)
        self._adapt()
        self._model.to(self._device)

    def _adapt(self) -> None:
        """Freezes the encoder and puts trainable low-rank updates beside its linear layers."""
        from classifiers.pair_model import adapted

        layers = adapted(name for name, _ in self._model.encoder.named_modules())
        add_low_rank(self._model.encoder, layers, rank=self._settings.rank, alpha=self._settings.alpha)
        self._model.encoder.get_submodule("embeddings.token_type_embeddings").weight.requires_grad_(True)
        if self._settings.init == "shipped":
            self._start_from_shipped()

    def _start_from_shipped(self) -> None:
        import torch

        from classifiers.persistence import SavableScope
        from classifiers.shipped import shipped_scope

        shipped = shipped_scope(self._folder)
        if not isinstance(shipped, SavableScope):
            raise TrainingDataError(f"the shipped scope classifier is {shipped.name} and cannot be trained further")
        _, tensors = shipped.to_state()
        with torch.no_grad():
            for name, parameter in self._trained().items():
                given = torch.from_numpy(np.asarray(tensors[name])).to(parameter)
                if given.shape != parameter.shape:
                    raise TrainingDataError(
                        f"the shipped classifier has {name} of shape {list(given.shape)}, and rank "
                        f"{self._settings.rank} asks for {list(parameter.shape)}; set rank to the shipped one, or init "
                        "to 'scratch'"
                    )
                parameter.copy_(given)

    def _trained(self) -> dict[str, torch.nn.Parameter]:
        """What is trained, by the names that `PairModel.merge` takes."""
        from classifiers.pair_model import LOW_RANK

        found: dict[str, torch.nn.Parameter] = {}
        for name, parameter in self._model.named_parameters():
            if not parameter.requires_grad:
                continue
            inside = name.removeprefix("encoder.")
            if ".lora_" in inside:
                layer, _, side = inside.partition(".lora_")
                found[f"{LOW_RANK}{layer}.{side[0]}"] = parameter
            elif "token_type" in inside:
                found["token_types"] = parameter
            else:
                found[name] = parameter
        return found

    def identity(self) -> Mapping[str, Any]:
        """What the result depends on."""
        # what is chosen once the weights are made does not make others of them
        after = {"loop", "calibration_pairs", "threshold", "floor"}
        described = {name: value for name, value in settings_json(self._settings).items() if name not in after}
        return {
            **described,
            "encoder": self.encoder_fingerprint,
            "data": {name: file.sha256 for name, file in self._files.items()},
        }

    def parameters(self) -> Sequence[ParameterGroup]:
        """Low-rank updates, token types and head."""
        return [ParameterGroup(tensors=self._trained())]

    def batch(self, index: int) -> list[Pair]:
        """The pairs of a batch; once mining has begun, half of them the hardest of a pool."""
        size = self._settings.batch_size
        mining = index >= self._settings.mine_from * self._settings.loop.steps * self._settings.loop.accumulate
        pool = size * (self._settings.mine_pool if mining else 1)
        first = index * size * self._settings.mine_pool
        pairs = [self._training.pair(first + place) for place in range(pool)]
        if pool == size:
            return pairs
        kept, others = pairs[: size // 2], pairs[size // 2 :]
        losses = self._losses(others)
        hardest = np.argsort(-losses, kind="stable")[: size - len(kept)]
        return [*kept, *(others[place] for place in hardest)]

    def loss(self, batch: Sequence[Pair]) -> tuple[torch.Tensor, Mapping[str, float | torch.Tensor]]:
        """Binary cross-entropy over the batch, and its accuracy."""
        import torch

        self._model.train()
        logits, labels, _ = self._read(batch)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
        right = ((logits > 0) == (labels > 0.5)).float().mean()
        return loss, {"loss": loss.detach(), "accuracy": right.detach()}

    def evaluate(self) -> Mapping[str, float]:
        """Accuracy at one half of each kind of held-out pair, and the mean over the kinds."""
        pairs = self._dev_pairs
        logits = self._logits(pairs)
        shares = shares_by_kind(
            (f"{'in' if pair.governed else 'out'}: {pair.kind}", bool(logit > 0) == pair.governed)
            for pair, logit in zip(pairs, logits, strict=True)
        )
        return {self.maximised: fmean(shares.values()), **shares}

    @cached_property
    def _dev_pairs(self) -> list[Pair]:
        return [self._held_out.pair(number) for number in range(self._settings.dev_pairs)]

    def _read(self, pairs: Sequence[Pair]) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
        """Logits and labels ``[pairs]``, and whose they are: the shortest first, as those of like length are read."""
        import torch

        rows = self._reader.rows(
            [pair.query for pair in pairs], [pair.prompt for pair in pairs], [pair.target for pair in pairs]
        )
        order = sorted(range(len(rows)), key=lambda place: len(rows[place].ids))
        parts = [
            self._model(*(part.to(self._device) for part in self._reader.padded([rows[place] for place in some])))
            for some in (order[begin : begin + _TOGETHER] for begin in range(0, len(order), _TOGETHER))
        ]
        labels = torch.tensor([float(pairs[place].governed) for place in order], device=self._device)
        return torch.cat(parts), labels, order

    def _logits(self, pairs: Sequence[Pair]) -> NDArray[np.float64]:
        """The logit of each pair, in order."""
        import torch

        self._model.eval()
        found = np.empty(len(pairs))
        with torch.no_grad():
            logits, _, order = self._read(pairs)
        found[order] = logits.float().cpu().numpy()
        return found

    def _losses(self, pairs: Sequence[Pair]) -> NDArray[np.float64]:
        signs = np.array([1.0 if pair.governed else -1.0 for pair in pairs])
        return np.logaddexp(0.0, -signs * self._logits(pairs))

    def save(self, out: Path, *, retriever: str) -> dict[str, float]:
        """Calibrates and saves the classifier; returns the figures of calibration.

        Args:
            out: Where.
            retriever: Fingerprint of the encoder whose candidates it is to read.
        """
        from classifiers import save_scope
        from classifiers.calibration import expected_calibration_error, temperature_scaling
        from classifiers.cross_encoder import CrossEncoderParameters, CrossEncoderScope

        tensors = {
            name: parameter.detach().cpu().numpy().astype(np.float16 if name.startswith("lora.") else np.float32)
            for name, parameter in self._trained().items()
        }
        begin = self._settings.dev_pairs
        pairs = [self._held_out.pair(number) for number in range(begin, begin + self._settings.calibration_pairs)]
        labels = np.array([pair.governed for pair in pairs])
        logits = self._logits(pairs)
        half = len(pairs) // 2
        temperature = temperature_scaling(logits[:half], labels[:half])
        foretold = 1.0 / (1.0 + np.exp(-logits[half:] / temperature))
        figures = {
            "temperature": temperature,
            "expected calibration error": expected_calibration_error(foretold, labels[half:]),
            "expected calibration error, uncalibrated": expected_calibration_error(
                1.0 / (1.0 + np.exp(-logits[half:])), labels[half:]
            ),
        }
        parameters = CrossEncoderParameters(
            encoder=self.encoder_fingerprint,
            retriever=retriever,
            scale=self._settings.alpha / self._settings.rank,
            temperature=temperature,
            threshold=self._settings.threshold,
            floor=self._settings.floor,
        )
        save_scope(CrossEncoderScope(parameters, tensors, encoder=self._folder), out)
        return figures
