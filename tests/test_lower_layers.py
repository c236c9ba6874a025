"""Going on from the lower layers: the same logits and gradients as running them, and nothing left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import ARCHITECTURES, tiny_model

from memedit.architectures import architecture_of
from training.lower_layers import LowerLayers

TEXTS = [(5, 9, 13, 40, 7), (8, 3, 99), (60, 61, 62, 63, 64, 65, 66, 67, 68)]


def logits(model: Any, texts: list[tuple[int, ...]]) -> torch.Tensor:
    width = max(map(len, texts))
    ids = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts])
    found: torch.Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_it_goes_on_as_if_the_lower_layers_had_run(architecture: str, layer: int, tmp_path: Path) -> None:
    model = tiny_model(architecture).double()
    expected = logits(model, TEXTS[:2])
    lower = LowerLayers(model, layer)
    lower.remember([*TEXTS, TEXTS[0]], cache=tmp_path, described="tiny")
    runs = []
    hooks = [
        model.get_submodule(architecture_of(model).module_name(below, "mlp_out")).register_forward_hook(
            lambda *_: runs.append(1)
        )
        for below in range(layer)
    ]
    with lower.resumed(TEXTS[:2]):
        resumed = logits(model, TEXTS[:2])
    assert runs == []
    for row, text in enumerate(TEXTS[:2]):
        torch.testing.assert_close(resumed[row, : len(text)], expected[row, : len(text)], rtol=1e-9, atol=1e-9)
    logits(model, TEXTS)
    assert len(runs) == layer
    for hook in hooks:
        hook.remove()
    assert not any("forward" in vars(module) or module._forward_pre_hooks for module in model.modules())


def test_what_was_kept_is_read_and_not_run_again(tmp_path: Path) -> None:
    model = tiny_model()
    LowerLayers(model, 2).remember(TEXTS, cache=tmp_path, described="tiny")
    again = LowerLayers(model, 2)
    stages: list[int] = []

    class Heard:
        def stage(self, name: str, done: int, total: int) -> None:
            stages.append(done)

    again.remember(TEXTS, cache=tmp_path, described="tiny", progress=Heard())  # type: ignore[arg-type]
    assert stages == []
    with again.resumed(TEXTS):
        resumed = logits(model, TEXTS)
    torch.testing.assert_close(resumed[2], logits(model, TEXTS[2:])[0], rtol=1e-3, atol=1e-3)
    again.remember(TEXTS, cache=tmp_path, described="another model", progress=Heard())  # type: ignore[arg-type]
    assert stages != []


def test_a_text_that_is_not_known_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    model = tiny_model()
    lower = LowerLayers(model, 1)
    lower.remember(TEXTS[:1], cache=tmp_path, described="tiny")
    with pytest.raises(KeyError), lower.resumed(TEXTS):
        pass
    with pytest.raises(RuntimeError, match="of the caller"), lower.resumed(TEXTS[:1]):
        raise RuntimeError("of the caller")
    assert not any("forward" in vars(module) or module._forward_pre_hooks for module in model.modules())
