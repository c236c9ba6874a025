"""The table of module paths, checked against a tiny model of every family."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, get_args

import pytest
import torch
import transformers as tf

from memedit.architectures import ARCHITECTURES, Architecture, LayerPart, Projection, architecture_of
from memedit.errors import UnsupportedCallError

LAYERS, HIDDEN, INTERMEDIATE, VOCABULARY = 3, 32, 48, 40

_SPECIAL: dict[str, Any] = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_GPT: dict[str, Any] = {**_SPECIAL, "n_embd": HIDDEN, "n_inner": INTERMEDIATE, "n_layer": LAYERS, "n_head": 4}
_PLAIN: dict[str, Any] = {
    **_SPECIAL,
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
_GROUPED: dict[str, Any] = {**_PLAIN, "num_key_value_heads": 2, "head_dim": 8}
_VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
MODELS: dict[str, Any] = {
    "gpt2": lambda: tf.GPT2LMHeadModel(tf.GPT2Config(**_GPT)),
    "gptj": lambda: tf.GPTJForCausalLM(tf.GPTJConfig(**_GPT, rotary_dim=4)),
    "gpt_neox": lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**_PLAIN)),
    "phi": lambda: tf.PhiForCausalLM(tf.PhiConfig(**_PLAIN)),
    "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**_GROUPED)),
    "mistral": lambda: tf.MistralForCausalLM(tf.MistralConfig(**_GROUPED)),
    "qwen2": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**_PLAIN, num_key_value_heads=2)),
    "qwen3": lambda: tf.Qwen3ForCausalLM(tf.Qwen3Config(**_GROUPED)),
    "olmo2": lambda: tf.Olmo2ForCausalLM(tf.Olmo2Config(**_PLAIN, num_key_value_heads=2)),
    "gemma2": lambda: tf.Gemma2ForCausalLM(tf.Gemma2Config(**_GROUPED)),
    "gemma3_text": lambda: tf.Gemma3ForCausalLM(tf.Gemma3TextConfig(**_GROUPED)),
    "gemma3": lambda: tf.Gemma3ForConditionalGeneration(
        tf.Gemma3Config(text_config=tf.Gemma3TextConfig(**_GROUPED), vision_config=_VISION, mm_tokens_per_image=4)
    ),
}


@pytest.fixture(scope="module", params=sorted(ARCHITECTURES))
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return MODELS[request.param]().eval()


def parts(architecture: Architecture) -> list[LayerPart]:
    return [part for part in get_args(LayerPart) if getattr(architecture, part) is not None]


def projections(architecture: Architecture) -> list[Projection]:
    return [part for part in get_args(Projection) if getattr(architecture, part) is not None]


def test_the_row_is_the_models_own(model: Any) -> None:
    assert architecture_of(model) is ARCHITECTURES[model.config.model_type]


def test_layers_are_counted(model: Any) -> None:
    architecture = architecture_of(model)
    assert architecture.layer_count(model) == LAYERS
    names = {name for name, _ in model.named_modules()}
    assert architecture.module_name(LAYERS - 1) in names
    assert architecture.module_name(LAYERS) not in names


def test_embeddings_and_unembedding_are_those_that_transformers_names(model: Any) -> None:
    architecture = architecture_of(model)
    assert model.get_submodule(architecture.embeddings) is model.get_input_embeddings()
    assert model.get_submodule(architecture.unembedding) is model.get_output_embeddings()
    assert model.get_submodule(architecture.unembedding).weight.shape == (VOCABULARY, HIDDEN)


def test_projections_have_their_shapes(model: Any) -> None:
    architecture = architecture_of(model)
    shapes = {
        "mlp_up": (INTERMEDIATE, HIDDEN),
        "mlp_gate": (INTERMEDIATE, HIDDEN),
        "mlp_out": (HIDDEN, INTERMEDIATE),
        "attention_out": (HIDDEN, HIDDEN),
    }
    parameters = dict(model.named_parameters())
    for layer in range(LAYERS):
        for part in projections(architecture):
            weight = parameters[architecture.parameter_name(layer, part)]
            assert (weight.mT if architecture.transposed else weight).shape == shapes[part], part


def test_queries_and_values_are_all_of_the_attention_but_keys_and_output(model: Any) -> None:
    architecture = architecture_of(model)
    layer, attention = architecture.module_name(1), architecture.module_name(1, "attention")
    weights = {
        name
        for name, value in model.named_parameters()
        if name.startswith(f"{attention}.") and value.dim() == 2 and not name.endswith("k_proj.weight")
    }
    listed = {f"{layer}.{inside}.weight" for inside in architecture.queries_and_values}
    assert weights == {*listed, architecture.parameter_name(1, "attention_out")}


def test_every_mlp_projection_is_in_the_table(model: Any) -> None:
    """Nothing of the MLP is left out: two projections, or three where there is a gate."""
    architecture = architecture_of(model)
    inside = f"{architecture.module_name(1, 'mlp')}."
    weights = {name for name, value in model.named_parameters() if name.startswith(inside) and value.dim() == 2}
    listed = {architecture.parameter_name(1, part) for part in projections(architecture) if part.startswith("mlp_")}
    assert weights == listed


def test_parts_do_what_they_are_called(model: Any) -> None:
    """Each part is run once a layer, on and to vectors of the width that its name promises, in the order of a layer."""
    architecture = architecture_of(model)
    seen: list[tuple[str, int]] = []
    hooks = []
    watched: dict[str, str] = {architecture.module_name(1, part): part for part in parts(architecture)}
    watched |= {architecture.module_name(1): "layer", architecture.final_norm: "final_norm"}

    def watch(part: str) -> Any:
        def hook(module: Any, given: Any, output: Any) -> None:
            seen.append((part, (output[0] if isinstance(output, tuple) else output).shape[-1]))

        return hook

    for name, part in watched.items():
        hooks.append(model.get_submodule(name).register_forward_hook(watch(part)))
    with torch.no_grad():
        model(torch.tensor([[3, 4, 5]]))
    for hook in hooks:
        hook.remove()
    widths = dict(seen)
    assert len(seen) == len(watched)
    assert widths.pop("mlp_up") == INTERMEDIATE
    assert widths.pop("mlp_gate", INTERMEDIATE) == INTERMEDIATE
    assert set(widths.values()) == {HIDDEN}
    order = [part for part, _ in seen]
    assert order.index("mlp_up") < order.index("mlp_out") < order.index("mlp") < order.index("layer")
    assert order.index("attention_out") < order.index("attention")
    assert order[-1] == "final_norm"


def test_a_value_passes_through_mlp_out_as_the_weight_says(model: Any) -> None:
    """The orientation of the weight, by a product made by hand."""
    architecture = architecture_of(model)
    name = architecture.module_name(0, "mlp_out")
    weight = dict(model.named_parameters())[architecture.parameter_name(0, "mlp_out")]
    key = torch.linspace(-1, 1, INTERMEDIATE)
    with torch.no_grad():
        module = model.get_submodule(name)
        value = module(key[None])[0] - module(torch.zeros(1, INTERMEDIATE))[0]
        by_hand = key @ weight if architecture.transposed else weight @ key
    torch.testing.assert_close(value, by_hand, atol=1e-5, rtol=1e-4)


def test_a_norm_behind_the_mlp_is_told_of(model: Any) -> None:
    """Without one, what the projection writes is added to the layer's output as it is."""
    architecture = architecture_of(model)
    written: list[torch.Tensor] = []
    layer = model.get_submodule(architecture.module_name(1))
    keep = layer.register_forward_hook(lambda _, __, out: written.append(out[0] if isinstance(out, tuple) else out))
    more = torch.linspace(-1, 1, HIDDEN)
    with torch.no_grad():
        model(torch.tensor([[3, 4, 5]]))
        add = model.get_submodule(architecture.module_name(1, "mlp_out")).register_forward_hook(
            lambda _, __, o: o + more
        )
        model(torch.tensor([[3, 4, 5]]))
    keep.remove()
    add.remove()
    as_it_is = torch.allclose(written[1] - written[0], more.expand_as(written[0]), atol=1e-4)
    assert as_it_is != architecture.norm_behind_mlp


