"""The model that is edited, with what every method needs beside it.

Knows models, tokenizers and encoders; nothing of edits or methods.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from classifiers import SentenceEncoder, TextEncoder, quiet_transformers
from memedit.fingerprints import model_fingerprint
from memedit.known_models import DEFAULT_ENCODER
from memedit.loading import load_model
from memedit.pulling import resolve
from memedit.rows import PromptReader

if TYPE_CHECKING:
    import torch

__all__ = ["RememberingEncoder", "Subject"]


class RememberingEncoder:
    """A text encoder that encodes no text twice: an evaluation asks the same of many methods.

    Attributes:
        spared_seconds: What encoding again would have cost, in all; whoever tells a cost adds what was spared to it.

    Args:
        encoder: What encodes.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self.spared_seconds = 0.0
        self._encoder = encoder
        self._known: dict[str, tuple[NDArray[np.float32], float]] = {}

    @property
    def fingerprint(self) -> str:
        """That of the encoder behind it."""
        return self._encoder.fingerprint

    @property
    def dimension(self) -> int:
        """That of the encoder behind it."""
        return self._encoder.dimension

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of texts, ``[texts, dimension]``."""
        distinct = list(dict.fromkeys(texts))
        self.spared_seconds += sum(self._known[text][1] for text in distinct if text in self._known)
        new = [text for text in distinct if text not in self._known]
        if new:
            started = time.perf_counter()
            vectors = self._encoder.encode(new)
            seconds = (time.perf_counter() - started) / len(new)
            self._known.update((text, (vector, seconds)) for text, vector in zip(new, vectors, strict=True))
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        return np.stack([self._known[text][0] for text in texts])


class Subject:
    """A base model under evaluation.

    Attributes:
        name: What it is called in results.
        model: A decoder-only ``transformers`` model, in evaluation mode.
        tokenizer: Its tokenizer.
        encoder: The encoder of the methods that retrieve; it remembers what it encoded.
        reader: Reads token ids as text, turns and question.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        encoder: What turns texts into vectors.
        name: What it is called in results.
    """

    def __init__(self, model: Any, tokenizer: Any, encoder: TextEncoder, *, name: str) -> None:
        self.name = name
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.encoder = RememberingEncoder(encoder)
        self.reader = PromptReader(tokenizer)
        self._fingerprint: str | None = None

    @classmethod
    def load(
        cls,
        name_or_path: str | Path,
        *,
        encoder: str | Path = DEFAULT_ENCODER,
        dtype: torch.dtype | str = "auto",
        device: torch.device | str | None = None,
    ) -> Subject:
        """Load a model by name, as `memedit.load` finds it.

        Args:
            name_or_path: A known model, a folder, or a hub id.
            encoder: The same for the encoder.
            dtype: The weights' type.
            device: Where the model is put; None for the CPU.

        Raises:
            ModelNotFoundError: Nothing is known under one of the names.
        """
        with quiet_transformers():
            model, tokenizer = load_model(name_or_path, dtype=dtype, device=device)
        return cls(model, tokenizer, SentenceEncoder(resolve(str(encoder))), name=Path(str(name_or_path)).name)

    @property
    def chats(self) -> bool:
        """Whether prompts go through a chat template."""
        return bool(getattr(self.tokenizer, "chat_template", None))

    def chat_ids(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        """A conversation as the model is asked it: through its chat template, up to where the answer begins.

        Args:
            messages: What was said, each with ``role`` and ``content``. The model must have a template (`chats`).
        """
        encoded = self.tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=True)
        return tuple(encoded["input_ids"])

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the configuration and a sample of every parameter's values, read once, while unedited.

        Where the model was loaded from, and with which version of ``transformers``, leaves it as it is.
        """
        if self._fingerprint is None:
            self._fingerprint = model_fingerprint(self.model)
        return self._fingerprint
