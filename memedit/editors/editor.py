"""What every editing method is, whether it writes into a memory or into weights: the seam of the evaluation.

A method edits, says how it treats a prompt, and undoes. It does not generate: whoever compares methods generates for
all of them alike, from the subject's model, which a parameter editor has changed in place and a memory editor has not.
A method sees prompts as token ids, exactly as the model does, so that no answer can reach it. A method that is told
which edit belongs to a prompt says so in `MethodInfo.oracle`, and what it scores is never put beside the others'.

This file knows nothing of benchmarks, scores or any method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from memedit.editors.subject import Subject
from memedit.injection import Context
from memedit.routing import Decision
from memory_store import Edit

__all__ = [
    "EditCost",
    "Editor",
    "EditorFactory",
    "Group",
    "MethodInfo",
    "RoutedEditor",
    "TokenIds",
    "Treatment",
]

TokenIds = Sequence[int]
"""A prompt as the model reads it: its own token ids, chat template included, without padding."""

Group = Literal[
    "none",
    "external knowledge",
    "merging knowledge into the model",
    "editing intrinsic knowledge",
]
"""The survey's groups of methods (Zhang et al. 2024, A Comprehensive Study of Knowledge Editing, section 3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodInfo:
    """What a person wants to know of a method before choosing it.

    Attributes:
        name: What it is called on the command line and in results, such as ``"ft-m"``.
        title: Its name in full.
        group: The survey's group.
        changes: What an edit changes: nothing, the ``memory``, or the model's ``weights``, modules that a method puts
            beside them included.
        paper: Author, year and title.
        summary: What it does, in a sentence.
        oracle: Whether it is told which edit belongs to a prompt.
        needs_training: Whether it needs parts that are trained beforehand.
        batch: Whether it makes several edits together as one; else one after the other.
        models: Which models it supports, in words.
    """

    name: str
    title: str
    group: Group
    changes: Literal["nothing", "memory", "weights"]
    paper: str
    summary: str
    oracle: bool = False
    needs_training: bool = False
    batch: bool = True
    models: str = "any decoder-only transformers model"


@dataclass(frozen=True, slots=True, kw_only=True)
class EditCost:
    """What making some edits cost.

    Attributes:
        edits: How many were made.
        seconds: How long it took, what is done once a model (`setup_seconds`) left out.
        setup_seconds: What was done once, such as statistics over a corpus; 0 where nothing was.
        stored_bytes: What the edits take in the memory or beside the model, where that can be said.
    """

    edits: int
    seconds: float
    setup_seconds: float = 0.0
    stored_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """How one prompt is to be answered.

    Attributes:
        context: What is put into the prompt; None where the model reads it as it is.
        decision: The router's, for methods that have one.
        model: What answers in place of the subject's model; None for the subject's own.
        cost: Seconds that the method spent on this prompt.
    """

    context: Context | None = None
    decision: Decision | None = None
    model: Any | None = None
    cost: float = 0.0


class Editor(Protocol):
    """A method attached to one model.

    Edits accumulate: ``edit([a]); edit([b])`` is sequential editing, ``edit([a, b])`` a batch.
    """

    @property
    def info(self) -> MethodInfo:
        """What the method is."""

    def edit(self, edits: Sequence[Edit]) -> EditCost:
        """Make edits together, on top of those made before.

        Args:
            edits: Drafts, in the order in which they are made.

        Raises:
            MemeditError: The method cannot make one of them; says which and why. Nothing is changed then.
        """

    def treat(self, prompts: Sequence[TokenIds]) -> list[Treatment]:
        """Say how each prompt is to be answered, seeing nothing but the prompts.

        Args:
            prompts: Token ids of each prompt.

        Returns:
            One treatment a prompt, in order. It holds until the next `edit` or `undo` where the method changes weights,
            and for good where it does not.
        """

    def undo(self) -> None:
        """Take back every edit: the model is bit for bit what it was before the first, and the memory empty."""


@runtime_checkable
class RoutedEditor(Editor, Protocol):
    """A method that decides which edit governs a prompt, so that its routing can be tested apart from its answers."""

    def treat_told(self, prompts: Sequence[TokenIds], gold: Sequence[Edit | None]) -> list[Treatment]:
        """As `treat`, with the decision given: the edit that governs each prompt, or None.

        For the oracle ablation and methods marked as oracles; nothing else calls it.
        """

    def treat_unscoped(self, prompts: Sequence[TokenIds]) -> list[Treatment]:
        """As `treat`, with the nearest edit always governing: retrieval without a decision on scope."""


EditorFactory = Callable[[Subject], Editor]
"""What a method registers: attaches it to a model. Options have defaults."""
