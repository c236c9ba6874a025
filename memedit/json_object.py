"""A file that holds one JSON object. This file knows nothing of what is in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from memedit.errors import DataFileError

__all__ = ["read_json_object"]


def read_json_object(file: Path) -> dict[str, Any]:
    """Reads a file that holds one JSON object.

    Args:
        file: The file.

    Raises:
        DataFileError: It cannot be read, or holds something else.
    """
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataFileError(f"{file} cannot be read: {error}") from error
    if not isinstance(held, dict):
        raise DataFileError(f"{file} is damaged: it holds no JSON object.")
    return held
