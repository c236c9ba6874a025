"""The encoder that a memory is handed: what is asked of it, and the check of what it returns.

The memory takes vectors; how a text becomes one is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from memory_store import ledger, tables
from memory_store.errors import EncoderMismatchError, InvalidVectorError

UNIT_TOLERANCE = 1e-3
"""How far the length of a vector may be from 1."""


class VectorEncoder(Protocol):
    """Turns texts into unit vectors."""

    @property
    def fingerprint(self) -> str:
        """Names the vectors: equal fingerprints mean equal vectors for equal texts."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Returns unit vectors, ``[texts, dimension]``."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """What a memory knows of the encoder whose vectors it holds.

    Attributes:
        fingerprint: The encoder's.
        dimension: Length of a vector.
    """

    fingerprint: str
    dimension: int

    def check(self, encoder: VectorEncoder, name: str) -> None:
        """Checks that an encoder is the one whose vectors the memory ``name`` holds.

        Raises:
            EncoderMismatchError: It is another.
        """
        if (encoder.fingerprint, encoder.dimension) != (self.fingerprint, self.dimension):
            raise EncoderMismatchError(
                f"{name} holds vectors of the encoder {self.fingerprint} (dimension {self.dimension}); it was opened "
                f"with {encoder.fingerprint} (dimension {encoder.dimension}). Open it with the former, or encode all "
                "edits again with the latter: `memedit reindex`, or EditMemory(path, encoder=..., reencode=True)."
            )


def stored_encoding(connection: Connection) -> Encoding | None:
    """Returns whose vectors the memory holds, or ``None`` before the first vector."""
    fingerprint = ledger.get_meta(connection, tables.META_FINGERPRINT)
    dimension = ledger.get_meta(connection, tables.META_DIMENSION)
    return None if fingerprint is None or dimension is None else Encoding(fingerprint, int(dimension))


def store_encoding(connection: Connection, encoder: VectorEncoder) -> None:
    """Notes whose vectors the memory holds from now on."""
    ledger.set_meta(connection, tables.META_FINGERPRINT, encoder.fingerprint)
    ledger.set_meta(connection, tables.META_DIMENSION, str(encoder.dimension))


def encode(encoder: VectorEncoder, texts: Sequence[str]) -> Mapping[str, NDArray[np.float32]]:
    """Encodes texts, each once, and returns the vector of each.

    Raises:
        InvalidVectorError: The encoder returned something else than one unit vector a text.
    """
    unique = list(dict.fromkeys(texts))
    if not unique:
        return {}
    vectors = checked_vectors(encoder.encode(unique), encoder.dimension, f"the encoder {encoder.fingerprint}")
    if len(vectors) != len(unique):
        raise InvalidVectorError(f"The encoder returned {len(vectors)} vectors for {len(unique)} texts.")
    return dict(zip(unique, vectors, strict=True))


def checked_vectors(vectors: NDArray[np.float32], dimension: int, origin: str) -> NDArray[np.float32]:
    """Returns vectors ``[vectors, dimension]`` as float32.

    Raises:
        InvalidVectorError: The shape is another, a value is not finite, or a length is not 1 within
            ``UNIT_TOLERANCE``; the message names ``origin``.
    """
    checked = np.asarray(vectors, dtype=np.float32)
    if checked.ndim != 2 or checked.shape[1] != dimension:
        raise InvalidVectorError(
            f"Vectors from {origin} have the shape {list(checked.shape)}; expected [vectors, {dimension}]."
        )
    squared = np.einsum("ij,ij->i", checked, checked)
    wrong = ~(np.abs(np.sqrt(squared) - 1.0) <= UNIT_TOLERANCE)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InvalidVectorError(
            f"Vector {row} from {origin} has the length {float(np.sqrt(squared[row])):.4g}; every vector must be "
            "finite and of unit length. Divide it by its norm."
        )
    return checked
