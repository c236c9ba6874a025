"""Processors: which multiply in bfloat16, and that a command says where it does not pay."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from memedit.commands.output import Output
from memedit.commands.precision import warn_of_imitation
from memedit.processors import multiplies_in_bfloat16


@pytest.fixture(params=[{"avx512_bf16": True}, {"amx_bf16": True}, {"avx512_bf16": False, "avx2": True}, {}])
def able(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    known: dict[str, bool] = request.param
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    return known.get("avx512_bf16", False) or known.get("amx_bf16", False)


def test_a_processor_is_asked_for_its_instructions(able: bool) -> None:
    assert multiplies_in_bfloat16() is able
    assert multiplies_in_bfloat16("cpu") is able
    assert multiplies_in_bfloat16(torch.device("cpu")) is able


def test_an_older_pytorch_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert multiplies_in_bfloat16() is False


def test_this_processor_is_known_by_its_flags() -> None:
    """Compared with the kernel's own list, where there is one."""
    listed = Path("/proc/cpuinfo")
    if not listed.exists():
        pytest.skip("there is no /proc/cpuinfo here")
    flags = listed.read_text(encoding="ascii", errors="replace")
    if "flags" not in flags:
        pytest.skip("/proc/cpuinfo has no flags here")
    assert multiplies_in_bfloat16() is ("avx512_bf16" in flags or "amx_bf16" in flags)


@pytest.mark.parametrize("asked", ["auto", "float32", "bfloat16"])
@pytest.mark.parametrize("as_json", [True, False])
def test_a_command_warns_where_bfloat16_is_imitated(
    able: bool, asked: str, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    warn_of_imitation(Output(as_json=as_json), asked, None)
    warned = "imitates" in capsys.readouterr().err
    assert warned is (asked == "bfloat16" and not able and not as_json)
