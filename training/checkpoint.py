"""A checkpoint on disk: ``checkpoint.json`` and the safetensors files it names, the old one or the new, always whole.

A tensor file's name carries the digest of its bytes, and ``checkpoint.json`` is renamed into place last: whatever
moment the writer is stopped at, what ``checkpoint.json`` names is there. Nothing is run from these files. This file
knows nothing of what the tensors are, nor of training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.errors import CheckpointError

if TYPE_CHECKING:
    import torch

__all__ = ["Checkpoint", "CheckpointFolder", "differences"]

FORMAT_VERSION = 1
"""The format that is written, and the only one that is read: a checkpoint does not outlive its version."""

_MANIFEST = "checkpoint.json"
_FRESH = "begin anew with --fresh"
_LISTED = 8
"""The most differences that a message lists."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is kept.

    Attributes:
        facts: JSON values.
        tensors: Sets of tensors by the name of the set; each is a file. Loaded ones are on the CPU.
    """

    facts: Mapping[str, Any]
    tensors: Mapping[str, Mapping[str, torch.Tensor]]


class CheckpointFolder:
    """The folder of a checkpoint.

    Args:
        path: The folder; made when a checkpoint is saved.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, checkpoint: Checkpoint) -> None:
        """Saves a checkpoint in place of the one before; on disk when this returns.

        Args:
            checkpoint: What is to be kept.

        Raises:
            OSError: The folder cannot be written.
        """
        from safetensors.torch import save

        from classifiers.saved_folder import write_atomically

        self.path.mkdir(parents=True, exist_ok=True)
        files = {}
        for name, tensors in checkpoint.tensors.items():
            payload = save(dict(tensors))
            digest = hashlib.sha256(payload).hexdigest()
            file = self.path / f"{name}-{digest[:16]}.safetensors"
            if not file.exists():  # its name is its content, and it was renamed into place
                write_atomically(file, payload)
            files[name] = {"file": file.name, "sha256": digest}
        manifest = {"format_version": FORMAT_VERSION, "facts": checkpoint.facts, "files": files}
        write_atomically(self.path / _MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
        self._remove_all_but({one["file"] for one in files.values()})

    def load(self) -> Checkpoint | None:
        """Loads the checkpoint; None where there is none.

        Raises:
            CheckpointError: It is damaged, or of another format.
        """
        path = self.path / _MANIFEST
        try:
            manifest = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise CheckpointError(f"{path} is not JSON: {error}; {_FRESH}.") from error
        version = manifest.get("format_version") if isinstance(manifest, dict) else None
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"{path} has format version {version!r}, and this version of memedit reads {FORMAT_VERSION}. Go on "
                f"with the version that wrote it, or {_FRESH}."
            )
        try:
            files = {name: (Path(one["file"]).name, one["sha256"]) for name, one in manifest["files"].items()}
            facts = manifest["facts"]
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path} is incomplete: {error!r}; {_FRESH}.") from error
        return Checkpoint(facts, {name: self._read(*file) for name, file in files.items()})

    def clear(self) -> None:
        """Removes the checkpoint, if there is one."""
        (self.path / _MANIFEST).unlink(missing_ok=True)
        self._remove_all_but(set())

    def _read(self, name: str, sha256: str) -> dict[str, torch.Tensor]:
        from safetensors.torch import load

        file = self.path / name
        try:
            payload = file.read_bytes()
        except FileNotFoundError:
            raise CheckpointError(f"{file} is missing, which {_MANIFEST} names; {_FRESH}.") from None
        if hashlib.sha256(payload).hexdigest() != sha256:
            raise CheckpointError(f"{file} is damaged: its SHA-256 is not the one saved with it; {_FRESH}.")
        return dict(load(payload))

    def _remove_all_but(self, kept: set[str]) -> None:
        """Removes tensor files of earlier checkpoints, and what a killed writer left half written."""
        if not self.path.is_dir():
            return
        for file in self.path.iterdir():
            if file.name not in kept and (file.suffix == ".safetensors" or file.name.startswith(".")):
                file.unlink(missing_ok=True)


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In what two nested JSON objects differ, in words; empty where in nothing.

    Args:
        there: The one that was saved.
        now: The one at hand.
    """
    before, after = dict(_flat(there)), dict(_flat(now))
    keys = [key for key in {**before, **after} if before.get(key, ...) != after.get(key, ...)]
    told = [f"{key} ({_shown(before, key)} there, {_shown(after, key)} now)" for key in keys[:_LISTED]]
    return ", ".join(told) + (f", and {len(keys) - _LISTED} more" if len(keys) > _LISTED else "")


def _flat(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(flat: Mapping[str, Any], key: str) -> str:
    if key not in flat:
        return "nothing"
    text = json.dumps(flat[key], ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:16]}…{text[-4:]}"
