"""The most memory that this process has held since a moment: of the accelerator where there is one, else of the system.

On Linux the kernel's high-water mark is reset (``/proc/self/clear_refs``) and read (``VmHWM``); elsewhere nothing is
known, and None says so.
"""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["PeakMemory"]

_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_RESET_HIGH_WATER_MARK = "5"


class PeakMemory:
    """Watches from when it is made."""

    def __init__(self) -> None:
        import torch

        self._cuda = torch.cuda.is_available()
        self._known = True
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            return
        try:
            _RESET.write_text(_RESET_HIGH_WATER_MARK)
        except OSError:
            self._known = False

    def peak(self) -> int | None:
        """Bytes; None where the system does not say."""
        import torch

        if self._cuda:
            return int(torch.cuda.max_memory_allocated())
        if not self._known:
            return None
        found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else None
