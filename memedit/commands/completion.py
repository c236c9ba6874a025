"""Completion of edit ids in the shell, from the memory that the command line so far names."""

from __future__ import annotations

from pathlib import Path

import typer

from memedit.config import read_config
from memedit.errors import MemeditError

__all__ = ["complete_edit_id"]

MOST_COMPLETIONS = 100
"""More would not help a person choose."""


def complete_edit_id(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """The ids of the memory that begin as what was typed, with the fact each one states.

    A completion that fails is an empty one: an error message in the middle of a command line helps nobody.
    """
    try:
        config = read_config(ctx.params.get("config_file")).override(memory=ctx.params.get("memory"))
    except MemeditError:
        return []
    return _ids_of(config.memory, incomplete)


def _ids_of(path: Path, incomplete: str) -> list[tuple[str, str]]:
    if not path.is_file():
        return []
    from memory_store import EditMemory, MemoryStoreError

    try:
        with EditMemory(path) as memory:
            edits = memory.iterate(state=None)
            found = ((edit.id, edit.fact) for edit in edits if edit.id.startswith(incomplete))
            return [pair for pair, _ in zip(found, range(MOST_COMPLETIONS), strict=False)]
    except MemoryStoreError:
        return []
