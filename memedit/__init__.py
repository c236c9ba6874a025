"""Correct what a language model says, at run time, with its weights frozen.

Edits live in a durable memory on disk. For each prompt a scope classifier decides whether an edit applies; if none
does, the untouched base model answers; if one does, it answers with the edited fact before its eyes.

    import memedit

    model = memedit.load("smollm2-135m-instruct", memory="facts.db")
    model.add("The headquarters of Acme Rockets is in", "Lisbon", subject="Acme Rockets")
    model.chat([{"role": "user", "content": "Where is Acme Rockets based?"}])

Names are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memedit.calibrating import Calibration, calibrate
    from memedit.demonstrations import (
        Demonstration,
        DemonstrationSet,
        default_demonstrations,
        read_demonstrations,
    )
    from memedit.errors import (
        CalibrationError,
        ChecksumError,
        ConfigError,
        DataFileError,
        DownloadError,
        InvalidCaseError,
        InvalidPromptError,
        JudgeError,
        MemeditError,
        ModelNotFoundError,
        OfflineError,
        UnsupportedCallError,
        WorkerError,
    )
    from memedit.evaluation.runner import evaluate
    from memedit.explanation import Answer, Explanation
    from memedit.loading import load, wrap
    from memedit.model import EditedModel
    from memedit.prompts import CHAT_FORM, IKE_FORM, PLAIN_FORM, RAW_FORM, InContextForm
    from memedit.pulling import pull, resolve
    from memedit.queries import Query, conversation_query, question_query
    from memedit.responders import ConfirmingResponder, InContextResponder, Responder
    from memedit.routing import Candidate, Decision, Router
    from memory_store import Edit, EditMemory

__all__ = [
    "CHAT_FORM",
    "IKE_FORM",
    "PLAIN_FORM",
    "RAW_FORM",
    "Answer",
    "Calibration",
    "CalibrationError",
    "Candidate",
    "ChecksumError",
    "ConfigError",
    "ConfirmingResponder",
    "DataFileError",
    "Decision",
    "Demonstration",
    "DemonstrationSet",
    "DownloadError",
    "Edit",
    "EditMemory",
    "EditedModel",
    "Explanation",
    "InContextForm",
    "InContextResponder",
    "InvalidCaseError",
    "InvalidPromptError",
    "JudgeError",
    "MemeditError",
    "ModelNotFoundError",
    "OfflineError",
    "Query",
    "Responder",
    "Router",
    "UnsupportedCallError",
    "WorkerError",
    "calibrate",
    "conversation_query",
    "default_demonstrations",
    "evaluate",
    "load",
    "pull",
    "question_query",
    "read_demonstrations",
    "resolve",
    "wrap",
]

_HOMES = {
    "memedit.calibrating": ("Calibration", "calibrate"),
    "memedit.demonstrations": (
        "Demonstration",
        "DemonstrationSet",
        "default_demonstrations",
        "read_demonstrations",
    ),
    "memedit.errors": (
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
    ),
    "memedit.evaluation.runner": ("evaluate",),
    "memedit.explanation": ("Answer", "Explanation"),
    "memedit.loading": ("load", "wrap"),
    "memedit.model": ("EditedModel",),
    "memedit.prompts": ("CHAT_FORM", "IKE_FORM", "PLAIN_FORM", "RAW_FORM", "InContextForm"),
    "memedit.pulling": ("pull", "resolve"),
    "memedit.queries": ("Query", "conversation_query", "question_query"),
    "memedit.responders": ("ConfirmingResponder", "InContextResponder", "Responder"),
    "memedit.routing": ("Candidate", "Decision", "Router"),
    "memory_store": ("Edit", "EditMemory"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

try:
    __version__ = version("memedit")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'memedit' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
