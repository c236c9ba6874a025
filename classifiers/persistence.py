"""Scope classifiers on disk: a folder with `scope.json` and, where there are tensors, one safetensors file.

`scope.json` holds the format version, the kind, the kind's parameters, and the name and SHA-256 of the tensor
file. The tensor file's name carries its digest and `scope.json` is renamed into place last, so a reader sees
the old classifier or the new one, whole, whatever moment the writer was stopped at. Nothing here runs code
from the folder.

This file knows the kinds by name only; each kind says itself what its state is (`SavableScope`).
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from classifiers.errors import ScopeFormatError, ScopeVersionError, UnknownScopeKindError
from classifiers.protocols import ScopeClassifier

__all__ = ["FORMAT_VERSION", "SCOPE_KINDS", "SavableScope", "load_scope", "save_scope"]

FORMAT_VERSION = 1
"""The format this version writes; it reads this one and every older one."""

SCOPE_KINDS: dict[str, str] = {"similarity": "classifiers.similarity:SimilarityScope"}
"""Kind to "module:class", imported when a classifier of that kind is loaded."""

_MANIFEST = "scope.json"


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
    def from_state(cls, parameters: Mapping[str, Any], tensors: Mapping[str, NDArray[np.generic]]) -> Self:
        """Makes the classifier from what `to_state` gave."""
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
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    manifest: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "kind": classifier.kind,
        "parameters": parameters,
        "tensors": None,
    }
    if tensors:
        from safetensors.numpy import save

        payload = save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})
        digest = hashlib.sha256(payload).hexdigest()
        manifest["tensors"] = {"file": f"scope-{digest[:16]}.safetensors", "sha256": digest}
        _write_atomically(root / manifest["tensors"]["file"], payload)
    _write_atomically(root / _MANIFEST, (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode())
    kept = manifest["tensors"]["file"] if tensors else None
    for old in root.glob("scope-*.safetensors"):
        if old.name != kept:
            old.unlink(missing_ok=True)


def load_scope(folder: str | Path) -> ScopeClassifier:
    """Loads the scope classifier that `save_scope` saved to a folder.

    Raises:
        ScopeFormatError: A file is missing, damaged, or not one of a scope classifier.
        ScopeVersionError: It was saved in a newer format.
        UnknownScopeKindError: Its kind is not in `SCOPE_KINDS`.
    """
    path = Path(folder) / _MANIFEST
    manifest = _read_manifest(path)
    kind = manifest["kind"]
    _check_kind(kind, str(path))
    tensors = _read_tensors(path, manifest.get("tensors"))
    module, _, attribute = SCOPE_KINDS[kind].partition(":")
    made: type[SavableScope] = getattr(importlib.import_module(module), attribute)
    try:
        return made.from_state(manifest["parameters"], tensors)
    except (TypeError, ValueError, KeyError) as error:
        raise ScopeFormatError(f"{path}: the parameters are not those of a {kind!r} scope: {error}") from error


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ScopeFormatError(f"{path.parent} holds no scope classifier: there is no {path.name} in it") from None
    except ValueError as error:
        raise ScopeFormatError(f"{path} is not JSON: {error}") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format_version"), int):
        raise ScopeFormatError(f"{path} is not the description of a scope classifier: no format_version")
    if manifest["format_version"] > FORMAT_VERSION:
        raise ScopeVersionError(
            f"{path} has format version {manifest['format_version']}; this version of memedit reads up to "
            f"{FORMAT_VERSION}. Upgrade memedit, or save the classifier again with this version."
        )
    if not isinstance(manifest.get("kind"), str) or not isinstance(manifest.get("parameters"), dict):
        raise ScopeFormatError(f"{path} is incomplete: it needs 'kind' (a string) and 'parameters' (an object)")
    return manifest


def _read_tensors(manifest: Path, described: object) -> dict[str, NDArray[np.generic]]:
    if described is None:
        return {}
    if not (isinstance(described, dict) and {"file", "sha256"} <= described.keys()):
        raise ScopeFormatError(f"{manifest}: 'tensors' needs 'file' and 'sha256'")
    name = described["file"]
    if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
        raise ScopeFormatError(f"{manifest}: {name!r} is not a safetensors file beside it")
    try:
        payload = (manifest.parent / name).read_bytes()
    except FileNotFoundError:
        raise ScopeFormatError(f"{manifest} names {name}, which is not beside it") from None
    if hashlib.sha256(payload).hexdigest() != described["sha256"]:
        raise ScopeFormatError(f"{manifest.parent / name} is damaged: its SHA-256 is not the one saved with it")
    from safetensors.numpy import load

    return dict(load(payload))


def _check_kind(kind: str, where: str) -> None:
    if kind in SCOPE_KINDS:
        return
    near = difflib.get_close_matches(kind, SCOPE_KINDS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known kinds: {', '.join(sorted(SCOPE_KINDS))}"
    raise UnknownScopeKindError(f"{where}: unknown kind of scope classifier {kind!r}; {hint}")


def _write_atomically(path: Path, payload: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
