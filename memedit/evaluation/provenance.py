"""What it takes to run an evaluation again: versions, revision, machine. Holds no path and no name of a host."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["machine", "revision", "versions"]

_PACKAGES = ("memedit", "torch", "transformers", "sentence-transformers", "faiss-cpu", "numpy", "scipy", "scikit-learn")


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that a figure may depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def revision() -> str | None:
    """The git revision of the project, marked where files differ from it; None outside a working tree."""
    folder = Path(__file__).parent
    try:
        if Path(_git(folder, "rev-parse", "--show-toplevel")).resolve() != folder.parents[1].resolve():
            return None  # installed below a working tree of something else
        found = _git(folder, "rev-parse", "--short=12", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{found}, with changes" if changed else found


def machine() -> dict[str, Any]:
    """Processor, cores, memory and accelerator."""
    import torch

    found: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    try:
        found["memory_bytes"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        found["memory_bytes"] = None
    if torch.cuda.is_available():
        found["accelerator"] = torch.cuda.get_device_name()
    return found


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(  # noqa: S603 - the words are ours
        ["git", "-C", str(folder), *words],  # noqa: S607 - whichever git the user has
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return done.stdout.strip()
