"""`SentenceEncoder`: a sentence-transformers model as a `TextEncoder`.

The folder is checked and fingerprinted when the encoder is made; sentence-transformers itself (several
seconds to import) is loaded at the first text. It knows nothing of what the vectors are compared with, nor
where a model comes from: it is given a folder that is already on this machine.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from classifiers.errors import EncoderLoadError
from classifiers.fingerprint import fingerprint_folder
from classifiers.quiet import quiet_transformers

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["SentenceEncoder"]

_MODULES = "modules.json"
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


class SentenceEncoder:
    """Encodes texts with a sentence-transformers model; thread-safe.

    A text longer than the model's `max_seq_length` (256 tokens for all-MiniLM-L6-v2) is cut off there.

    Args:
        model: A folder in sentence-transformers' layout (`modules.json`, safetensors weights), or a model
            already loaded, which is then used as it is and must not be changed afterwards.
        batch_size: How many texts the model reads at once; they are batched by length.
        device: Where to run a folder's model, such as "cpu" or "cuda"; by default where sentence-transformers
            chooses.

    Raises:
        EncoderLoadError: The folder holds no encoder, or only one that loading would need pickle or code from
            the folder for.
        ValueError: `batch_size` is below 1.
    """

    def __init__(
        self,
        model: str | Path | SentenceTransformer,
        *,
        batch_size: int = 64,
        device: str | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is at least 1; given {batch_size}")
        self._batch_size = batch_size
        self._device = device
        self._lock = threading.Lock()
        self._model: SentenceTransformer | None = None
        self._folder: Path | None = None
        if isinstance(model, str | Path):
            self._folder = Path(model)
            self._fingerprint = _fingerprint(self._folder)
            self._dimension = _declared_dimension(self._folder)
        else:
            self._model = model
            with tempfile.TemporaryDirectory(prefix="memedit-encoder-") as saved, quiet_transformers():
                model.save(saved, create_model_card=False)
                self._fingerprint = _fingerprint(Path(saved))
            self._dimension = None

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the weights and everything else that changes the vectors.

        The place of the folder has no part in it, nor have library versions. A model given as an object is
        fingerprinted as the folder that sentence-transformers saves it to, which need not be that of the
        folder it was loaded from.
        """
        return self._fingerprint

    @property
    def dimension(self) -> int:
        """The number of components of a vector."""
        if self._dimension is None:
            self._dimension = int(self._encode(["dimension"]).shape[1])
        return self._dimension

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encodes texts, in the order given.

        Args:
            texts: Any number of texts, none included.

        Returns:
            `[texts, dimension]`, each row of unit length.

        Raises:
            TypeError: `texts` is one string, or holds something that is not a string.
        """
        if isinstance(texts, str):
            raise TypeError("encode takes a sequence of texts; given one string: put it in a list")
        listed = list(texts)
        for position, text in enumerate(listed):
            if not isinstance(text, str):
                raise TypeError(f"text {position} is not a string but {type(text).__name__}: {text!r:.80}")
        if not listed:
            return np.zeros((0, self.dimension), dtype=np.float32)
        return self._encode(listed)

    def _encode(self, texts: list[str]) -> NDArray[np.float32]:
        # the lock: a fast tokenizer's truncation settings belong to the whole tokenizer
        with self._lock:
            if self._model is None:
                self._model = self._load()
            vectors: NDArray[np.float32] = np.asarray(
                self._model.encode(texts, batch_size=self._batch_size, show_progress_bar=False, convert_to_numpy=True),
                dtype=np.float32,
            )
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        np.divide(vectors, np.maximum(lengths, np.finfo(np.float32).tiny), out=vectors)
        return vectors

    def _load(self) -> SentenceTransformer:
        with quiet_transformers():
            from sentence_transformers import SentenceTransformer

            model = SentenceTransformer(
                str(self._folder),
                device=self._device,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True},
            )
        return model.eval()


def _fingerprint(folder: Path) -> str:
    """Checks that a folder can be loaded safely and digests it."""
    subfolders = tuple(module["path"] for module in _modules(folder))
    for sub in ("", *subfolders):
        root = folder / sub
        pickled = [path.name for pattern in _PICKLED for path in root.glob(pattern)]
        if pickled and not any(root.glob("*.safetensors")):
            raise EncoderLoadError(
                f"{root} has its weights only as {pickled[0]}, which is pickled and could run code; "
                "save the model again as safetensors"
            )
    if not any(any((folder / sub).glob("*.safetensors")) for sub in ("", *subfolders)):
        raise EncoderLoadError(f"{folder} holds no weights: there is no .safetensors file in it")
    return fingerprint_folder(folder, subfolders=subfolders)


def _modules(folder: Path) -> list[dict[str, Any]]:
    """Reads `modules.json`, refusing modules that are not sentence-transformers' own."""
    path = folder / _MODULES
    if not path.is_file():
        raise EncoderLoadError(
            f"{folder} is not a sentence-transformers folder: there is no {_MODULES} in it. "
            "Give a folder that SentenceTransformer.save wrote."
        )
    modules = _read_json(path)
    if not isinstance(modules, list) or not all(
        isinstance(module, dict) and isinstance(module.get("type"), str) and isinstance(module.get("path"), str)
        for module in modules
    ):
        raise EncoderLoadError(f"{path} is not a list of modules, each with 'type' and 'path'")
    for module in modules:
        if not module["type"].startswith("sentence_transformers."):
            raise EncoderLoadError(
                f"{path} names the module {module['type']!r}, which is code outside sentence-transformers; "
                "it is not run"
            )
        if not (folder / module["path"]).resolve().is_relative_to(folder.resolve()):
            raise EncoderLoadError(f"{path} names a path outside its folder: {module['path']!r}")
    return modules


def _declared_dimension(folder: Path) -> int | None:
    """Reads the dimension off a Transformer with plain pooling; None where only the loaded model can tell."""
    modules = _modules(folder)
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        return None
    pooling = _read_json(folder / modules[1]["path"] / "config.json")
    mode = pooling.get("pooling_mode", "")
    modes = [key for key, on in pooling.items() if key.startswith("pooling_mode_") and on is True]
    single = len(modes) == 1 if not mode else isinstance(mode, str)
    dimension = pooling.get("embedding_dimension", pooling.get("word_embedding_dimension"))
    return dimension if single and isinstance(dimension, int) else None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise EncoderLoadError(f"{path} is missing") from None
    except ValueError as error:
        raise EncoderLoadError(f"{path} is not JSON: {error}") from error
