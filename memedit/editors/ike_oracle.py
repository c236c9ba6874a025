"""IKE with the right fact handed over, as it is published and as EasyEdit runs it.

Zheng et al. 2023 give the model the case's fact for every prompt of the case, locality prompts included; the
demonstrations are to keep it from obeying a fact that has nothing to do with the question. No retrieval is done and no
decision on scope taken, so that what it scores says nothing of a system that has to find the fact. The prompt is that
of ``ike-demos``.
"""

from __future__ import annotations

from memedit.editors.editor import MethodInfo
from memedit.editors.ike_demos import demonstrating_responder
from memedit.editors.memory_editor import MemoryEditor
from memedit.editors.subject import Subject

__all__ = ["INFO", "create"]

INFO = MethodInfo(
    name="ike-oracle",
    title="IKE with demonstrations, told the edit",
    group="external knowledge",
    changes="memory",
    paper="Zheng et al. 2023, Can We Edit Factual Knowledge by In-Context Learning?",
    summary="Is told the case's edit for every prompt, and puts demonstrations and the fact before it.",
    oracle=True,
)


def create(subject: Subject) -> MemoryEditor:
    """The method for a model.

    Args:
        subject: The model.
    """
    return MemoryEditor(INFO, subject, demonstrating_responder(subject))
