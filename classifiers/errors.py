"""The errors of the classifiers package: one small tree.

::

    ClassifierError
    ├── EncoderLoadError       a folder that holds no text encoder that can be loaded safely
    └── ScopeFormatError       a saved scope classifier that cannot be read, or an object that cannot be saved
        ├── UnknownScopeKindError    its kind is not one that this version knows (says the nearest)
        └── ScopeVersionError        it was written in a newer format than this version reads

Wrong arguments of a call (a string where a list of strings is due, a parameter out of range) are the built-in
``TypeError`` and ``ValueError``.
"""

from __future__ import annotations

__all__ = [
    "ClassifierError",
    "EncoderLoadError",
    "ScopeFormatError",
    "ScopeVersionError",
    "UnknownScopeKindError",
]


class ClassifierError(Exception):
    """Base class of every error that this package itself raises."""


class EncoderLoadError(ClassifierError, OSError):
    """A folder that holds no text encoder, or one that cannot be loaded without running code from it."""


class ScopeFormatError(ClassifierError, ValueError):
    """A saved scope classifier that is missing, damaged or incomplete; the message names the file."""


class UnknownScopeKindError(ScopeFormatError):
    """A kind of scope classifier that this version does not know; the message names the nearest."""


class ScopeVersionError(ScopeFormatError):
    """A scope classifier saved in a format newer than this version reads."""