def test_a_family_that_is_not_in_the_table() -> None:
    config = tf.BloomConfig(**_SPECIAL, hidden_size=HIDDEN, n_layer=1, n_head=2)
    with pytest.raises(UnsupportedCallError, match=r"'bloom'.*GPT-2 \(gpt2\).*Gemma 3 with vision \(gemma3\)"):
        architecture_of(tf.BloomForCausalLM(config))


def test_what_is_no_model() -> None:
    with pytest.raises(UnsupportedCallError, match=r"Linear .*model_type None"):
        architecture_of(torch.nn.Linear(2, 2))


def test_a_model_without_its_head() -> None:
    with pytest.raises(UnsupportedCallError, match=r"LlamaModel is a Llama model without 'model.layers'"):
        architecture_of(MODELS["llama"]().model)


@pytest.mark.parametrize(
    ("layer", "part", "message"),
    [
        (-1, "mlp_out", "no layer -1"),
        (0, "mlp_gate", "has no part 'mlp_gate'; it has attention"),
        (0, "mlp", "'mlp' is no projection"),
    ],
)
def test_what_is_not_there_is_said(layer: int, part: Any, message: str) -> None:
    with pytest.raises(UnsupportedCallError, match=message):
        ARCHITECTURES["gpt2"].parameter_name(layer, part)


def test_importing_it_loads_no_model_library() -> None:
    code = "import sys, memedit.architectures; sys.exit(bool({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
