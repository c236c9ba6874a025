"""HTML files that need no other file: their templates, and the security policy that keeps them from reaching for one.

The parts of a page lie in the folder ``templates`` of its package. This file knows nothing of what a page shows.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["content_policy", "page_templates", "template_part"]


def page_templates(package: str) -> Environment:
    """The templates of a package: text is escaped, and a name that is not given is an error.

    Args:
        package: Its dotted name.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def template_part(package: str, name: str) -> str:
    """A style or script of a package's pages, as it stands.

    Args:
        package: Its dotted name.
        name: The file's name.
    """
    return (resources.files(package) / "templates" / name).read_text(encoding="utf-8")


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
