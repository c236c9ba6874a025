"""Scope classifiers on disk: a folder with `scope.json` and, where there are tensors, one safetensors file.

`scope.json` holds the format version, the kind, the kind's parameters, and the name and SHA-256 of the tensor
file; `classifiers.saved_folder` says how both are written and verified.

This file knows the kinds by name only; each kind says itself what its state is (`SavableScope`).
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from classifiers.errors import ScopeFormatError, ScopeVersionError, UnknownScopeKindError
from classifiers.protocols import ScopeClassifier
from classifiers.saved_folder import SavedFolder

__all__ = ["FORMAT_VERSION", "SCOPE_KINDS", "SavableScope", "load_scope", "save_scope", "saved_parameters"]

FORMAT_VERSION = 1
"""The format this version writes; it reads this one and every older one."""

SCOPE_KINDS: dict[str, str] = {
    "cross-encoder": "classifiers.cross_encoder:CrossEncoderScope",
    "similarity": "classifiers.similarity:SimilarityScope",
}
"""Kind to "module:class", imported when a classifier of that kind is loaded."""

_SAVED = SavedFolder(
    stem="scope", what="scope classifier", version=FORMAT_VERSION, damaged=ScopeFormatError, newer=ScopeVersionError
)


@runtime_checkable
class SavableScope(ScopeClassifier, Protocol):
    """A scope classifier that can be saved: it states its kind, and its state as JSON and tensors."""

    @property
    def kind(self) -> str:
        """The key of the class in `SCOPE_KINDS`."""
        ...

    def to_state(self) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
        """Gives the JSON parameters and the tensors by name."""
        ...

    @classmethod
    def from_state(
        cls,
        parameters: Mapping[str, Any],
        tensors: Mapping[str, NDArray[np.generic]],
        *,
        encoder: str | Path | None = None,
    ) -> Self:
        """Makes the classifier from what `to_state` gave, over the encoder of a folder where it needs one."""
        ...


def save_scope(classifier: ScopeClassifier, folder: str | Path) -> None:
    """Saves a scope classifier to a folder, which is created; one saved there before is replaced as a whole.

    Args:
        classifier: A classifier of a kind in `SCOPE_KINDS`.
        folder: Where to save it.

    Raises:
        ScopeFormatError: The classifier does not say what its state is, or its kind is not registered.
        OSError: The folder cannot be written.
    """
    if not isinstance(classifier, SavableScope):
        raise ScopeFormatError(f"{type(classifier).__name__} cannot be saved: it has no kind, to_state and from_state")
    _check_kind(classifier.kind, "the classifier")
    parameters, tensors = classifier.to_state()
    _SAVED.save(folder, {"kind": classifier.kind, "parameters": parameters}, tensors)


def saved_parameters(folder: str | Path) -> dict[str, Any]:
    """Reads the JSON parameters of a saved classifier, without its tensors.

    Raises:
        ScopeFormatError: There is no classifier in the folder, or its description is damaged.
        ScopeVersionError: It was saved in a newer format.
    """
    return dict(_described(folder)["parameters"])


def load_scope(folder: str | Path, *, encoder: str | Path | None = None) -> ScopeClassifier:
    """Loads the scope classifier that `save_scope` saved to a folder.

    Args:
        folder: Where it was saved.
        encoder: The folder of the encoder it was trained over, for a kind that reads texts.

    Raises:
        ScopeFormatError: A file is missing, damaged, or not one of a scope classifier; or the encoder is another.
        ScopeVersionError: It was saved in a newer format.
        UnknownScopeKindError: Its kind is not in `SCOPE_KINDS`.
    """
    path = Path(folder) / _SAVED.manifest_name
    manifest = _described(folder)
    kind = str(manifest["kind"])
    _check_kind(kind, str(path))
    tensors = _SAVED.load_tensors(folder, manifest)
    module, _, attribute = SCOPE_KINDS[kind].partition(":")
    made: type[SavableScope] = getattr(importlib.import_module(module), attribute)
    try:
        return made.from_state(manifest["parameters"], tensors, encoder=encoder)
    except ScopeFormatError:
        raise
    except (TypeError, ValueError, KeyError) as error:
        raise ScopeFormatError(f"{path}: the parameters are not those of a {kind!r} scope: {error}") from error


def _described(folder: str | Path) -> dict[str, Any]:
    """The manifest of a saved classifier, with kind and parameters in it."""
    manifest = _SAVED.load_manifest(folder)
    if not isinstance(manifest.get("kind"), str) or not isinstance(manifest.get("parameters"), dict):
        raise ScopeFormatError(
            f"{Path(folder) / _SAVED.manifest_name} is incomplete: it needs 'kind' (a string) and 'parameters' "
            "(an object)"
        )
    return dict(manifest)


def _check_kind(kind: str, where: str) -> None:
    if kind in SCOPE_KINDS:
        return
    near = difflib.get_close_matches(kind, SCOPE_KINDS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known kinds: {', '.join(sorted(SCOPE_KINDS))}"
    raise UnknownScopeKindError(f"{where}: unknown kind of scope classifier {kind!r}; {hint}")
