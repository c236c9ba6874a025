"""From a name or a loaded model to an edited model.

Puts the parts together: model, tokenizer, encoder, scope classifier, memory, router, responder. Knows where models come
from; the parts themselves do not.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from classifiers import ScopeClassifier, SentenceEncoder, SimilarityScope, TextEncoder, shipped_scope
from classifiers.shipped import shipped_retriever
from memedit.counterfactual import CounterfactualModel
from memedit.errors import ConfigError, UnsupportedCallError
from memedit.known_models import DEFAULT_ENCODER
from memedit.model import EditedModel
from memedit.modes import Mode
from memedit.pretrained import load_model
from memedit.pulling import resolve
from memedit.responders import Responder
from memedit.routing import Router
from memory_store import EditMemory

if TYPE_CHECKING:
    import torch

__all__ = ["default_scope", "load", "load_model", "wrap"]


def load(
    name_or_path: str | Path,
    *,
    memory: str | Path | EditMemory | None = None,
    encoder: str | Path | TextEncoder = DEFAULT_ENCODER,
    scope: ScopeClassifier | None = None,
    responder: Responder | None = None,
    mode: Mode = "ike",
    counterfactual: CounterfactualModel | str | Path | None = None,
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
        responder: Answers governed prompts; by default what ``mode`` says.
        mode: Who answers governed prompts: ``"ike"``, the model itself with the edit in context; ``"serac"``, the
            counterfactual model that comes with memedit; ``"auto"``, whichever does better in a small self-test, once
            for each model. ``model.mode`` and ``model.mode_reason`` say which and why.
        counterfactual: The counterfactual model, or the folder of its adapter; None for the one that comes with
            memedit.
        namespace: The memory's namespace that is searched and added to.
        dtype: The weights' type; ``"auto"`` for the one they were saved in.
        device: Where the model is put; None for the CPU.

    Raises:
        ModelNotFoundError: Nothing is known under that name; or the mode is ``"serac"``, and there is no
            counterfactual model.
    """
    model, tokenizer = load_model(name_or_path, dtype=dtype, device=device)
    return wrap(
        model,
        tokenizer,
        memory=memory,
        encoder=encoder,
        scope=scope,
        responder=responder,
        mode=mode,
        counterfactual=counterfactual,
        namespace=namespace,
    )


def wrap(
    model: Any,
    tokenizer: Any,
    *,
    memory: str | Path | EditMemory | None = None,
    encoder: str | Path | TextEncoder = DEFAULT_ENCODER,
    scope: ScopeClassifier | None = None,
    responder: Responder | None = None,
    mode: Mode = "ike",
    counterfactual: CounterfactualModel | str | Path | None = None,
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
        mode: As in :func:`load`.
        counterfactual: As in :func:`load`.
        namespace: As in :func:`load`.

    Raises:
        UnsupportedCallError: The model cannot be wrapped.
        ConfigError: The memory was opened without an encoder.
        ModelNotFoundError: The mode is ``"serac"``, and there is no counterfactual model.
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
    return EditedModel(model, tokenizer, router, responder=responder, mode=mode, counterfactual=counterfactual)


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
