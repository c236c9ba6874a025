"""Text encoders and scope classifiers: does an edit govern a query?

A `TextEncoder` turns texts into unit vectors, with which edits near a query are found. A `ScopeClassifier`
then gives, for each pair of a query and an edit, the probability that the edit governs the query. This
package takes plain strings: it knows nothing of how edits are stored, nor of the language model that answers.

    >>> from classifiers import SentenceEncoder, SimilarityScope
    >>> encoder = SentenceEncoder("path/to/all-MiniLM-L6-v2")  # doctest: +SKIP
    >>> scope = SimilarityScope(threshold_similarity=0.7)
    >>> scope.threshold
    0.5
"""

from __future__ import annotations

from classifiers.cross_encoder import CrossEncoderParameters, CrossEncoderScope
from classifiers.encoders import SentenceEncoder
from classifiers.errors import (
    ClassifierError,
    EncoderLoadError,
    ScopeFormatError,
    ScopeVersionError,
    UnknownScopeKindError,
)
from classifiers.persistence import load_scope, save_scope
from classifiers.protocols import ScopeCandidate, ScopeClassifier, TextEncoder
from classifiers.quiet import quiet_transformers
from classifiers.shipped import shipped_scope
from classifiers.similarity import SimilarityScope

__all__ = [
    "ClassifierError",
    "CrossEncoderParameters",
    "CrossEncoderScope",
    "EncoderLoadError",
    "ScopeCandidate",
    "ScopeClassifier",
    "ScopeFormatError",
    "ScopeVersionError",
    "SentenceEncoder",
    "SimilarityScope",
    "TextEncoder",
    "UnknownScopeKindError",
    "load_scope",
    "quiet_transformers",
    "save_scope",
    "shipped_scope",
]
