"""R-ROME: ROME's formula with one key throughout, as the paper has it.

Gupta et al. 2024, *Rebuilding ROME: Resolving Model Collapse during Sequential Model Editing*, found that the authors'
code of ROME puts the bare prompt's key where the formula has the mean key k*, and that this alone makes single edits
ruin a model. Everything else is ROME's (`memedit.editors.rome`), its table of hyperparameters too.
"""

from __future__ import annotations

from dataclasses import replace

from memedit.editors import rome
from memedit.editors.rome import RomeEditor, default_config
from memedit.editors.subject import Subject

__all__ = ["INFO", "create"]

INFO = replace(
    rome.INFO,
    name="r-rome",
    title="ROME, rebuilt",
    paper="Gupta et al. 2024, Rebuilding ROME: Resolving Model Collapse during Sequential Model Editing",
    summary="As ROME, by the paper's formula instead of the code's, which lets an edit ruin a model.",
)


def create(subject: Subject) -> RomeEditor:
    """The method for a model."""
    return RomeEditor(subject, replace(default_config(subject.model), mixed_keys=False), info=INFO)
