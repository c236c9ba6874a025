"""memedit's own in-context editing: edits from one memory, found by what was typed alone, put before the question.

In-context editing is Zheng et al. 2023, Can We Edit Factual Knowledge by In-Context Learning? There the right edit is
given; here it has to be found. The words are those of `memedit.prompts.RAW_FORM` and `CHAT_FORM`, the product's own.
"""

from __future__ import annotations

from memedit.editors.editor import MethodInfo
from memedit.editors.memory_editor import MemoryEditor
from memedit.editors.subject import Subject
from memedit.responders import InContextResponder

__all__ = ["INFO", "create"]

INFO = MethodInfo(
    name="ike",
    title="memedit, answering in context",
    group="external knowledge",
    changes="memory",
    paper="Zheng et al. 2023, Can We Edit Factual Knowledge by In-Context Learning?",
    summary="Finds the edit in a memory by a trained classifier and puts the fact, and the question, in context.",
)


def create(subject: Subject) -> MemoryEditor:
    """The method for a model."""
    return MemoryEditor(INFO, subject, InContextResponder(subject.tokenizer))
