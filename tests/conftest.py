"""Fixtures that several test files share: the two real default models, pulled on first use."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    from memedit.pulling import pull

    return pull("all-minilm-l6-v2")


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    from memedit.pulling import pull

    return pull("smollm2-135m-instruct")
