"""Plain retrieval with a threshold on the cosine: the baseline that everyone builds first.

The whole prompt, or the whole last user turn, is one vector. The edit nearest to it governs if their cosine is at least
0.7, and the bare fact is put before the prompt. What memedit does beyond this is left out: the question is not looked
for in a longer prompt, and the fact is not shown answering it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from classifiers import SimilarityScope
from memedit.editors.editor import MethodInfo
from memedit.editors.memory_editor import MemoryEditor, scoped_router
from memedit.editors.subject import Subject
from memedit.prompts import PLAIN_FORM
from memedit.queries import Query
from memedit.responders import InContextResponder
from memedit.routing import Decision
from memedit.rows import RowPrompt

__all__ = ["INFO", "PlainRetrieval", "create"]

INFO = MethodInfo(
    name="retrieval",
    title="Plain retrieval with a cosine threshold",
    group="external knowledge",
    changes="memory",
    paper="after Lewis et al. 2020, Retrieval-Augmented Generation for Knowledge-Intensive NLP Tasks",
    summary="Compares the whole prompt with every edit, and puts the nearest one's bare fact before it from 0.7 on.",
)

SCOPE = SimilarityScope(threshold_similarity=0.7)
"""From which cosine on an edit governs."""


class PlainRetrieval(MemoryEditor):
    """A memory that is asked with the whole prompt as one text.

    Args:
        subject: The model.
    """

    def __init__(self, subject: Subject) -> None:
        responder = InContextResponder(subject.tokenizer, raw_form=PLAIN_FORM, chat_form=PLAIN_FORM)
        super().__init__(INFO, subject, responder, router=scoped_router(SCOPE))

    def _routed(self, rows: Sequence[RowPrompt]) -> list[Decision]:
        return super()._routed([replace(row, query=self._whole(row)) for row in rows])

    def _whole(self, row: RowPrompt) -> Query | None:
        """The whole of what was typed last, as the only window; None where nothing was."""
        if row.turns is not None:
            text = next((turn.content for turn in reversed(row.turns) if turn.role == "user"), "")
        else:
            text = str(self._subject.tokenizer.decode(list(row.ids), skip_special_tokens=True))
        return Query(text, (text,)) if text.strip() else None


def create(subject: Subject) -> PlainRetrieval:
    """The method for a model.

    Args:
        subject: The model.
    """
    return PlainRetrieval(subject)
