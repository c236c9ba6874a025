"""Trains the hypernetworks that edit weights: MEND's, and KE's.

Both are trained alike. An edit is made as if (`memedit.editors.outer_products.shifted`), so that no copy of a weight is
needed and no gradient flows through the model further down than the edited layers; then the edited model is asked the
edit's prompt and a paraphrase, and, elsewhere, whether it still says what the base model says. They differ in how the
two losses are weighed.

- MEND (Mitchell et al. 2022, Fast Model Editing at Scale, equation 4): ``c_edit * L_edit + c_loc * KL``.
- KE (De Cao et al. 2021, Editing Factual Knowledge in Language Models, equations 3 and 4): ``L_edit`` subject to
  ``KL <= m``, as a Lagrangian whose multiplier is raised and lowered by gradient ascent, and whose margin ``m`` shrinks
  while the edits succeed.

The edits and the prompts are `training.edit_batches`; the networks are memedit's own, which makes the same changes of
the same edits when it serves them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from memedit.architectures import Projection
from training.card import CardData, ModelCard, write_card
from training.config import check_range, settings_json
from training.edit_batches import EditBatch, EditDrawer, EditSampling
from training.errors import TrainingDataError
from training.facts import read_edits, read_own
from training.loop import TrainingResult, train
from training.lower_layers import LowerLayers
from training.material import is_held_out, required
from training.progress import SILENT, Progress
from training.settings import LoopSettings, device_for
from training.task import ParameterGroup

if TYPE_CHECKING:
    import torch

    from memedit.editors.examples import Example
    from memedit.editors.ke import Ke
    from memedit.editors.mend import Mend
    from memedit.editors.subject import Subject

__all__ = ["KeSettings", "MendSettings", "run_ke", "run_mend"]

_STATISTICS_EDITS = 64
"""Edits whose gradients MEND's normalisation is taken from."""

_SUCCESS = 0.9
"""The share of edits that succeed from which on KE's margin shrinks, and what it is multiplied by then."""

