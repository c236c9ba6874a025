"""How quick and how large the memory is, beside the encoder that feeds it.

Run with ``python -m benchmarks.memory --encoder FOLDER`` for a sentence-transformers model; without a folder a toy
encoder stands in, which is so quick that the ratios to its time say little. All ratios are of one run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.rows import Row, table
from memory_store import Edit, EditMemory, VectorEncoder

DIMENSION = 384


class ToyEncoder:
    """Pseudo-random unit vectors, one a text, fixed by the text."""

    fingerprint = "toy"
    dimension = DIMENSION

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Returns unit vectors, ``[texts, dimension]``."""
        vectors = np.empty((len(texts), DIMENSION), dtype=np.float32)
        for row, text in enumerate(texts):
            seed = int.from_bytes(text.encode()[-16:].rjust(16), "little")
            vectors[row] = np.random.default_rng(seed).standard_normal(DIMENSION, dtype=np.float32)
        norms: NDArray[np.float32] = np.linalg.norm(vectors, axis=1, keepdims=True)
        return (vectors / norms).astype(np.float32)


class TimedEncoder:
    """An encoder that counts the seconds that it takes.

    Args:
        encoder: Does the work.
    """

    def __init__(self, encoder: VectorEncoder) -> None:
        self._encoder = encoder
        self.seconds = 0.0

    @property
    def fingerprint(self) -> str:
        """That of the encoder."""
        return self._encoder.fingerprint

    @property
    def dimension(self) -> int:
        """That of the encoder."""
        return self._encoder.dimension

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encodes with the encoder and adds its time to ``seconds``."""
        start = time.perf_counter()
        vectors = self._encoder.encode(texts)
        self.seconds += time.perf_counter() - start
        return vectors


class FolderEncoder:
    """A sentence-transformers model in a folder.

    Args:
        folder: Of the model.
    """

    def __init__(self, folder: Path) -> None:
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(str(folder))
        self.fingerprint = folder.name
        self.dimension = int(self._model.encode(["x"]).shape[1])

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Returns unit vectors, ``[texts, dimension]``."""
        vectors: NDArray[np.float32] = self._model.encode(list(texts), normalize_embeddings=True, batch_size=64)
        return vectors


def edits(count: int) -> list[Edit]:
    """Returns edits with two texts each, all different."""
    things = ("headquarters", "chief engineer", "main export", "founding year", "national bird")
    return [
        Edit(
            prompt=f"The {things[n % 5]} of Company {n:05d} is",
            target=f"the one with number {n * 7919 % 99991}",
            subject=f"Company {n:05d}",
        )
        for n in range(count)
    ]


def run(folder: Path | None = None, *, count: int = 10_000) -> list[Row]:
    """Measures a memory of ``count`` edits with the encoder in ``folder``, or with the toy.

    Returns:
        The rows of the table.
    """
    encoder = TimedEncoder(ToyEncoder() if folder is None else FolderEncoder(folder))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "facts.db"
        rows = _adding(path, encoder, count)
        rows += _opening(path, encoder)
        rows += _searching(path, encoder)
        rows.append(_size(path, encoder))
    return rows


def _adding(path: Path, encoder: TimedEncoder, count: int) -> list[Row]:
    batch = edits(count)
    with EditMemory(path, encoder=encoder) as memory:
        memory.search_text(["warm up"])
        encoder.seconds = 0.0
        whole = _seconds(lambda: memory.add_many(batch))
        ratio = whole / encoder.seconds
        again = _seconds(lambda: memory.add_many(batch))
        beyond = []
        for n in range(100):
            encoder.seconds = 0.0
            taken = _seconds(partial(memory.add, f"A single prompt with the number {n} is", f"answer {n}"))
            beyond.append(1000 * (taken - encoder.seconds))
    name = f"add_many of {count:,} edits"
    return [
        Row(f"{name}, encoder's own time", encoder_seconds := whole / ratio, "s"),
        Row(f"{name}, beyond the encoder", whole - encoder_seconds, "s"),
        Row(f"{name}, ratio to the encoder's time", ratio, "x", 1.3),
        Row(f"{name}, once more (all there)", again, "s"),
        Row("add of one edit, beyond the encoder, median", statistics.median(beyond), "ms", 25.0),
    ]


def _opening(path: Path, encoder: VectorEncoder) -> list[Row]:
    query = encoder.encode(["The main export of Company 00042 is"])

    def ready() -> None:
        with EditMemory(path, encoder=encoder) as memory:
            memory.search(query)

    with_file = _seconds(ready)
    for file in path.with_name(path.name + ".index").glob("*.index"):
        file.unlink()
    return [
        Row("open, ready to search", with_file, "s", 1.0),
        Row("open without index file, ready to search", _seconds(ready), "s"),
    ]


def _searching(path: Path, encoder: VectorEncoder) -> list[Row]:
    queries = encoder.encode([f"What is the main export of Company {n * 37 % 10_000:05d}?" for n in range(400)])
    rows = []
    with EditMemory(path, encoder=encoder) as memory:
        everything = memory.search(queries, 1)
        highest = sorted(hits[0].score for hits in everything)
        settings: list[tuple[str, dict[str, Any], float | None]] = [
            ("k=10, hits included", {"k": 10}, 0.7),
            ("k=5, hits included", {"k": 5}, None),
            ("k=10, min_score above all but a tenth", {"k": 10, "min_score": highest[-40]}, None),
        ]
        for name, arguments, target in settings:
            times = [
                1000 * _seconds(partial(memory.search, queries[one : one + 1], **arguments))
                for one in range(len(queries))
            ]
            rows.append(Row(f"search of one query, {name}, median", statistics.median(times), "ms", target))
        each = _seconds(lambda: memory.search(queries, 10)) / len(queries)
        rows.append(Row("search of 400 queries at once, each", 1000 * each, "ms"))
        empty = [1000 * _seconds(memory.is_empty) for _ in range(400)]
        rows.append(Row("is_empty, median", statistics.median(empty), "ms"))
    return rows


def _size(path: Path, encoder: VectorEncoder) -> Row:
    """Measures in a fresh process what an open memory adds to it, a stored vector."""
    query = encoder.encode(["The main export of Company 00042 is"])
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return Row("process memory, each stored vector", pool.apply(_bytes_a_vector, (path, query)), "bytes", 2048.0)


def _bytes_a_vector(path: Path, query: NDArray[np.float32]) -> float:
    with EditMemory(encoder=ToyEncoder()) as warm:  # imports and first-use buffers are not the memory's size
        warm.add("prompt", "target")
        warm.search_text(["prompt"])
    before = _resident_bytes()
    with EditMemory(path) as memory:
        memory.search(query)
        return (_resident_bytes() - before) / memory.stats().vectors


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", type=Path, help="folder of a sentence-transformers model")
    parser.add_argument("--edits", type=int, default=10_000)
    arguments = parser.parse_args()
    Console().print(table(run(arguments.encoder, count=arguments.edits), title="memory_store"))


if __name__ == "__main__":
    main()
