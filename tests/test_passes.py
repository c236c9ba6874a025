"""A forward pass over rows of different lengths gives each row what it has by itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import ARCHITECTURES, VOCABULARY, tiny_model
from transformers import BloomConfig, BloomForCausalLM

from memedit.passes import folded_head, logits_of, max_positions, pad_left, positions, takes

ROWS = [[7, 8, 9, 10, 11], [12], [13, 14, 15], [16, 17, 18, 19, 20, 21, 22, 23]]
PAD = 5


def bloom() -> Any:
    """A model without positions."""
    torch.manual_seed(0)
    return BloomForCausalLM(BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4)).eval()


class WithoutKeep(torch.nn.Module):
    """A model that gives the logits of all places, whatever is wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = tiny_model()
        self.device = self.inner.device
        self.kept: list[int] = []

    def forward(self, input_ids: Any, attention_mask: Any, position_ids: Any, use_cache: bool) -> Any:
        logits = self.inner(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=use_cache
        ).logits
        self.kept.append(logits.shape[1])
        return SimpleNamespace(logits=logits)


MODELS: dict[str, Callable[[], Any]] = {**{name: partial(tiny_model, name) for name in ARCHITECTURES}, "bloom": bloom}


def alone(model: Any, row: list[int]) -> torch.Tensor:
    """The reference: the row by itself, without padding, mask or positions."""
    logits: torch.Tensor = model(torch.tensor([row]), use_cache=False).logits
    return logits[0]


@pytest.mark.parametrize("pad", [0, PAD])
@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_each_row_has_the_logits_that_it_has_alone(name: str, pad: int) -> None:
    model = MODELS[name]()
    found = logits_of(model, ROWS, pad=pad)
    assert found.shape == (len(ROWS), 8, VOCABULARY)
    for row, logits in zip(ROWS, found, strict=True):
        torch.testing.assert_close(logits[-len(row) :], alone(model, row), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("keep", [1, 3, 8])
@torch.inference_mode()
def test_only_the_last_places_are_worked_out(keep: int) -> None:
    model = tiny_model()
    widths: list[int] = []
    with_hook = model.lm_head.register_forward_hook(lambda module, inputs, output: widths.append(output.shape[1]))
    found = logits_of(model, ROWS, keep=keep)
    with_hook.remove()
    assert widths == [keep]
    torch.testing.assert_close(found, logits_of(model, ROWS)[:, -keep:])


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("keep", [1, 3])
@torch.inference_mode()
def test_a_head_reads_a_slice_as_one_matrix(rows: int, keep: int) -> None:
    model = tiny_model()
    read: list[torch.Tensor] = []
    ids = torch.arange(rows * 8).view(rows, 8)
    plain = model(ids, logits_to_keep=keep).logits
    with folded_head(model):
        watching = model.lm_head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
        found = model(ids, logits_to_keep=keep).logits
        watching.remove()
    width = model.config.hidden_size
    # what PyTorch asks of a slice that it multiplies as one matrix, lengths of one included
    assert read[0].stride() == (keep * width, width, 1)
    torch.testing.assert_close(found, plain)
    assert not model.lm_head._forward_pre_hooks


def test_a_head_is_let_go_of_after_an_error() -> None:
    model = tiny_model()
    with pytest.raises(RuntimeError, match="stopped"), folded_head(model):
        raise RuntimeError("stopped")
    assert not model.lm_head._forward_pre_hooks


@torch.inference_mode()
def test_a_model_that_works_all_places_out_is_cut_to_the_last_ones() -> None:
    model = WithoutKeep()
    found = logits_of(model, ROWS, keep=2)
    assert model.kept == [8]
    torch.testing.assert_close(found, logits_of(model.inner, ROWS, keep=2))


@torch.inference_mode()
def test_options_reach_the_model() -> None:
    model = tiny_model()
    with pytest.raises(TypeError, match="use_cache"):
        logits_of(model, ROWS, use_cache=True)
    torch.testing.assert_close(logits_of(model, ROWS, logits_to_keep=2), logits_of(model, ROWS, keep=2))


def test_rows_are_padded_on_the_left() -> None:
    ids, mask = pad_left([[1, 2, 3], [], [4]], device="cpu", pad=PAD)
    assert ids.tolist() == [[1, 2, 3], [PAD, PAD, PAD], [PAD, PAD, 4]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 0], [0, 0, 1]]
    assert positions(mask).tolist() == [[0, 1, 2], [0, 0, 0], [0, 0, 0]]
    assert ids.dtype == mask.dtype == torch.long


def test_what_a_model_takes_is_told() -> None:
    assert takes(tiny_model(), "position_ids")
    assert not takes(bloom(), "position_ids")
    assert not takes(WithoutKeep(), "logits_to_keep")


def test_the_most_tokens_are_those_of_the_configuration() -> None:
    model = tiny_model("gpt2")
    assert max_positions(model) == model.config.n_positions == 4096
    assert max_positions(bloom()) is None


def test_other_values_can_stand_in_for_the_parameters() -> None:
    model = tiny_model()
    name = "model.layers.1.mlp.down_proj.weight"
    before = logits_of(model, ROWS)
    instead = logits_of(model, ROWS, parameters={name: model.get_parameter(name) * 2})
    assert torch.equal(logits_of(model, ROWS), before)
    with torch.no_grad():
        model.get_parameter(name).mul_(2)
    torch.testing.assert_close(instead, logits_of(model, ROWS))
