"""``python -m memedit`` is the command line."""

from __future__ import annotations

from memedit.cli import main

main()
