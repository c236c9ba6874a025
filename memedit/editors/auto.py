"""memedit with ``mode="auto"``: in-context answers or the counterfactual model's, whichever a self-test finds better.

What is tried, and how it is kept, is in `memedit.modes`; the edits of an evaluation have no part in it.
"""

from __future__ import annotations

from memedit.editors.editor import MethodInfo
from memedit.editors.memory_editor import MemoryEditor
from memedit.editors.subject import Subject
from memedit.modes import choose_mode

__all__ = ["INFO", "create"]

INFO = MethodInfo(
    name="auto",
    title="memedit, answering as its self-test chooses",
    group="external knowledge",
    changes="memory",
    paper="Mitchell et al. 2022, Memory-Based Model Editing at Scale",
    summary="As ike or as serac, whichever answers more of a dozen made-up facts rightly with this model.",
    needs_training=True,
)


def create(subject: Subject) -> MemoryEditor:
    """The method for a model.

    Args:
        subject: The model.
    """
    return MemoryEditor(INFO, subject, choose_mode("auto", subject.model, subject.tokenizer).responder)
