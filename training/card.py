"""The model card beside trained weights: ``README.md`` for a person, ``card.json`` for a program.

It says what the weights are, and what it takes to train them again: data with hashes, settings, seed, versions,
revision; and what they reach. It names files by their names in the data folder, never by a path of this machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from training.config import settings_json, settings_toml
from training.errors import TrainingDataError
from training.loop import TrainingResult

__all__ = ["CardData", "ModelCard", "data_of", "write_card"]

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CardData:
    """A file that was trained or measured on.

    Attributes:
        name: Its name, relative to the data folder.
        sha256: SHA-256 of its bytes, in hexadecimal.
        records: How many records of it were used.
        licence: Under what it may be used, and whose it is.
        use: What for, such as "training" or "dev".
    """

    name: str
    sha256: str
    records: int
    licence: str
    use: str = "training"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What is to be known of trained weights.

    Attributes:
        title: What they are called.
        summary: What they are and are for, as Markdown.
        base_model: What they were trained on top of: name and fingerprint.
        data: The files they were trained and measured on.
        settings: The settings, a dataclass as `training.config` has it.
        result: What came of training.
        figures: Figures that were measured besides the result's own, by name.
        licence: Under what the weights may be used.
        notes: What else is to be known, such as limits and the terms of the data; a line of Markdown each.
    """

    title: str
    summary: str
    base_model: str
    data: Sequence[CardData]
    settings: Any
    result: TrainingResult
    licence: str
    figures: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()


def data_of(path: Path, *, name: str, records: int, licence: str, use: str = "training") -> CardData:
    """A file as a card tells of it; its bytes are hashed.

    Args:
        path: The file.
        name: Its name, relative to the data folder.
        records: How many records of it were used.
        licence: Under what it may be used, and whose it is.
        use: What for.

    Raises:
        TrainingDataError: The file cannot be read.
    """
    from memedit.model_sources import file_sha256

    try:
        digest = file_sha256(path)
    except OSError as error:
        raise TrainingDataError(f"{path} cannot be read: {error.strerror or error}.") from error
    return CardData(name=name, sha256=digest, records=records, licence=licence, use=use)


def write_card(folder: Path, card: ModelCard) -> None:
    """Writes a card as ``README.md`` and ``card.json``; each whole or not at all.

    Args:
        folder: The folder of the weights.
        card: What is to be known of them.

    Raises:
        DataFileError: A file cannot be written.
    """
    from memedit.evaluation.files import write_atomically
    from memedit.evaluation.provenance import machine, revision, versions

    made = {"versions": versions(), "revision": revision(), "machine": machine()}
    whole = {
        "format_version": FORMAT_VERSION,
        "title": card.title,
        "summary": card.summary,
        "base_model": card.base_model,
        "data": [asdict(one) for one in card.data],
        "settings": settings_json(card.settings),
        "result": card.result.to_json(),
        "figures": dict(card.figures),
        "licence": card.licence,
        "notes": list(card.notes),
        **made,
    }
    write_atomically(folder / "card.json", json.dumps(whole, ensure_ascii=False, indent=1) + "\n")
    write_atomically(folder / "README.md", "\n".join(_markdown(card, made)).rstrip() + "\n")


def _markdown(card: ModelCard, made: Mapping[str, Any]) -> Iterator[str]:
    result = card.result
    yield from (f"# {card.title}", "", card.summary, "")
    yield from (f"- Trained on top of: {card.base_model}", f"- Licence: {card.licence}", "")
    yield from ("## Figures", "", "On the dev records, before training and for the state that was kept:", "")
    yield from _table(
        ("figure", "before", "kept"),
        [(name, _figure(result.figures_at_start.get(name)), _figure(value)) for name, value in result.figures.items()],
    )
    if card.figures:
        yield from ("Measured besides:", "")
        yield from _table(("figure", "value"), [(name, _figure(value)) for name, value in card.figures.items()])
    yield (
        f"The state of step {result.best_step} was kept, the best by {result.maximised}. Training made {result.steps} "
        f"steps in {result.seconds / 60:.1f} minutes on {result.device} and was ended by: {result.stopped_by}."
    )
    yield from ("", "## Data", "")
    yield from _table(
        ("file", "use", "records", "licence", "SHA-256"),
        [(one.name, one.use, f"{one.records:,}", one.licence, f"`{one.sha256}`") for one in card.data],
    )
    yield from ("## Settings", "", "```toml", settings_toml(card.settings).rstrip(), "```", "")
    yield from ("## Made with", "")
    yield from _table(("package", "version"), list(made["versions"].items()))
    yield f"Revision: {made['revision'] or 'not of a working tree'}. Machine: {_machine(made['machine'])}."
    if card.notes:
        yield from ("", "## Notes", "")
        yield from (f"- {note}" for note in card.notes)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _machine(of: Mapping[str, Any]) -> str:
    told = f"{of['system']}, {of['cores']} cores, {of['threads']} threads"
    return f"{told}, {of['accelerator']}" if "accelerator" in of else told
