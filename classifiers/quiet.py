"""`quiet_transformers`: transformers' progress bars and log lines off for one block, then as they were."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet_transformers"]

_lock = threading.RLock()


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silences transformers inside the block: no bars, no log lines under ERROR.

    The settings belong to the whole process, so blocks in several threads take turns.
    """
    from transformers.utils import logging

    with _lock:
        verbosity = logging.get_verbosity()
        bars = logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        if bars:
            logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)
            if bars:
                logging.enable_progress_bar()
