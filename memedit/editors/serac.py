"""SERAC (Mitchell et al. 2022): a memory, a trained scope classifier, and a small trained counterfactual model.

Both trained parts come with memedit: the classifier that reads query and edit together, and the model that answers as
if the edits were true, of whatever vocabulary the edited model is.
"""

from __future__ import annotations

from classifiers import ScopeClassifier
from classifiers.errors import ScopeFormatError
from memedit.counterfactual import CounterfactualModel
from memedit.counterfactual_responder import CounterfactualResponder
from memedit.editors.editor import MethodInfo
from memedit.editors.memory_editor import MemoryEditor, scoped_router
from memedit.editors.subject import Subject
from memedit.errors import ModelNotFoundError, UnsupportedCallError

__all__ = ["INFO", "create"]

INFO = MethodInfo(
    name="serac",
    title="SERAC",
    group="external knowledge",
    changes="memory",
    paper="Mitchell et al. 2022, Memory-Based Model Editing at Scale",
    summary="Sends what a trained classifier finds in scope to a trained counterfactual model.",
    needs_training=True,
)


def create(subject: Subject) -> MemoryEditor:
    """The method for a model.

    Args:
        subject: The model.

    Raises:
        UnsupportedCallError: This version comes without one of the two trained parts.
    """
    try:
        counterfactual = CounterfactualModel.load(dtype=subject.model.dtype, device=subject.model.device)
        scope = _trained_scope()
    except (ModelNotFoundError, ScopeFormatError) as error:
        raise UnsupportedCallError(
            f"serac cannot edit {subject.name}: it needs a trained scope classifier and a trained counterfactual "
            f"model, and one of them is missing ({error}); use ike, which answers from the same kind of memory without "
            "trained parts, or scr, which lets the model itself choose the fact"
        ) from error
    responder = CounterfactualResponder(counterfactual, subject.model, subject.tokenizer)
    return MemoryEditor(INFO, subject, responder, router=scoped_router(scope))


def _trained_scope() -> ScopeClassifier:
    """The scope classifier that comes with memedit, over the encoder it was trained on.

    Raises:
        ScopeFormatError: There is none.
        ModelNotFoundError: Its encoder is not found.
    """
    from classifiers import shipped_scope
    from memedit.known_models import DEFAULT_ENCODER
    from memedit.pulling import resolve

    return shipped_scope(resolve(DEFAULT_ENCODER))
