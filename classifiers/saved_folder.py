"""Folders that hold one trained part: a JSON manifest and, where there are tensors, one safetensors file.

The manifest holds the format version, what the kind of part has to say, and the name and SHA-256 of the tensor file.
The tensor file's name carries its digest and the manifest is renamed into place last, so a reader sees the old part or
the new one, whole, whatever moment the writer was stopped at. Nothing here runs code from the folder.

This file knows nothing of what the parts are.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SavedFolder", "write_atomically"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedFolder:
    """One kind of saved part.

    Attributes:
        stem: What its files are called: ``<stem>.json`` and ``<stem>-<digest>.safetensors``.
        what: What the part is, for messages: "scope classifier".
        version: The format that is written; this one and every older one is read.
        damaged: The error for a folder that cannot be read.
        newer: The error for one that was saved in a newer format.
    """

    stem: str
    what: str
    version: int
    damaged: type[Exception]
    newer: type[Exception]

    @property
    def manifest_name(self) -> str:
        """The name of the manifest."""
        return f"{self.stem}.json"

    def save(self, folder: str | Path, content: Mapping[str, Any], tensors: Mapping[str, NDArray[np.generic]]) -> None:
        """Saves a part to a folder, which is created; one saved there before is replaced as a whole.

        Args:
            folder: Where to save it.
            content: What the manifest says besides ``format_version`` and ``tensors``; JSON.
            tensors: The tensors by name; none where the part has none.

        Raises:
            OSError: The folder cannot be written.
        """
        root = Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        manifest: dict[str, Any] = {**content, "format_version": self.version, "tensors": None}
        kept = None
        if tensors:
            from safetensors.numpy import save

            payload = save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})
            digest = hashlib.sha256(payload).hexdigest()
            kept = f"{self.stem}-{digest[:16]}.safetensors"
            manifest["tensors"] = {"file": kept, "sha256": digest}
            write_atomically(root / kept, payload)
        write_atomically(root / self.manifest_name, (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode())
        for old in root.glob(f"{self.stem}-*.safetensors"):
            if old.name != kept:
                old.unlink(missing_ok=True)

    def load(self, folder: str | Path) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
        """Loads the manifest, and the tensors with their digest verified.

        Args:
            folder: Where the part was saved.

        Raises:
            Exception: A file is missing or damaged (``damaged``), or of a newer format (``newer``).
        """
        manifest = self.load_manifest(folder)
        return manifest, self.load_tensors(folder, manifest)

    def load_manifest(self, folder: str | Path) -> dict[str, Any]:
        """Loads the manifest alone.

        Args:
            folder: Where the part was saved.

        Raises:
            Exception: As `load`.
        """
        path = Path(folder) / self.manifest_name
        try:
            manifest = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise self.damaged(f"{path.parent} holds no {self.what}: there is no {path.name} in it") from None
        except ValueError as error:
            raise self.damaged(f"{path} is not JSON: {error}") from error
        if not isinstance(manifest, dict) or not isinstance(manifest.get("format_version"), int):
            raise self.damaged(f"{path} is not the description of a {self.what}: no format_version")
        if manifest["format_version"] > self.version:
            raise self.newer(
                f"{path} has format version {manifest['format_version']}; this version of memedit reads up to "
                f"{self.version}. Upgrade memedit, or save the {self.what.rpartition(' ')[2]} again with this version."
            )
        return manifest

    def load_tensors(self, folder: str | Path, manifest: Mapping[str, Any]) -> dict[str, NDArray[np.generic]]:
        """Loads the tensors that a manifest names; none where it names none.

        Args:
            folder: Where the part was saved.
            manifest: Its manifest.

        Raises:
            Exception: As `load`.
        """
        described, path = manifest.get("tensors"), Path(folder) / self.manifest_name
        if described is None:
            return {}
        if not (isinstance(described, dict) and {"file", "sha256"} <= described.keys()):
            raise self.damaged(f"{path}: 'tensors' needs 'file' and 'sha256'")
        name = described["file"]
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise self.damaged(f"{path}: {name!r} is not a safetensors file beside it")
        try:
            payload = (path.parent / name).read_bytes()
        except FileNotFoundError:
            raise self.damaged(f"{path} names {name}, which is not beside it") from None
        if hashlib.sha256(payload).hexdigest() != described["sha256"]:
            raise self.damaged(f"{path.parent / name} is damaged: its SHA-256 is not the one saved with it")
        from safetensors.numpy import load

        return dict(load(payload))


def write_atomically(path: Path, payload: bytes) -> None:
    """Writes a file such that whoever opens it finds the old content or the new, whole, also after a crash.

    Args:
        path: The file; its folder is there.
        payload: Its content.

    Raises:
        OSError: It cannot be written; what was there is left as it was.
    """
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