_SHRINK = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class MendSettings:
    """How MEND's networks are trained.

    Attributes:
        init: Where training starts: the shipped networks of the model, or the identity.
        base: The model that is to be edited, by a name that memedit resolves.
        layers: The layers that are edited; from 0, or from the last one backwards as -1.
        parts: Which of their projections.
        rank: Rank of the networks.
        edit_learning_rate: What the learned learning rates of edits begin at.
        rate_scale: How much faster these are learnt than the networks.
        c_edit: Weight of the loss on the edit's prompts.
        c_loc: Weight of the divergence elsewhere.
        sampling: What is drawn.
        loop: How long and how fast it trains.
    """

    init: Literal["shipped", "scratch"] = "scratch"
    base: str = "smollm2-135m-instruct"
    layers: tuple[int, ...] = (-3, -2, -1)
    parts: tuple[Projection, ...] = ("mlp_up", "mlp_out")
    rank: int = 64
    edit_learning_rate: float = 4e-4
    rate_scale: float = 10.0
    c_edit: float = 0.2
    c_loc: float = 1.0
    sampling: EditSampling = field(default_factory=lambda: EditSampling(edits=2000, dev_edits=48, places=2))
    loop: LoopSettings = field(
        default_factory=lambda: LoopSettings(
            steps=1000,
            learning_rate=1e-3,
            evaluate_every=200,
            weight_decay=0.0,
            precision="bfloat16",
        )
    )

    def __post_init__(self) -> None:
        check_range("rank", self.rank, least=1, most=2048)
        for name in ("edit_learning_rate", "rate_scale", "c_edit"):
            check_range(name, getattr(self, name), above=0)
        check_range("c_loc", self.c_loc, least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeSettings:
    """How KE's hypernetwork is trained.

    Attributes:
        init: Where training starts: the shipped hypernetwork of the model, or a new one.
        base: The model that is to be edited, by a name that memedit resolves.
        layers: The layers that are edited; from 0, or from the last one backwards as -1.
        parts: Which of their projections.
        hidden: Hidden numbers of the LSTM in each direction.
        condition: Hidden numbers of the network of each weight.
        scale: The factor of equation 5, which the paper has at 1.
        margin: How far the edited model may diverge elsewhere at the beginning, in nats a token.
        least_margin: The least that the margin shrinks to.
        shrink_every: After how many batches the margin shrinks by a fifth, where nine edits in ten succeed.
        multiplier_rate: How fast the multiplier follows what the divergence is above or below the margin.
        sampling: What is drawn.
        loop: How long and how fast it trains.
    """

    init: Literal["shipped", "scratch"] = "scratch"
    base: str = "smollm2-135m-instruct"
    layers: tuple[int, ...] = (-3, -2, -1)
    parts: tuple[Projection, ...] = ("mlp_out",)
    hidden: int = 128
    condition: int = 64
    scale: float = 1000.0
    margin: float = 0.1
    least_margin: float = 0.001
    shrink_every: int = 50
    multiplier_rate: float = 0.1
    sampling: EditSampling = field(default_factory=EditSampling)
    loop: LoopSettings = field(
        default_factory=lambda: LoopSettings(
            steps=600,
            learning_rate=1e-3,
            evaluate_every=50,
            weight_decay=0.0,
            patience=4,
            precision="bfloat16",
        )
    )

    def __post_init__(self) -> None:
        for name in ("hidden", "condition"):
            check_range(name, getattr(self, name), least=1, most=4096)
        for name in ("scale", "margin", "least_margin", "multiplier_rate"):
            check_range(name, getattr(self, name), above=0)
        check_range("shrink_every", self.shrink_every, least=1)


def run_mend(
    settings: MendSettings,
    *,
    out: Path,
    data: Sequence[Path] = (),
    data_folder: Path | None = None,
    fresh: bool = False,
    progress: Progress = SILENT,
) -> TrainingResult:
    """Trains and saves MEND's networks for a model.

    Args:
        settings: How.
        out: Where checkpoints, log, card and the networks go.
        data: Files of one's own records.
        data_folder: Where CounterFact and zsRE are.
        fresh: Begin anew where ``out`` holds another run.
        progress: Told how it goes.

    Raises:
        TrainingError: Data are missing or malformed, or the folder holds something else.
        UnsupportedCallError: The model cannot be edited in this way.
    """
    from memedit.editors.hypernetwork_files import find_hypernetwork
    from memedit.editors.mend import INFO, Mend, MendConfig

    prepared = _prepare(settings, out=out, own=data, data_folder=data_folder, progress=progress)
    subject = prepared.subject
    if settings.init == "shipped":
        mend = Mend.of(find_hypernetwork(INFO.name, subject), subject)
    else:
        config = MendConfig(
            layers=_from_the_end(settings.layers, subject),
            parts=settings.parts,
            rank=settings.rank,
            learning_rate=settings.edit_learning_rate,
        )
        mend = Mend(subject, config, seed=settings.loop.seed)
    result = train(_MendTask(settings, prepared, mend), settings.loop, out, fresh=fresh, progress=progress)
    _save(mend, settings, prepared, result, out, title="MEND networks", paper=INFO.paper)
    return result


def run_ke(
    settings: KeSettings,
    *,
    out: Path,
    data: Sequence[Path] = (),
    data_folder: Path | None = None,
    fresh: bool = False,
    progress: Progress = SILENT,
) -> TrainingResult:
    """Trains and saves KE's hypernetwork for a model.

    Args:
        settings: How.
        out: Where checkpoints, log, card and the hypernetwork go.
        data: Files of one's own records.
        data_folder: Where CounterFact and zsRE are.
        fresh: Begin anew where ``out`` holds another run.
        progress: Told how it goes.

    Raises:
        TrainingError: Data are missing or malformed, or the folder holds something else.
        UnsupportedCallError: The model cannot be edited in this way.
    """
    from memedit.editors.hypernetwork_files import find_hypernetwork
    from memedit.editors.ke import INFO, Ke, KeConfig

    prepared = _prepare(settings, out=out, own=data, data_folder=data_folder, progress=progress)
    subject = prepared.subject
    if settings.init == "shipped":
        ke = Ke.of(find_hypernetwork(INFO.name, subject), subject)
    else:
        config = KeConfig(
            layers=_from_the_end(settings.layers, subject),
            parts=settings.parts,
            hidden=settings.hidden,
            condition=settings.condition,
            scale=settings.scale,
        )
        ke = Ke(subject, config, seed=settings.loop.seed)
    result = train(_KeTask(settings, prepared, ke), settings.loop, out, fresh=fresh, progress=progress)
    _save(ke, settings, prepared, result, out, title="KE hypernetwork", paper=INFO.paper)
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """A model, and what a hypernetwork for it is trained on.

    Attributes:
        subject: The model.
        fingerprint: The model's fingerprint.
        lower: What its lower layers make of every text.
        training: Draws edits to learn from.
        held_out: Draws edits about other subjects.
        files: The files read, by name.
    """

    subject: Subject
    fingerprint: str
    lower: LowerLayers
    training: EditDrawer
    held_out: EditDrawer
    files: Mapping[str, CardData]


def _prepare(
    settings: MendSettings | KeSettings,
    *,
    out: Path,
    own: Sequence[Path],
    data_folder: Path | None,
    progress: Progress,
) -> _Prepared:
    """Loads the model and the data, and has the model say what it says elsewhere.

    Raises:
        TrainingDataError: Data are missing or malformed.
        ModelNotFoundError: There is no such model.
    """
    import torch

    from memedit.editors.subject import Subject

    there = required(data_folder, "a hypernetwork")
    subject = Subject.load(settings.base, device=device_for(settings.loop))
    fingerprint = subject.fingerprint  # of the model as it is served
    if settings.loop.precision == "bfloat16":
        subject.model.to(torch.bfloat16)
    described = f"{fingerprint} {subject.model.dtype}"
    files: dict[str, CardData] = {}
    facts = [*read_edits(there, files), *read_own(own, files)]
    lower = LowerLayers(subject.model, min(_from_the_end(settings.layers, subject)))
    drawers = []
    for held_out in (False, True):
        half = [fact for fact in facts if is_held_out(fact.subject) == held_out]
        count = settings.sampling.dev_edits if held_out else settings.sampling.edits
        drawer = EditDrawer(subject, half, settings.sampling, count=count, seed=settings.loop.seed)
        if not len(drawer):
            raise TrainingDataError(
                f"{there} has too few records to train a hypernetwork on; give the whole training splits"
            )
        lower.remember(drawer.texts(), cache=out / "cache", described=described, progress=progress)
        drawers.append(drawer)
    return _Prepared(
        subject=subject, fingerprint=fingerprint, lower=lower, training=drawers[0], held_out=drawers[1], files=files
    )


class _EditTask:
    """What both hypernetworks have in common as the loop trains them."""

    name = "hypernetwork"
    maximised = "mean of the three"

    def __init__(self, settings: MendSettings | KeSettings, prepared: _Prepared, predictor: Mend | Ke) -> None:
        from memedit.editors.examples import frozen

        self._settings = settings
        self._prepared = prepared
        self._predictor = predictor
        self._model = prepared.subject.model
        self._weights = frozen(self._model)

    def identity(self) -> Mapping[str, Any]:
        """What the result depends on."""
        described = {name: value for name, value in settings_json(self._settings).items() if name != "loop"}
        data = {name: file.sha256 for name, file in self._prepared.files.items()}
        return {**described, "base_fingerprint": self._prepared.fingerprint, "data": data}

    def batch(self, index: int) -> EditBatch:
        """The edits of a batch."""
        return self._prepared.training.batch(index)

    def losses(self, batch: EditBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The two losses of some edits, and the share of the edits that succeeded.

        Returns:
            The mean of -log p over the targets of prompts that the edits govern, the divergence KL(base || edited)
            a token elsewhere, and how often the edited model would say the whole target of an edit's own prompt.
        """
        from torch.nn.functional import kl_div

        from memedit.editors.examples import mean_losses

        logits, wanted, edited, base, due = self._asked(batch)
        edit_loss = mean_losses(logits, wanted).mean()
        divergences = kl_div(edited.log_softmax(-1), base.log_softmax(-1), reduction="none", log_target=True).sum(-1)
        elsewhere_loss = ((divergences * due).sum(1) / due.sum(1)).mean()
        return edit_loss, elsewhere_loss, _exact(logits[::2].detach(), wanted[::2]).float().mean()

    def evaluate(self) -> Mapping[str, float]:
        """How often held-out edits hold, on their prompt and its paraphrase, and how many tokens elsewhere stay."""
        import torch

        told: dict[str, list[torch.Tensor]] = {"reliability": [], "generalization": [], "locality": []}
        half = self._settings.loop.precision == "bfloat16"
        for batch in self._prepared.held_out.every():
            with torch.no_grad(), torch.autocast(self._model.device.type, dtype=torch.bfloat16, enabled=half):
                logits, wanted, edited, base, due = self._asked(batch)
            exact = _exact(logits, wanted).float()
            told["reliability"].append(exact[::2])
            told["generalization"].append(exact[1::2])
            told["locality"].append((edited.argmax(-1) == base.argmax(-1)).float()[due])
        figures = {name: float(torch.cat(values).mean()) for name, values in told.items()}
        return {self.maximised: sum(figures.values()) / len(figures), **figures}

    def _asked(self, batch: EditBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the edited model would say.

        Returns:
            Logits and targets of each edit's own prompt and its paraphrase, edit by edit; the edited and the base
            model's logits elsewhere, and where they count.
        """
        import torch

        from memedit.editors.examples import IGNORED
        from memedit.editors.outer_products import shifted

        with self._prepared.lower.resumed(_texts(batch.read)):
            changes = self._predictor.changes(batch.edits)
        if batch.together:
            changes = {name: change.together(len(batch.edits)) for name, change in changes.items()}
        with torch.no_grad():
            base, due = self._said(batch.elsewhere)
        # edit by edit, as the changes are
        asked = [one for pair in zip(batch.own, batch.other, strict=True) for one in pair]
        with shifted(self._model, changes):
            logits, wanted = self._said(asked)
            edited, _ = self._said(batch.elsewhere)
        return logits, wanted, edited, base, due != IGNORED

    def _said(self, examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits where targets are due, and what is due there."""
        from memedit.editors.examples import target_logits

        with self._prepared.lower.resumed(_texts(examples)):
            return target_logits(self._model, self._weights, examples)


class _MendTask(_EditTask):
    """MEND's networks as the loop trains them."""

    name = "mend"

    def __init__(self, settings: MendSettings, prepared: _Prepared, mend: Mend) -> None:
        super().__init__(settings, prepared, mend)
        self._mend = mend
        self._weigh = settings
        if settings.init == "scratch":
            self._normalise()

    def parameters(self) -> Sequence[ParameterGroup]:
        """The networks, and the learning rates of edits, which are learnt faster."""
        named = dict(self._mend.network.named_parameters())
        rates = {name: tensor for name, tensor in named.items() if name.endswith("log_rate")}
        return [
            ParameterGroup(tensors={name: tensor for name, tensor in named.items() if name not in rates}),
            ParameterGroup(tensors=rates, learning_rate_scale=self._weigh.rate_scale, weight_decay=False),
        ]

    def loss(self, batch: EditBatch) -> tuple[torch.Tensor, Mapping[str, float | torch.Tensor]]:
        """``c_edit * L_edit + c_loc * KL``."""
        edit, apart, right = self.losses(batch)
        loss = self._weigh.c_edit * edit + self._weigh.c_loc * apart
        return loss, {"edit": edit.detach(), "elsewhere": apart.detach(), "right": right}

    def _normalise(self) -> None:
        """Takes the statistics of normalisation from gradients of training edits."""
        gradients = []
        for batch in self._prepared.training.every()[: -(-_STATISTICS_EDITS // self._settings.sampling.batch_size)]:
            with self._prepared.lower.resumed(_texts(batch.read)):
                gradients.append(self._mend.gradients(batch.edits))
        self._mend.network.normalise_by(gradients)


def _texts(examples: Sequence[Example]) -> list[tuple[int, ...]]:
    """The token ids of examples, prompt and target."""
    return [(*example.prompt, *example.target) for example in examples]


class _KeTask(_EditTask):
    """KE's hypernetwork as the loop trains it."""

    name = "ke"

    def __init__(self, settings: KeSettings, prepared: _Prepared, ke: Ke) -> None:
        super().__init__(settings, prepared, ke)
        self._ke = ke
        self._constraint = settings
        self._multiplier, self._margin = 1.0, settings.margin
        self._right, self._batches = 0.0, 0

    def parameters(self) -> Sequence[ParameterGroup]:
        """The hypernetwork."""
        return [ParameterGroup(tensors=dict(self._ke.network.named_parameters()))]

    def loss(self, batch: EditBatch) -> tuple[torch.Tensor, Mapping[str, float | torch.Tensor]]:
        """The Lagrangian ``L_edit + multiplier * (KL - m)``; the multiplier takes a step of gradient ascent."""
        edit, apart, right = self.losses(batch)
        excess = apart - self._margin
        loss = edit + self._multiplier * excess
        multiplier = self._multiplier
        self._adjust(float(excess.detach()), float(right))
        return loss, {"edit": edit.detach(), "elsewhere": apart.detach(), "right": right, "multiplier": multiplier}

    def state(self) -> dict[str, Any]:
        """The multiplier and the margin, and what moves them."""
        return {
            "multiplier": self._multiplier,
            "margin": self._margin,
            "right": self._right,
            "batches": self._batches,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state` gave."""
        self._multiplier, self._margin = state["multiplier"], state["margin"]
        self._right, self._batches = state["right"], state["batches"]

    def _adjust(self, excess: float, right: float) -> None:
        """Moves the multiplier, and the margin now and then."""
        of = self._constraint
        self._multiplier = max(0.0, self._multiplier + of.multiplier_rate * excess)
        self._right += (right - self._right) / min(self._batches + 1, of.shrink_every)
        self._batches += 1
        if self._batches % of.shrink_every == 0 and self._right >= _SUCCESS:
            self._margin = max(of.least_margin, _SHRINK * self._margin)


def _exact(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Whether the likeliest token is the one that is due at every place of a row, ``[rows]``."""
    from memedit.editors.examples import IGNORED

    return ((logits.argmax(-1) == wanted) | (wanted == IGNORED)).all(1)


def _from_the_end(layers: Sequence[int], subject: Subject) -> tuple[int, ...]:
    """Layers counted from 0, where some are counted from the last one."""
    from memedit.architectures import architecture_of

    count = architecture_of(subject.model).layer_count(subject.model)
    return tuple(layer + count if layer < 0 else layer for layer in layers)


def _save(
    predictor: Mend | Ke,
    settings: MendSettings | KeSettings,
    prepared: _Prepared,
    result: TrainingResult,
    out: Path,
    *,
    title: str,
    paper: str,
) -> None:
    """Writes a hypernetwork and its card."""
    from memedit.editors.hypernetwork_files import save_hypernetwork

    fingerprint = prepared.fingerprint
    drawn, held_out = len(prepared.training), len(prepared.held_out)
    card = {"settings": settings_json(settings), "figures": dict(result.figures)}
    save_hypernetwork(predictor.saved(base=prepared.subject.name, base_fingerprint=fingerprint, card=card), out)
    write_card(
        out,
        ModelCard(
            title=title,
            summary=f"A hypernetwork that edits {settings.base} ({paper}).",
            base_model=f"{settings.base} {fingerprint}",
            data=list(prepared.files.values()),
            settings=settings,
            result=result,
            licence="that of the project; the base model's is its own",
            notes=(
                f"Edits drawn from these records: {drawn} to learn from, {held_out} dev.",
                "Dev: edits made one by one; the whole target likeliest at each token; tokens elsewhere that stay.",
                "No record of a dev or test split, or of KnowEdit, HalluEditBench, UnKE or MQuAKE, was trained on.",
            ),
        ),
    )
