"""The unedited model: what every method is measured against. It takes edits and forgets them."""

from __future__ import annotations

from collections.abc import Sequence

from memedit.editors.editor import EditCost, MethodInfo, TokenIds, Treatment
from memedit.editors.subject import Subject
from memory_store import Edit

__all__ = ["INFO", "UneditedModel", "create"]

INFO = MethodInfo(
    name="base",
    title="The unedited model",
    group="none",
    changes="nothing",
    paper="none",
    summary="Answers as if no edit had been made.",
)


class UneditedModel:
    """The method that does nothing."""

    @property
    def info(self) -> MethodInfo:
        """What the method is."""
        return INFO

    def edit(self, edits: Sequence[Edit]) -> EditCost:
        """Do nothing."""
        return EditCost(edits=len(edits), seconds=0.0, stored_bytes=0)

    def treat(self, prompts: Sequence[TokenIds]) -> list[Treatment]:
        """Leave every prompt as it is."""
        return [Treatment()] * len(prompts)

    def undo(self) -> None:
        """Do nothing."""


def create(subject: Subject) -> UneditedModel:  # noqa: ARG001 - every method is made for a subject
    """The method for a model."""
    return UneditedModel()
