"""SERAC (Mitchell et al. 2022): a memory, a trained scope classifier, and a small trained counterfactual model.

The name is taken so that it is known what is missing: neither of the trained parts comes with this version.
"""

from __future__ import annotations

from typing import Never

from memedit.editors.editor import MethodInfo
from memedit.editors.subject import Subject
from memedit.errors import UnsupportedCallError

__all__ = ["INFO", "create"]

INFO = MethodInfo(
    name="serac",
    title="SERAC",
    group="external knowledge",
    changes="memory",
    paper="Mitchell et al. 2022, Memory-Based Model Editing at Scale",
    summary="Sends what a trained classifier finds in scope to a trained counterfactual model (not yet included).",
    needs_training=True,
    models="those that share a vocabulary with its counterfactual model",
)


def create(subject: Subject) -> Never:
    """Says what is missing.

    Args:
        subject: The model.

    Raises:
        UnsupportedCallError: Always.
    """
    raise UnsupportedCallError(
        f"serac cannot edit {subject.name}: it needs a trained scope classifier and a trained counterfactual model, "
        "and this version comes with neither; use ike, which answers from the same kind of memory without trained "
        "parts, or scr, which lets the model itself choose the fact"
    )
