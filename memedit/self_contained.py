"""What keeps an HTML file that needs no other file from ever reaching for one: its content security policy.

This file knows nothing of what a page shows.
"""

from __future__ import annotations

import base64
import hashlib

__all__ = ["content_policy"]


def content_policy(style: str, script: str) -> str:
    """A policy that admits a page's own style and script, by their SHA-256, and no connection to anywhere.

    Args:
        style: The whole of its style element.
        script: The whole of its script element.
    """
    return (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src {_source(style)}; script-src {_source(script)}"
    )


def _source(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
