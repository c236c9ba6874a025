"""In-context editing with the right fact handed over: before every prompt stands the fact of the case it belongs to.

This is ICE as evaluations of knowledge editing have it since Cohen et al. 2024 and as EasyEdit reproduces it: no
retrieval and no decision on scope. The case's fact is put before its locality prompts too. It shows what a model can do
with a fact before its eyes, not what a system does that has to find the fact.
"""

from __future__ import annotations

from memedit.editors.editor import MethodInfo
from memedit.editors.memory_editor import MemoryEditor
from memedit.editors.subject import Subject
from memedit.prompts import PLAIN_FORM
from memedit.responders import InContextResponder

__all__ = ["INFO", "create"]

INFO = MethodInfo(
    name="ice-oracle",
    title="In-context editing, told the edit",
    group="external knowledge",
    changes="memory",
    paper="Cohen et al. 2024, Evaluating the Ripple Effects of Knowledge Editing in Language Models",
    summary="Is told the case's edit for every prompt, locality prompts included, and puts the bare fact before it.",
    oracle=True,
)


def create(subject: Subject) -> MemoryEditor:
    """The method for a model.

    Args:
        subject: The model.
    """
    return MemoryEditor(INFO, subject, InContextResponder(subject.tokenizer, raw_form=PLAIN_FORM, chat_form=PLAIN_FORM))
