"""The errors of memedit: one small tree.

::

    MemeditError
    ├── ModelNotFoundError     a model name that resolves to nothing
    │   └── OfflineError       it would need the network, which is switched off
    ├── DownloadError          the network answered, but not with the model
    │   └── ChecksumError      the bytes are not those that were pinned
    ├── UnsupportedCallError   a call that a governed prompt cannot honour (names the argument)
    ├── InvalidPromptError     an input in which no question can be found, or that cannot be routed
    ├── ConfigError            a configuration file or value that is wrong
    ├── CalibrationError       a promise on false fires that the traffic does not bear out (says how much would)
    ├── DataFileError          a file of edits or records that cannot be read (names file, line, field)
    ├── InvalidCaseError       a test case that says nothing, or contradicts itself (names the field)
    ├── JudgeError             a judging model that cannot be asked, or answers with nonsense (names the endpoint)
    └── WorkerError            worker processes that cannot be set up

``memory_store`` and ``classifiers`` have trees of their own; only the command line and the server translate any of
them for a person.
"""

from __future__ import annotations

__all__ = [
    "CalibrationError",
    "ChecksumError",
    "ConfigError",
    "DataFileError",
    "DownloadError",
    "InvalidCaseError",
    "InvalidPromptError",
    "JudgeError",
    "MemeditError",
    "ModelNotFoundError",
    "OfflineError",
    "UnsupportedCallError",
    "WorkerError",
]


class MemeditError(Exception):
    """Base class of every error that memedit itself raises."""


class ModelNotFoundError(MemeditError, LookupError):
    """A model name that resolves to nothing: no folder, nothing cached, nothing reachable."""


class OfflineError(ModelNotFoundError):
    """The model is not on this machine and the network is switched off."""


class DownloadError(MemeditError, OSError):
    """A download that failed, with each source tried and its reason."""


class ChecksumError(DownloadError):
    """The downloaded bytes are not those that were pinned; nothing of them is kept."""


class UnsupportedCallError(MemeditError, ValueError):
    """A call that cannot be honoured for a prompt that an edit governs; the message names the argument."""


class InvalidPromptError(MemeditError, ValueError):
    """An input that cannot be routed, such as an empty prompt or malformed chat messages."""


class ConfigError(MemeditError, ValueError):
    """A configuration value that is unknown or wrong, with the nearest known name."""


class CalibrationError(MemeditError, ValueError):
    """No threshold can be promised to keep false fires as rare as was asked; nothing was changed.

    Args:
        message: Why, and what to do.
        prompts_needed: How many prompts would do if none of them fires, where there are too few; else ``None``.
    """

    def __init__(self, message: str, *, prompts_needed: int | None = None) -> None:
        super().__init__(message)
        self.prompts_needed = prompts_needed


class DataFileError(MemeditError, ValueError):
    """A data file that cannot be read; the message names file, line and field."""


class InvalidCaseError(MemeditError, ValueError):
    """A test case or a part of one that is wrong; the message names the field."""


class JudgeError(MemeditError, OSError):
    """A judging model that cannot be asked; the message names the endpoint, what it answered and what to do."""


class WorkerError(MemeditError, RuntimeError):
    """No worker could be set up: what sets one up failed, or the processes died while it ran."""
