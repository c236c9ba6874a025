"""Where the parts of a decoder-only model are: module paths of each architecture family.

A model's family is its ``config.model_type``. Methods that read or change a model inside (fine-tuning one layer,
rank-one editing, causal tracing) find the layers, the two sides of a layer and the projections through this table, so
that none of them knows a model by name. A path is dotted, from the causal language model down::

    architecture = architecture_of(model)
    architecture.parameter_name(3, "mlp_out")     # "model.layers.3.mlp.down_proj.weight"

The projections to queries and values are one or two paths, since some families have them in one matrix with that to
keys. Of the norms inside a layer, on which no two families agree, the table says one thing: whether there is one behind
the MLP (Gemma 2 and 3, OLMo 2), so that what `mlp_out` writes is not yet what is added to the residual stream.

This file knows nothing of edits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

from memedit.errors import UnsupportedCallError

__all__ = ["ARCHITECTURES", "Architecture", "LayerPart", "Projection", "architecture_of"]

Projection = Literal["attention_out", "mlp_gate", "mlp_up", "mlp_out"]
"""The parts of a layer that are one linear map; every family has them, but for the gate."""

LayerPart = Literal["attention", "mlp", Projection]
"""The parts of a layer: its two sides, and their projections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Module paths of one family. Those of a layer's parts begin inside the layer.

    Attributes:
        model_type: The family, as ``config.model_type`` has it.
        title: The family's name for a person.
        embeddings: Token embeddings.
        layers: The list of layers.
        final_norm: The norm behind the last layer.
        unembedding: The projection to the vocabulary; in some models its weight is that of the embeddings.
        attention: The attention module.
        attention_out: Its output projection.
        queries_and_values: Its projections to queries and to values, or the one that holds both.
        mlp: The MLP module.
        mlp_up: The MLP's first projection, without the gate's where there is one.
        mlp_gate: The projection whose activation gates the first one; None in an MLP without gate.
        mlp_out: The MLP's last projection, in the terms of Meng et al. 2022 the one that maps keys to values.
        transposed: Whether a projection inside a layer keeps its weight as ``[input, output]`` (GPT-2's ``Conv1D``)
            instead of ``[output, input]``.
        norm_behind_mlp: Whether there is a norm behind the MLP, so that what ``mlp_out`` writes is not yet what is
            added to the residual stream.
    """

    model_type: str
    title: str
    embeddings: str = "model.embed_tokens"
    layers: str = "model.layers"
    final_norm: str = "model.norm"
    unembedding: str = "lm_head"
    attention: str = "self_attn"
    attention_out: str = "self_attn.o_proj"
    queries_and_values: tuple[str, ...] = ("self_attn.q_proj", "self_attn.v_proj")
    mlp: str = "mlp"
    mlp_up: str = "mlp.up_proj"
    mlp_gate: str | None = "mlp.gate_proj"
    mlp_out: str = "mlp.down_proj"
    transposed: bool = False
    norm_behind_mlp: bool = False

    def layer_count(self, model: Any) -> int:
        """How many layers a model of the family has.

        Args:
            model: The model.
        """
        return len(model.get_submodule(self.layers))

    def module_name(self, layer: int, part: LayerPart | None = None) -> str:
        """The path of a layer, or of a part of it.

        Args:
            layer: Which layer, from 0.
            part: Which part; None for the layer itself.

        Raises:
            UnsupportedCallError: The layer is negative, or the family has no such part.
        """
        if layer < 0:
            raise UnsupportedCallError(f"layers are counted from 0; there is no layer {layer}")
        if part is None:
            return f"{self.layers}.{layer}"
        inside = getattr(self, part) if part in get_args(LayerPart) else None
        if inside is None:
            known = ", ".join(one for one in get_args(LayerPart) if getattr(self, one) is not None)
            raise UnsupportedCallError(f"a layer of {self.title} has no part '{part}'; it has {known}")
        return f"{self.layers}.{layer}.{inside}"

    def parameter_name(self, layer: int, part: Projection) -> str:
        """The name of a projection's weight, as ``named_parameters`` has it.

        Args:
            layer: Which layer, from 0.
            part: Which projection.

        Raises:
            UnsupportedCallError: The layer is negative, or the family has no such projection.
        """
        if part not in get_args(Projection):
            raise UnsupportedCallError(
                f"'{part}' is no projection; those of a layer are {', '.join(get_args(Projection))}"
            )
        return f"{self.module_name(layer, part)}.weight"


_FAMILIES = (
    Architecture(
        model_type="gpt2",
        title="GPT-2",
        embeddings="transformer.wte",
        layers="transformer.h",
        final_norm="transformer.ln_f",
        attention="attn",
        attention_out="attn.c_proj",
        queries_and_values=("attn.c_attn",),
        mlp_up="mlp.c_fc",
        mlp_gate=None,
        mlp_out="mlp.c_proj",
        transposed=True,
    ),
    Architecture(
        model_type="gptj",
        title="GPT-J",
        embeddings="transformer.wte",
        layers="transformer.h",
        final_norm="transformer.ln_f",
        attention="attn",
        attention_out="attn.out_proj",
        queries_and_values=("attn.q_proj", "attn.v_proj"),
        mlp_up="mlp.fc_in",
        mlp_gate=None,
        mlp_out="mlp.fc_out",
    ),
    Architecture(
        model_type="gpt_neox",
        title="GPT-NeoX",
        embeddings="gpt_neox.embed_in",
        layers="gpt_neox.layers",
        final_norm="gpt_neox.final_layer_norm",
        attention="attention",
        attention_out="attention.dense",
        queries_and_values=("attention.query_key_value",),
        mlp_up="mlp.dense_h_to_4h",
        mlp_gate=None,
        mlp_out="mlp.dense_4h_to_h",
    ),
    Architecture(
        model_type="phi",
        title="Phi",
        final_norm="model.final_layernorm",
        attention_out="self_attn.dense",
        mlp_up="mlp.fc1",
        mlp_gate=None,
        mlp_out="mlp.fc2",
    ),
    Architecture(model_type="llama", title="Llama"),
    Architecture(model_type="mistral", title="Mistral"),
    Architecture(model_type="qwen2", title="Qwen2"),
    Architecture(model_type="qwen3", title="Qwen3"),
    Architecture(model_type="olmo2", title="OLMo 2", norm_behind_mlp=True),
    Architecture(model_type="gemma2", title="Gemma 2", norm_behind_mlp=True),
    Architecture(model_type="gemma3_text", title="Gemma 3", norm_behind_mlp=True),
    Architecture(
        model_type="gemma3",
        title="Gemma 3 with vision",
        embeddings="model.language_model.embed_tokens",
        layers="model.language_model.layers",
        final_norm="model.language_model.norm",
        norm_behind_mlp=True,
    ),
)

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType({family.model_type: family for family in _FAMILIES})
"""Every supported family, by ``config.model_type``."""


def architecture_of(model: Any) -> Architecture:
    """The module paths of a model.

    Args:
        model: A causal language model of ``transformers``.

    Raises:
        UnsupportedCallError: Its family is not in the table (the message lists those that are), or its modules are not
            where the family has them, as in a model that is wrapped or has no language-model head.
    """
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    architecture = ARCHITECTURES.get(str(model_type))
    if architecture is None:
        known = ", ".join(f"{family.title} ({family.model_type})" for family in _FAMILIES)
        raise UnsupportedCallError(
            f"nothing is known of where the layers of {type(model).__name__} are (model_type {model_type!r}); "
            f"supported: {known}"
        )
    for path in (architecture.layers, architecture.embeddings, architecture.final_norm, architecture.unembedding):
        try:
            model.get_submodule(path)
        except AttributeError as error:
            raise UnsupportedCallError(
                f"{type(model).__name__} is a {architecture.title} model without '{path}'; pass the causal language "
                "model itself, neither wrapped nor without its head"
            ) from error
    return architecture
