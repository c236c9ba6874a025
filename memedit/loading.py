"""From a name or a loaded model to an edited model.

Puts the parts together: model, tokenizer, encoder, scope classifier, memory, router, responder. Knows where models come
from; the parts themselves do not.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from classifiers import (
    ScopeClassifier,
    SentenceEncoder,
    SimilarityScope,
    TextEncoder,
    quiet_transformers,
    shipped_scope,
)
from classifiers.shipped import shipped_retriever
from memedit.errors import ConfigError, UnsupportedCallError
from memedit.model import EditedModel
from memedit.pulling import resolve
from memedit.responders import Responder
from memedit.routing import Router
from memory_store import EditMemory

if TYPE_CHECKING:
    import torch

__all__ = ["DEFAULT_ENCODER", "default_scope", "load", "load_model", "wrap"]

DEFAULT_ENCODER = "all-minilm-l6-v2"


def load(
    name_or_path: str | Path,
    *,
    memory: str | Path | EditMemory | None = None,
    encoder: str | Path | TextEncoder = DEFAULT_ENCODER,
    scope: ScopeClassifier | None = None,
    responder: Responder | None = None,
    namespace: str = "default",
    dtype: torch.dtype | str = "auto",
    device: torch.device | str | None = None,
) -> EditedModel:
    """Load a model by name and put an edit memory in front of it.

    Args:
        name_or_path: A folder, or a name that :func:`memedit.resolve` finds: a known model such as
            ``"smollm2-135m-instruct"``, or a Hugging Face hub id.
        memory: The memory's file, made where it is not there yet; an open memory; None for one that is gone with the
            process.
        encoder: Name, folder, or an encoder; ignored where an open memory brings its own.
        scope: Decides which edit governs a prompt; by default the trained classifier, or the similarity of texts
            where the encoder is not all-MiniLM-L6-v2.
        responder: Answers governed prompts; by default the model itself, with the edit in context.
        namespace: The memory's namespace that is searched and added to.
        dtype: The weights' type; ``"auto"`` for the one they were saved in.
        device: Where the model is put; None for the CPU.

    Raises:
        ModelNotFoundError: Nothing is known under that name.
    """
    model, tokenizer = load_model(name_or_path, dtype=dtype, device=device)
    return wrap(
        model,
        tokenizer,
        memory=memory,
        encoder=encoder,
        scope=scope,
        responder=responder,
        namespace=namespace,
    )


def load_model(
    name_or_path: str | Path, *, dtype: torch.dtype | str = "auto", device: torch.device | str | None = None
) -> tuple[Any, Any]:
    """Load a model and its tokenizer by name, without an edit memory.

    Args:
        name_or_path: As in :func:`load`.
        dtype: As in :func:`load`.
        device: As in :func:`load`.

    Returns:
        The model, in evaluation mode, and its tokenizer, which pads on the left.

    Raises:
        ModelNotFoundError: Nothing is known under that name.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = resolve(str(name_or_path))
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True).eval()
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if device is not None:
        model = model.to(device)
    return model, tokenizer


def wrap(
    model: Any,
    tokenizer: Any,
    *,
    memory: str | Path | EditMemory | None = None,
    encoder: str | Path | TextEncoder = DEFAULT_ENCODER,
    scope: ScopeClassifier | None = None,
    responder: Responder | None = None,
    namespace: str = "default",
) -> EditedModel:
    """Put an edit memory in front of a loaded model.

    Args:
        model: A decoder-only ``transformers`` model. It is neither copied nor changed.
        tokenizer: Its tokenizer.
        memory: As in :func:`load`.
        encoder: As in :func:`load`.
        scope: As in :func:`load`.
        responder: As in :func:`load`.
        namespace: As in :func:`load`.

    Raises:
        UnsupportedCallError: The model cannot be wrapped.
        ConfigError: The memory was opened without an encoder.
    """
    _check_model(model)
    chosen: TextEncoder | None
    if isinstance(memory, EditMemory):
        chosen = memory.encoder
        if chosen is None:
            raise ConfigError(
                "the memory was opened without an encoder, so nothing can be searched in it; open it with "
                "EditMemory(path, encoder=...), or pass its path"
            )
        store = memory
    else:
        chosen = SentenceEncoder(resolve(str(encoder))) if isinstance(encoder, (str, Path)) else encoder
        store = EditMemory(":memory:" if memory is None else memory, encoder=chosen)
    router = Router(
        store,
        chosen,
        scope if scope is not None else default_scope(chosen.fingerprint),
        namespaces=(namespace,),
    )
    return EditedModel(model, tokenizer, router, responder=responder)


def default_scope(retriever: str | None) -> ScopeClassifier:
    """The scope classifier where none is given: the trained one for the text encoder it goes with, else similarity.

    Args:
        retriever: Fingerprint of the memory's text encoder. What the trained classifier reads, and from which
            similarity on, was chosen for all-MiniLM-L6-v2.
    """
    if retriever == shipped_retriever():
        return shipped_scope(resolve(DEFAULT_ENCODER))
    return SimilarityScope()


def _check_model(model: Any) -> None:
    from transformers import GenerationMixin, PreTrainedModel

    name = type(model).__name__
    if type(model) is EditedModel:
        raise UnsupportedCallError("the model is already wrapped: pass model.unedited, or use it as it is")
    if not (isinstance(model, PreTrainedModel) and isinstance(model, GenerationMixin)):
        raise UnsupportedCallError(
            f"{name} is not a transformers model that generates; pass an AutoModelForCausalLM (of a PEFT model, "
            "model.get_base_model(), which holds the adapters too)"
        )
    if model.config.is_encoder_decoder:
        raise UnsupportedCallError(f"{name} is an encoder-decoder; memedit edits decoder-only models")
