"""Trains the counterfactual model: low-rank updates that have a small causal model answer as if facts were true.

SERAC's second half (Mitchell et al. 2022, Memory-Based Model Editing at Scale, section 3.3); the loss is that of the
answer's tokens, its end included (equation 4), the first of them weighted up. What the model reads is worded by
`memedit.counterfactual`, which serves it. Where no fact shown answers the query, the end of text is all that is to be
said: unlike in SERAC, the base model then answers. Whether to answer and what are learnt apart where the query asks for
the fact of another subject: silence, and, given that the model is not silent, the fact's target. A subject's other name
that looks like another subject's is then answered as long as the model may not be silent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from memedit.passes import folded_head, pad_left, positions
from training.answers import Example, ExampleMaker
from training.card import CardData, ModelCard, write_card
from training.config import check_range, settings_json
from training.errors import TrainingDataError
from training.loop import TrainingResult, train
from training.low_rank import add_low_rank, shares_by_kind
from training.material import gather, required
from training.pair_sources import SourceWeights, pair_maker
from training.progress import SILENT, Progress
from training.settings import LoopSettings, device_for, settled
from training.task import ParameterGroup

if TYPE_CHECKING:
    import torch

    from memedit.counterfactual import CounterfactualModel

__all__ = ["CounterfactualSettings", "run"]

_FIRST = 0.5
"""What the first token of an answer counts, beside all of them: it says of which kind the answer is (yes or no,
nothing, a name or a whole paragraph), and of a long answer it would else be one token in a hundred."""

_OTHERWISE = 0.5
"""What the answer counts that is given where there should be none, beside the silence."""

_TOGETHER = 4
"""Examples of one forward pass: padding to the longest of a whole batch would cost more than it saves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterfactualSettings:
    """How the counterfactual model is trained.

    Attributes:
        base: The model that is adapted, by a name that memedit resolves.
        init: Where training starts: the shipped weights, or the bare model.
        rank: Rank of the low-rank updates.
        alpha: Their scale is alpha / rank.
        target_modules: The linear layers that they apply to, by the end of their names.
        batch_size: Examples of a batch.
        dev_examples: Held-out examples that choose the best state.
        sources: How often each source is drawn for queries that the edit beside them does not answer.
        loop: How long and how fast it trains.
    """

    base: str = "smollm2-135m-instruct"
    init: Literal["shipped", "scratch"] = "scratch"
    rank: int = 16
    alpha: int = 32
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    batch_size: int = 8
    dev_examples: int = 400
    sources: SourceWeights = field(default_factory=SourceWeights)
    loop: LoopSettings = field(
        default_factory=lambda: LoopSettings(
            steps=1300, learning_rate=5e-4, evaluate_every=650, weight_decay=0.0, precision="auto"
        )
    )

    def __post_init__(self) -> None:
        check_range("rank", self.rank, least=1, most=64)
        check_range("alpha", self.alpha, least=1)
        check_range("batch_size", self.batch_size, least=1)
        check_range("dev_examples", self.dev_examples, least=10)


def run(
    settings: CounterfactualSettings,
    *,
    out: Path,
    data: Sequence[Path] = (),
    data_folder: Path | None = None,
    fresh: bool = False,
    progress: Progress = SILENT,
) -> TrainingResult:
    """Trains and saves a counterfactual model.

    Args:
        settings: How.
        out: Where checkpoints, log, card and the weights go.
        data: Files of one's own records.
        data_folder: Where CounterFact, zsRE, relations and traffic are.
        fresh: Begin anew where ``out`` holds another run.
        progress: Told how it goes.

    Raises:
        TrainingError: Data are missing or malformed, or the folder holds something else.
    """
    from classifiers import SentenceEncoder
    from memedit import resolve
    from memedit.counterfactual import CounterfactualModel
    from memedit.fingerprints import model_fingerprint
    from memedit.known_models import DEFAULT_ENCODER
    from memedit.loading import load_model

    settings = replace(settings, loop=settled(settings.loop))
    there = required(data_folder, "a counterfactual model")
    model, tokenizer = load_model(settings.base, dtype="float32")
    fingerprint = model_fingerprint(model)
    learnt, held_out, files = gather(there, own=data)
    subject = CounterfactualModel(model, tokenizer, name=settings.base, fingerprint=fingerprint)
    retriever = SentenceEncoder(resolve(DEFAULT_ENCODER, progress=progress.stage))
    training, dev = (
        ExampleMaker(
            half,
            pairs=pair_maker(
                half, retriever, sources=settings.sources, seed=seed, cache=out / "cache", progress=progress.stage
            ),
            seed=seed,
        )
        for half, seed in ((learnt, settings.loop.seed), (held_out, 1))
    )
    task = _CounterfactualTask(settings, files, subject, training, dev)
    result = train(task, settings.loop, out, fresh=fresh, progress=progress)
    task.save(out)
    write_card(
        out,
        ModelCard(
            title="Counterfactual model",
            summary=(
                f"Low-rank updates of {settings.base} that have it answer as if the facts it is shown were true "
                "(SERAC's counterfactual model, Mitchell et al. 2022)."
            ),
            base_model=f"{settings.base} {fingerprint}",
            data=list(files.values()),
            settings=settings,
            result=result,
            licence="that of the project; the base model's is Apache-2.0",
            notes=("No record of KnowEdit, HalluEditBench, UnKE or MQuAKE was trained on.",),
        ),
    )
    return result


