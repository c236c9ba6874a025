"""The scope classifier that comes with this package: where it is, and loading it."""

from __future__ import annotations

from pathlib import Path

from classifiers.persistence import load_scope, saved_parameters
from classifiers.protocols import ScopeClassifier

__all__ = ["SHIPPED_SCOPE", "shipped_retriever", "shipped_scope"]

SHIPPED_SCOPE = Path(__file__).parent / "data" / "scope"
"""The folder of the shipped classifier."""


def shipped_scope(encoder: str | Path) -> ScopeClassifier:
    """Loads the shipped scope classifier.

    Args:
        encoder: The folder of all-MiniLM-L6-v2, over which it was trained.

    Raises:
        ScopeFormatError: The folder holds another encoder, or the classifier is missing or damaged.
    """
    return load_scope(SHIPPED_SCOPE, encoder=encoder)


def shipped_retriever() -> str:
    """The fingerprint of the text encoder whose candidates the shipped classifier was made to read.

    Raises:
        ScopeFormatError: The classifier is missing or damaged.
    """
    return str(saved_parameters(SHIPPED_SCOPE)["retriever"])
