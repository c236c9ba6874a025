"""What several test files share: the two real default models, pulled on first use; and Ctrl-C, heard in any case."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def hear_interrupts() -> None:
    """Takes SIGINT back where it is ignored, as in what a shell started in the background; children inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    from memedit.pulling import pull

    return pull("all-minilm-l6-v2")


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    from memedit.pulling import pull

    return pull("smollm2-135m-instruct")
