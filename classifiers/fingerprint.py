"""The fingerprint of an encoder's folder: what its vectors depend on, and nothing else.

The digest covers the tensors of every safetensors file (by sorted name: dtype, shape, bytes) and the
configuration and tokenizer files, as canonical JSON without the entries that record only where or with what
the folder was written. It reads the safetensors header itself, so neither torch nor any other library's
version has a part in it, and it does not depend on the folder's place, on how weights are split over files,
or on how JSON is laid out.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classifiers.errors import EncoderLoadError

__all__ = ["fingerprint_folder"]

_VERSION = b"memedit-encoder-fingerprint-1\n"
_TEXT_FILES = frozenset({"vocab.txt", "merges.txt", "chat_template.jinja"})
_IRRELEVANT_FILES = frozenset({"data_config.json", "memedit_source.json", "README.md"})
_IRRELEVANT_KEYS = frozenset(
    {
        "__version__",
        "_name_or_path",
        "architectures",
        "is_local",
        "local_files_only",
        "name_or_path",
        "padding",
        "similarity_fn_name",
        "special_tokens_map_file",
        "tokenizer_file",
        "transformers_version",
        "truncation",
    }
)
"""Top-level JSON entries on where a file was written, or on what is done with finished vectors; and the padding and
truncation of `tokenizer.json`, which are of its last use: sentence-transformers sets both at each call."""
_HEADER_LIMIT = 100 * 2**20


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    end: int


def fingerprint_folder(folder: Path, *, subfolders: tuple[str, ...] = ()) -> str:
    """Digests what the vectors of an encoder depend on.

    Args:
        folder: The encoder's folder.
        subfolders: The folders inside it that belong to the encoder, such as "1_Pooling"; others are left
            out.

    Returns:
        A SHA-256 in hexadecimal.

    Raises:
        EncoderLoadError: A file cannot be read as what its name says.
    """
    digest = hashlib.sha256(_VERSION)
    for sub in sorted({"", *subfolders}):
        root = folder / sub
        digest.update(f"folder {sub}\n".encode())
        for path in sorted(root.iterdir()) if root.is_dir() else []:
            if path.name in _IRRELEVANT_FILES or path.name.endswith(".safetensors.index.json"):
                continue
            if path.suffix == ".json":
                digest.update(f"json {path.name} {_canonical(path)}\n".encode())
            elif path.name in _TEXT_FILES or path.suffix == ".model":
                digest.update(f"file {path.name} {_file_digest(path)}\n".encode())
        _digest_tensors(digest, root)
    return digest.hexdigest()


def _canonical(path: Path) -> str:
    try:
        content: Any = json.loads(path.read_bytes())
    except ValueError as error:
        raise EncoderLoadError(f"{path} is not JSON: {error}") from error
    if isinstance(content, dict):
        content = {key: value for key, value in content.items() if key not in _IRRELEVANT_KEYS}
    return json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_tensors(digest: hashlib._Hash, root: Path) -> None:
    tensors = sorted(
        (tensor for path in root.glob("*.safetensors") for tensor in _tensors(path)),
        key=lambda tensor: tensor.name,
    )
    maps: dict[Path, mmap.mmap] = {}
    try:
        for tensor in tensors:
            digest.update(f"tensor {tensor.name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            if tensor.file not in maps:
                with tensor.file.open("rb") as file:
                    maps[tensor.file] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            with memoryview(maps[tensor.file]) as whole, whole[tensor.start : tensor.end] as content:
                digest.update(content)
    finally:
        for opened in maps.values():
            opened.close()


def _tensors(path: Path) -> Iterator[_Tensor]:
    """Reads a safetensors header: its length (8 bytes, little-endian), then JSON of name to entry."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else _HEADER_LIMIT
        if length >= min(size, _HEADER_LIMIT):
            raise EncoderLoadError(f"{path} is not a safetensors file, or is cut short")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise EncoderLoadError(f"{path} is not a safetensors file: {error}") from error
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            first, last = entry["data_offsets"]
            tensor = _Tensor(name, entry["dtype"], tuple(entry["shape"]), path, 8 + length + first, 8 + length + last)
        except (KeyError, TypeError, ValueError) as error:
            raise EncoderLoadError(f"{path}: the entry of tensor {name!r} is damaged: {error}") from error
        if not 8 + length <= tensor.start <= tensor.end <= size:
            raise EncoderLoadError(f"{path} is cut short: tensor {name!r} ends after the file does")
        yield tensor
