"""Trains the hypernetworks that edit weights: MEND's, and KE's.

The edits and the prompts are `training.edit_batches`, the losses `training.hypernetwork_tasks`; the networks are
memedit's own, which makes the same changes of the same edits when it serves them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.card import CardData, ModelCard, write_card
from training.config import settings_json
from training.edit_batches import EditDrawer
from training.errors import TrainingDataError
from training.facts import read_edits, read_own
from training.hypernetwork_settings import KeSettings, MendSettings
from training.hypernetwork_tasks import EditTask, KeTask, MendTask, Prepared
from training.loop import TrainingResult, train
from training.lower_layers import LowerLayers
from training.material import is_held_out, required
from training.progress import SILENT, Progress
from training.settings import device_for, settled

if TYPE_CHECKING:
    from memedit.editors.hypernetwork import Hypernetwork
    from memedit.editors.subject import Subject

__all__ = ["run"]


def run(
    settings: MendSettings | KeSettings,
    *,
    out: Path,
    data: Sequence[Path] = (),
    data_folder: Path | None = None,
    fresh: bool = False,
    progress: Progress = SILENT,
) -> TrainingResult:
    """Trains and saves a hypernetwork for a model, of the method that the settings are of.

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
    settings = replace(settings, loop=settled(settings.loop))
    prepared = _prepare(settings, out=out, own=data, data_folder=data_folder, progress=progress)
    hypernetwork, task = _task(settings, prepared)
    result = train(task, settings.loop, out, fresh=fresh, progress=progress)
    _save(hypernetwork, settings, prepared, result, out)
    return result


def _task(settings: MendSettings | KeSettings, prepared: Prepared) -> tuple[Hypernetwork[Any, Any], EditTask]:
    """The hypernetwork where its training starts, and what it is trained on."""
    from memedit.editors.ke import Ke, KeConfig
    from memedit.editors.mend import Mend, MendConfig

    subject, shipped, seed = prepared.subject, settings.init == "shipped", settings.loop.seed
    layers = _from_the_end(settings.layers, subject)
    if isinstance(settings, MendSettings):
        shape = MendConfig(
            layers=layers, parts=settings.parts, rank=settings.rank, learning_rate=settings.edit_learning_rate
        )
        mend = Mend.found(subject) if shipped else Mend(subject, shape, seed=seed)
        return mend, MendTask(settings, prepared, mend)
    form = KeConfig(
        layers=layers,
        parts=settings.parts,
        hidden=settings.hidden,
        condition=settings.condition,
        scale=settings.scale,
    )
    ke = Ke.found(subject) if shipped else Ke(subject, form, seed=seed)
    return ke, KeTask(settings, prepared, ke)


def _prepare(
    settings: MendSettings | KeSettings,
    *,
    out: Path,
    own: Sequence[Path],
    data_folder: Path | None,
    progress: Progress,
) -> Prepared:
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
    return Prepared(
        subject=subject, fingerprint=fingerprint, lower=lower, training=drawers[0], held_out=drawers[1], files=files
    )


def _from_the_end(layers: Sequence[int], subject: Subject) -> tuple[int, ...]:
    """Layers counted from 0, where some are counted from the last one."""
    from memedit.architectures import architecture_of

    count = architecture_of(subject.model).layer_count(subject.model)
    return tuple(layer + count if layer < 0 else layer for layer in layers)


def _save(
    hypernetwork: Hypernetwork[Any, Any],
    settings: MendSettings | KeSettings,
    prepared: Prepared,
    result: TrainingResult,
    out: Path,
) -> None:
    """Writes a hypernetwork and its card."""
    from memedit.editors.hypernetwork_files import save_hypernetwork

    fingerprint = prepared.fingerprint
    drawn, held_out = len(prepared.training), len(prepared.held_out)
    card = {"settings": settings_json(settings), "figures": dict(result.figures)}
    save_hypernetwork(hypernetwork.saved(base=prepared.subject.name, base_fingerprint=fingerprint, card=card), out)
    write_card(
        out,
        ModelCard(
            title=f"{hypernetwork.info.title} of {settings.base}",
            summary=f"A hypernetwork that edits {settings.base} ({hypernetwork.info.paper}).",
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
