"""Second moments of keys, C = E[k k^T]: what a layer's MLP output projection is used to reading.

A key is what goes into the projection at one token (Meng et al. 2022, section 3.1; the same moments serve MEMIT's
eq. 14 and AlphaEdit's null space). They are taken over many tokens of text, added up in 64-bit precision, and kept in
memedit's cache, ``statistics/<fingerprint of the model>/``, one file a layer, safetensors in 32-bit precision, named by
the layer and by a hash of the text and the number of tokens. What is under way is saved every few batches, so that an
interrupted run goes on where it was.

Where no text is given, the model makes one up: rows that begin with a token drawn at random and go on with tokens drawn
from the model's own distribution. That needs no data and is the same text each time.

This file knows nothing of edits.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from filelock import FileLock

from classifiers.saved_folder import write_atomically
from memedit.architectures import architecture_of
from memedit.editors.activations import activations_of_all
from memedit.editors.sampling import sampled
from memedit.editors.subject import Subject
from memedit.errors import ConfigError, DataFileError
from memedit.passes import max_positions
from memedit.pulling import cache_folder

if TYPE_CHECKING:
    import torch

__all__ = ["Corpus", "FileCorpus", "MadeUpCorpus", "StatisticsProgress", "corpus_of", "key_moments"]

StatisticsProgress = Callable[[int, int], None]
"""Told how many tokens of how many are counted."""

_ROW_TOKENS = 128
_ROWS = 32
"""Rows of one batch."""

_SAVED_EVERY = 8
"""Batches between two saves of what is under way."""

_FORMAT = "1"


class Corpus(Protocol):
    """Text to take statistics over, in batches of token ids that are the same each time."""

    @property
    def name(self) -> str:
        """What it is, for people."""

    @property
    def key(self) -> str:
        """Tells texts apart: the same key, the same tokens."""

    def batch(self, number: int) -> list[tuple[int, ...]]:
        """The rows of a batch, from 0; fewer than usual, or none, where the text ends."""


class MadeUpCorpus:
    """Text that the model makes up.

    Args:
        subject: The model, unedited.
        seed: Of the random numbers.
    """

    def __init__(self, subject: Subject, *, seed: int = 0) -> None:
        self._subject = subject
        self._seed = seed

    @property
    def name(self) -> str:
        """What it is, for people."""
        return "text made up by the model"

    @property
    def key(self) -> str:
        """The seed and the shape of the rows; the model is told apart by its fingerprint."""
        return f"made-up-{self._seed}-{_ROWS}x{_ROW_TOKENS}"

    def batch(self, number: int) -> list[tuple[int, ...]]:
        """Rows that each begin with a token drawn at random."""
        import torch

        tokenizer = self._subject.tokenizer
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + number)
        special = sorted({*tokenizer.all_special_ids} & set(range(len(tokenizer))))
        usual = torch.ones(len(tokenizer)).index_fill(0, torch.tensor(special, dtype=torch.long), 0.0)
        first = torch.multinomial(usual, _ROWS, replacement=True, generator=generator).tolist()
        begins = tokenizer("x")["input_ids"][:1]
        begin = begins if begins == [tokenizer.bos_token_id] else []
        rows = [(*begin, token) for token in first]
        length = min(_ROW_TOKENS, max_positions(self._subject.model) or _ROW_TOKENS)
        said = sampled(self._subject.model, rows, tokens=length - len(rows[0]), generator=generator, forbidden=special)
        return [(*row, *more) for row, more in zip(rows, said, strict=True)]


class FileCorpus:
    """The text of a file: JSON lines with a field ``text``, or else plain text.

    Args:
        subject: The model, whose tokenizer cuts the text.
        path: The file.

    Raises:
        DataFileError: The file cannot be read, or has no text.
    """

    def __init__(self, subject: Subject, path: str | Path) -> None:
        self._subject = subject
        self._path = Path(path)
        try:
            content = self._path.read_bytes()
            self._texts = _texts(content.decode("utf-8"), self._path)
        except (OSError, UnicodeDecodeError) as error:
            raise DataFileError(
                f"{self._path}: cannot be read as text ({error}). Give a text file, or JSON lines with a field 'text'."
            ) from error
        self._digest = hashlib.sha256(content).hexdigest()[:16]
        self._rows: list[tuple[int, ...]] | None = None

    @property
    def name(self) -> str:
        """What it is, for people."""
        return self._path.name

    @property
    def key(self) -> str:
        """A hash of the file."""
        return f"{self._digest}-{_ROWS}x{_ROW_TOKENS}"

    def batch(self, number: int) -> list[tuple[int, ...]]:
        """The next rows, each of consecutive tokens of one text."""
        if self._rows is None:
            length = min(_ROW_TOKENS, max_positions(self._subject.model) or _ROW_TOKENS)
            self._rows = [
                tuple(ids[begin : begin + length])
                for text in self._texts
                for ids in (self._subject.tokenizer(text, truncation=False, verbose=False)["input_ids"],)
                for begin in range(0, len(ids), length)
            ]
        return self._rows[number * _ROWS : (number + 1) * _ROWS]


def corpus_of(subject: Subject, name: str) -> Corpus | None:
    """The text that a configuration names.

    Args:
        subject: The model.
        name: ``"made-up"`` for text that the model makes up, ``"identity"`` for none, else a file.

    Returns:
        The text, or None for ``"identity"``.

    Raises:
        DataFileError: The file cannot be read.
    """
    if name == "identity":
        return None
    return MadeUpCorpus(subject) if name == "made-up" else FileCorpus(subject, name)


def _texts(content: str, path: Path) -> list[str]:
    lines = content.splitlines()
    texts = [content]
    if path.suffix == ".jsonl":
        try:
            texts = [str(json.loads(line)["text"]) for line in lines if line.strip()]
        except (ValueError, TypeError, KeyError) as error:
            raise DataFileError(f"{path}: a line is no JSON object with a field 'text' ({error}).") from error
    if not any(text.strip() for text in texts):
        raise DataFileError(f"{path}: has no text.")
    return texts


@dataclass(slots=True)
class _Sums:
    """What has been added up so far."""

    moments: dict[int, torch.Tensor]
    tokens: int
    batches: int


def key_moments(
    subject: Subject,
    layers: Sequence[int],
    corpus: Corpus,
    *,
    tokens: int,
    progress: StatisticsProgress | None = None,
) -> dict[int, torch.Tensor]:
    """Second moments of the keys of some layers, from the cache or over a text.

    Args:
        subject: The model, unedited.
        layers: Which layers, from 0; what is not yet known is counted in one run over the text.
        corpus: The text.
        tokens: How many tokens are counted; all, where the text has fewer.
        progress: Told how it goes on.

    Returns:
        For each layer C, 64-bit, ``[k, k]``, on the CPU.

    Raises:
        ConfigError: ``tokens`` is not positive.
        DataFileError: The text has no token.
    """
    if tokens < 1:
        raise ConfigError(f"statistics need at least 1 token, not {tokens}.")
    folder = cache_folder() / "statistics" / subject.fingerprint
    key = hashlib.sha256(f"{_FORMAT} {corpus.key} {tokens}".encode()).hexdigest()[:16]
    files = {layer: folder / f"layer-{layer}-{key}.safetensors" for layer in layers}
    folder.mkdir(parents=True, exist_ok=True)
    found = {layer: moment for layer, file in files.items() if (moment := _read(file)) is not None}
    missing = sorted(set(layers) - set(found))
    if missing:
        part = folder / f"part-{'-'.join(map(str, missing))}-{key}.safetensors"
        with FileLock(f"{part}.lock"):
            again = {layer: moment for layer in missing if (moment := _read(files[layer])) is not None}
            if len(again) < len(missing):  # else another process was quicker
                again = _counted(subject, missing, corpus, tokens, part, progress)
                about = {"corpus": corpus.name, "key": corpus.key, "tokens": str(tokens)}
                for layer, moment in again.items():
                    _save(files[layer], {"moment": moment}, about)
            part.unlink(missing_ok=True)
        found.update(again)
    return {layer: found[layer].double() for layer in layers}


def _counted(
    subject: Subject,
    layers: Sequence[int],
    corpus: Corpus,
    tokens: int,
    part: Path,
    progress: StatisticsProgress | None,
) -> dict[int, torch.Tensor]:
    """The moments of some layers, going on from what an earlier run has saved."""
    import torch

    architecture = architecture_of(subject.model)
    sides = {layer: (architecture.module_name(layer, "mlp_out"), False) for layer in layers}
    sums = _resumed(part, layers)
    for rows in _remaining(corpus, sums):
        left = tokens - sums.tokens
        keys = activations_of_all(subject.model, rows, list(sides.values()))
        for layer, side in sides.items():
            some = keys[side][:left].to("cpu", torch.float32)
            product = (some.mT @ some).double()
            sums.moments[layer] = sums.moments[layer] + product if layer in sums.moments else product
        sums.tokens += min(left, sum(map(len, rows)))
        sums.batches += 1
        if progress is not None:
            progress(sums.tokens, tokens)
        if sums.tokens >= tokens:
            break
        if sums.batches % _SAVED_EVERY == 0:
            counts = {"tokens": str(sums.tokens), "batches": str(sums.batches)}
            _save(part, {str(layer): moment for layer, moment in sums.moments.items()}, counts)
    if not sums.tokens:
        raise DataFileError(f"{corpus.name} has no token to take statistics over.")
    return {layer: (moment / sums.tokens).float() for layer, moment in sums.moments.items()}


def _remaining(corpus: Corpus, sums: _Sums) -> Iterator[list[tuple[int, ...]]]:
    while rows := corpus.batch(sums.batches):
        yield rows


def _resumed(part: Path, layers: Sequence[int]) -> _Sums:
    loaded = _load(part)
    if loaded is None:
        return _Sums({}, 0, 0)
    tensors, about = loaded
    return _Sums({layer: tensors[str(layer)] for layer in layers}, int(about["tokens"]), int(about["batches"]))


def _read(file: Path) -> torch.Tensor | None:
    loaded = _load(file)
    return None if loaded is None else loaded[0]["moment"]


def _load(file: Path) -> tuple[dict[str, torch.Tensor], Mapping[str, str]] | None:
    """What a file of the cache holds; a file that is damaged is made anew."""
    from safetensors import SafetensorError, safe_open

    with contextlib.suppress(FileNotFoundError, SafetensorError), safe_open(file, framework="pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()  # noqa: SIM118
    return None


def _save(file: Path, tensors: Mapping[str, torch.Tensor], about: Mapping[str, str]) -> None:
    """Writes a file of the cache so that it is there whole or not at all."""
    from safetensors.torch import save

    write_atomically(file, save(dict(tensors), dict(about)))
