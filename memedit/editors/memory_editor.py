"""An edit memory, a router and a responder as a method: what memedit itself is, behind the interface of all methods.

The memory lives in RAM for as long as the editor does; a method of this kind never touches the model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from classifiers import ScopeClassifier
from memedit.editors.editor import EditCost, MethodInfo, TokenIds, Treatment
from memedit.editors.subject import Subject
from memedit.errors import UnsupportedCallError
from memedit.loading import default_scope
from memedit.queries import Query
from memedit.responders import Responder, confirmed
from memedit.routing import Candidate, Decision, Router, RoutingTimings
from memedit.rows import RowPrompt
from memory_store import Edit, EditMemory

__all__ = ["MemoryEditor", "RouterFactory", "scoped_router"]

RouterFactory = Callable[[EditMemory, Subject], Router]
"""Makes the router over a memory, which is a new one after each `MemoryEditor.undo`."""


def scoped_router(scope: ScopeClassifier) -> RouterFactory:
    """A factory of memedit's own routers: retrieval, then a scope classifier.

    Args:
        scope: Gives (query, edit) pairs their probability.
    """
    return lambda memory, subject: Router(memory, subject.encoder, scope)


class MemoryEditor:
    """A method whose edits are in a memory, and whose answers come from the model with context.

    Args:
        info: What the method is.
        subject: The model.
        responder: Turns a governed prompt into context.
        router: Makes the router; by default memedit's own, with its default scope classifier.
    """

    def __init__(
        self, info: MethodInfo, subject: Subject, responder: Responder, *, router: RouterFactory | None = None
    ) -> None:
        self._info = info
        self._subject = subject
        self._responder = responder
        # made once: a trained classifier takes seconds to load, and there is a new router after each undo
        self._make_router = router or scoped_router(default_scope(subject.encoder.fingerprint))
        self._router = self._fresh()

    @property
    def info(self) -> MethodInfo:
        """What the method is."""
        return self._info

    @property
    def memory(self) -> EditMemory:
        """Where the edits are."""
        return self._router.memory

    def edit(self, edits: Sequence[Edit]) -> EditCost:
        """Add edits to the memory; one that contradicts an earlier one supersedes it."""
        started, spared = time.perf_counter(), self._subject.encoder.spared_seconds
        drafts = [replace(edit, namespace="default") for edit in edits]
        self.memory.add_many(drafts, on_conflict="supersede")
        seconds = time.perf_counter() - started + self._subject.encoder.spared_seconds - spared
        vectors = sum(len(edit.texts()) for edit in edits) * self._subject.encoder.dimension * 4
        return EditCost(edits=len(edits), seconds=seconds, stored_bytes=vectors + sum(map(_text_bytes, edits)))

    def treat(self, prompts: Sequence[TokenIds]) -> list[Treatment]:
        """Route each prompt, and put the governing edit's context into those that one governs.

        Raises:
            UnsupportedCallError: The method is an oracle, which has no routing of its own.
        """
        if self._info.oracle:
            raise UnsupportedCallError(
                f"{self._info.name} is told the edit of each prompt and cannot find it; call treat_told, or use a "
                "method that is no oracle"
            )
        return self._treated(prompts, self._routed)

    def treat_unscoped(self, prompts: Sequence[TokenIds]) -> list[Treatment]:
        """As `treat`, with the nearest edit always governing."""
        return self._treated(prompts, lambda rows: [_nearest(decision) for decision in self._routed(rows)])

    def treat_told(self, prompts: Sequence[TokenIds], gold: Sequence[Edit | None]) -> list[Treatment]:
        """As `treat`, with the decision given; how like the edit the prompt is, is measured as ever."""
        return self._treated(
            prompts, lambda rows: [self._told(row, edit) for row, edit in zip(rows, gold, strict=True)]
        )

    def undo(self) -> None:
        """Empty the memory."""
        self.memory.close()
        self._router = self._fresh()

    def _fresh(self) -> Router:
        return self._make_router(EditMemory(":memory:", encoder=self._subject.encoder), self._subject)

    def _treated(
        self, prompts: Sequence[TokenIds], decide: Callable[[Sequence[RowPrompt]], list[Decision]]
    ) -> list[Treatment]:
        started, spared = time.perf_counter(), self._subject.encoder.spared_seconds
        rows = [self._subject.reader.read(ids) for ids in prompts]
        decisions = confirmed(self._responder, rows, decide(rows))
        contexts = [
            self._responder.context(row, decision) if decision.governed else None
            for row, decision in zip(rows, decisions, strict=True)
        ]
        seconds = time.perf_counter() - started + self._subject.encoder.spared_seconds - spared
        cost = seconds / max(1, len(rows))
        return [
            Treatment(
                context=context,
                decision=decision,
                model=self._responder.model if context is not None else None,
                cost=cost,
            )
            for context, decision in zip(contexts, decisions, strict=True)
        ]

    def _routed(self, rows: Sequence[RowPrompt]) -> list[Decision]:
        routed = iter(self._router.route([row.query for row in rows if row.query is not None], thorough=True))
        return [next(routed) if row.query is not None else self._told(row, None) for row in rows]

    def _told(self, row: RowPrompt, edit: Edit | None) -> Decision:
        query = row.query if row.query is not None else Query(text=row.text, windows=())
        if edit is None:
            return Decision(query, (), 0.0, 1.0, "told that no edit governs", (), RoutingTimings())
        windows, texts = query.windows or (query.text,), edit.texts()
        similarities = (
            self._subject.encoder.encode(windows) @ self._subject.encoder.encode([one.text for one in texts]).T
        )
        window, text = divmod(int(similarities.argmax()), len(texts))
        nearest = texts[text]
        told = Candidate(edit, float(similarities[window, text]), 1.0, windows[window], nearest.text, nearest.kind)
        return Decision(query, (edit,), 1.0, 1.0, "told the edit", (told,), RoutingTimings())


def _nearest(decision: Decision) -> Decision:
    if not decision.candidates:
        return decision
    nearest = max(decision.candidates, key=lambda candidate: candidate.similarity)
    ordered = (nearest, *(candidate for candidate in decision.candidates if candidate is not nearest))
    return replace(
        decision, edits=(nearest.edit,), probability=nearest.probability, candidates=ordered, reason="the nearest edit"
    )


def _text_bytes(edit: Edit) -> int:
    return sum(len(text.text.encode()) for text in edit.texts()) + len(edit.target.encode())
