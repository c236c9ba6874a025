"""IKE's prompt as published, but over a memory: the fact has to be found, and the prompt is left alone if none is.

Zheng et al. 2023 put demonstrations of copying, updating and retaining before the fact and the question; their 32
demonstrations are drawn from CounterFact's training records. Here they are the nearest of the project's own small set,
as many as `memedit.prompts.IKE_FORM` wants, so that no benchmark record stands in a prompt. The router is memedit's
own, by the similarity of texts: against ``ike``, only the words of the prompt differ.
"""

from __future__ import annotations

from memedit.demonstrations import DemonstrationSet, default_demonstrations
from memedit.editors.editor import MethodInfo
from memedit.editors.memory_editor import MemoryEditor
from memedit.editors.subject import Subject
from memedit.prompts import IKE_FORM
from memedit.responders import InContextResponder

__all__ = ["INFO", "create", "demonstrating_responder"]

INFO = MethodInfo(
    name="ike-demos",
    title="IKE with demonstrations, from a memory",
    group="external knowledge",
    changes="memory",
    paper="Zheng et al. 2023, Can We Edit Factual Knowledge by In-Context Learning?",
    summary="Finds the edit in a memory by similarity and puts demonstrations and the fact before the prompt.",
)


def demonstrating_responder(subject: Subject) -> InContextResponder:
    """The responder that puts IKE's demonstrations and the fact before a prompt.

    Args:
        subject: The model.
    """
    demonstrations = DemonstrationSet(default_demonstrations(), encoder=subject.encoder)
    return InContextResponder(subject.tokenizer, raw_form=IKE_FORM, chat_form=IKE_FORM, demonstrations=demonstrations)


def create(subject: Subject) -> MemoryEditor:
    """The method for a model.

    Args:
        subject: The model.
    """
    return MemoryEditor(INFO, subject, demonstrating_responder(subject))