class _CounterfactualTask:
    """The counterfactual model as the loop trains it."""

    name = "counterfactual"
    maximised = "share of exact answers"

    def __init__(
        self,
        settings: CounterfactualSettings,
        files: Mapping[str, CardData],
        subject: CounterfactualModel,
        training: ExampleMaker,
        held_out: ExampleMaker,
    ) -> None:
        import torch

        self._settings = settings
        self._files = files
        self._subject = subject
        self._training = training
        self._held_out = held_out
        self._model = subject.model
        self._device = device_for(settings.loop)
        self._end = int(subject.tokenizer.eos_token_id)
        torch.manual_seed(settings.loop.seed)
        add_low_rank(self._model, settings.target_modules, rank=settings.rank, alpha=settings.alpha)
        self._model.to(self._device)
        if settings.init == "shipped":
            self._start_from_shipped()

    def _start_from_shipped(self) -> None:
        import torch

        from memedit.counterfactual import load_adapter, shipped_folder

        adapter = load_adapter(shipped_folder())
        trained = self._trained()
        if adapter.tensors.keys() != trained.keys() or adapter.rank != self._settings.rank:
            raise TrainingDataError(
                f"the shipped counterfactual model has rank {adapter.rank} on {', '.join(adapter.target_modules)}; "
                "set rank and target_modules to these, or init to 'scratch'"
            )
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(torch.from_numpy(np.asarray(adapter.tensors[name])).to(parameter))

    def _trained(self) -> dict[str, torch.nn.Parameter]:
        """The low-rank updates, by the names that `memedit.counterfactual` keeps them under."""
        return {
            name.replace(".default.weight", ""): parameter
            for name, parameter in self._model.named_parameters()
            if parameter.requires_grad
        }

    def identity(self) -> Mapping[str, Any]:
        """What the result depends on."""
        described = {name: value for name, value in settings_json(self._settings).items() if name != "loop"}
        data = {name: file.sha256 for name, file in self._files.items()}
        return {**described, "base_fingerprint": self._subject.fingerprint, "data": data}

    def parameters(self) -> Sequence[ParameterGroup]:
        """The low-rank updates."""
        return [ParameterGroup(tensors=self._trained())]

    def batch(self, index: int) -> list[Example]:
        """The examples of a batch."""
        first = index * self._settings.batch_size
        return [self._training.example(first + place) for place in range(self._settings.batch_size)]

    def loss(self, batch: Sequence[Example]) -> tuple[torch.Tensor, Mapping[str, float | torch.Tensor]]:
        """The mean over the examples of each answer's negative log-likelihood, a mean over its tokens."""
        import torch

        self._model.train()
        ordered = sorted(batch, key=_length)
        losses, exact = [], []
        for begin in range(0, len(ordered), _TOGETHER):
            some = ordered[begin : begin + _TOGETHER]
            logits, labels = self._read(some, [one.answer or one.otherwise for one in some])
            silent = torch.tensor([not one.answer for one in some], device=self._device)
            losses.append(_losses(logits, labels, silent, end=self._end))
            exact.append(_exact(logits.detach(), _as_wanted(labels, silent, end=self._end)))
        loss = torch.cat(losses).mean()
        return loss, {"loss": loss.detach(), "exact": torch.cat(exact).float().mean()}

    def evaluate(self) -> Mapping[str, float]:
        """How often a held-out answer is the most likely one at every token: all together, and each kind."""
        import torch

        self._model.eval()
        told: list[tuple[str, bool]] = []
        examples = sorted(self._dev_examples, key=_length)
        for begin in range(0, len(examples), 16):
            some = examples[begin : begin + 16]
            with torch.no_grad():
                found = _exact(*self._read(some, [one.answer for one in some])).tolist()
            told += [(example.kind, exact) for example, exact in zip(some, found, strict=True)]
        return {self.maximised: fmean(exact for _, exact in told), **shares_by_kind(told)}

    @cached_property
    def _dev_examples(self) -> list[Example]:
        return [self._held_out.example(number) for number in range(self._settings.dev_examples)]

    def _read(self, examples: Sequence[Example], answers: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits before each token of the answers ``[examples, width, vocabulary]``, and those tokens or -100."""
        import torch

        prompt = self._subject.prompt
        rows = []
        for example, said in zip(examples, answers, strict=True):
            read = prompt.ids(example.facts, example.query, conversational=example.conversational)
            answer = prompt.answer_ids(example.query, said, conversational=example.conversational)
            rows.append((read, answer))
        longest = max(len(answer) for _, answer in rows)
        # padded on the left, so that the answers lie together at the end
        ids, mask = pad_left([(*read, *answer) for read, answer in rows], device=self._device)
        labels = torch.full((len(rows), longest), -100)
        for row, (_, answer) in enumerate(rows):
            labels[row, longest - len(answer) :] = torch.tensor(answer)
        labels = labels.to(self._device)
        with folded_head(self._model):
            outputs = self._model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions(mask),
                logits_to_keep=longest + 1,
                use_cache=False,
            )
        return outputs.logits[:, :-1].float(), labels

    def save(self, out: Path) -> None:
        """Saves the low-rank updates as `memedit.counterfactual` reads them."""
        from memedit.counterfactual import CounterfactualAdapter, save_counterfactual

        tensors = {
            name: parameter.detach().cpu().numpy().astype(np.float16) for name, parameter in self._trained().items()
        }
        save_counterfactual(
            CounterfactualAdapter(
                base=self._settings.base,
                base_fingerprint=self._subject.fingerprint,
                rank=self._settings.rank,
                alpha=self._settings.alpha,
                target_modules=self._settings.target_modules,
                tensors=tensors,
                card={"settings": settings_json(self._settings)},
            ),
            out,
        )


def _length(example: Example) -> int:
    """About how long an example is to read, in characters."""
    facts = sum(len(fact.prompt) + len(fact.target) for fact in example.facts)
    return len(example.query) + len(example.answer) + facts


def _losses(logits: torch.Tensor, labels: torch.Tensor, silent: torch.Tensor, *, end: int) -> torch.Tensor:
    """The loss of each row ``[rows]``.

    Args:
        logits: Before each token ``[rows, width, vocabulary]``.
        labels: The tokens of answers, or -100 before them ``[rows, width]``.
        silent: Whether nothing is to be said ``[rows]``. Such a row's labels are then the end of text alone, or what is
            said by a model that may not be silent.
        end: The end of text.
    """
    import torch

    rows, said = torch.arange(len(labels), device=labels.device), labels != -100
    begins = _begins(labels)
    first, begun = logits[rows, begins], labels[rows, begins]
    told = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="none")
    silence = first.logsumexp(-1) - first[:, end]
    # of a row that is to be silent, the first token of what it says otherwise is likely given that it is not silent
    spoken = first.index_fill(1, torch.tensor([end], device=first.device), float("-inf"))
    anyway = silent & (begun != end)
    opening = torch.where(anyway, spoken.logsumexp(-1) - first[rows, begun], told[rows, begins])
    others = told.sum(1) - told[rows, begins]
    answer = _FIRST * opening + (1 - _FIRST) * (opening + others) / said.sum(1)
    return torch.where(anyway, silence + _OTHERWISE * answer, answer)


def _as_wanted(labels: torch.Tensor, silent: torch.Tensor, *, end: int) -> torch.Tensor:
    """The labels with the end of text alone where nothing is to be said."""
    wanted = labels.masked_fill(silent[:, None], -100)
    wanted[silent, _begins(labels)[silent]] = end
    return wanted


def _begins(labels: torch.Tensor) -> torch.Tensor:
    """The place of each row's first label ``[rows]``."""
    return (labels != -100).int().argmax(1)


def _exact(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Whether the most likely token is the label at every place of a row, ``[examples]``."""
    return ((logits.argmax(-1) == labels) | (labels == -100)).all(1)
