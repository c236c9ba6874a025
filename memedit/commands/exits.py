"""What an exit code of ``memedit`` means, and the one place where errors become exit codes.

Errors are looked up by the full name of their class, nearest base first, so that this file imports none of
the packages they come from.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

__all__ = ["EXIT_CODES_HELP", "CommandError", "ExitCode", "Failure", "describe"]


class ExitCode(IntEnum):
    """The exit codes."""

    DONE = 0
    NO = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    ENVIRONMENT = 5
    DEFECT = 70
    INTERRUPTED = 130
    BROKEN_PIPE = 141


EXIT_CODES_HELP = (
    "Exit codes: 0 done; 1 the answer is no (verify found problems, ask --require-edit and no edit governed); "
    "2 wrong usage; 3 not found (edit, model, memory); 4 bad data, or refused (invalid edit, conflict, malformed "
    "file); 5 environment (download, offline, locked or read-only database); 70 a defect in memedit; "
    "130 interrupted; 141 the reader of a pipe went away. MEMEDIT_DEBUG=1 shows tracebacks."
)


class CommandError(Exception):
    """What a command itself refuses or does not find.

    Args:
        message: What was wrong and what was given.
        code: The exit code.
        hint: What to do about it.
    """

    def __init__(self, message: str, *, code: ExitCode, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as a person and a program are told of it.

    Attributes:
        code: The exit code.
        error: The name of the error's class, for programs.
        message: What went wrong.
        hint: What to do about it, where the message does not say it already.
    """

    code: ExitCode
    error: str
    message: str
    hint: str | None = None

    def to_json(self) -> dict[str, object]:
        """The failure as one JSON object."""
        return {"error": self.error, "message": self.message, "hint": self.hint, "exit_code": int(self.code)}


@dataclass(frozen=True, slots=True)
class _Rule:
    code: ExitCode
    hint: str | None = None


_RULES: Mapping[str, _Rule] = {
    "memedit.errors.ModelNotFoundError": _Rule(ExitCode.NOT_FOUND),
    "memedit.errors.OfflineError": _Rule(ExitCode.ENVIRONMENT),
    "memedit.errors.DownloadError": _Rule(ExitCode.ENVIRONMENT),
    "memedit.errors.JudgeError": _Rule(ExitCode.ENVIRONMENT),
    "memedit.errors.WorkerError": _Rule(ExitCode.ENVIRONMENT),
    "memedit.errors.MemeditError": _Rule(ExitCode.REFUSED),
    "memory_store.errors.EditNotFoundError": _Rule(ExitCode.NOT_FOUND, "ids are listed by: memedit list --state all"),
    "memory_store.errors.AmbiguousIdError": _Rule(ExitCode.NOT_FOUND, "give more characters of the id"),
    "memory_store.errors.EncoderError": _Rule(
        ExitCode.ENVIRONMENT, "use the memory's own encoder (--encoder), or encode it again with: memedit reindex"
    ),
    "memory_store.errors.NotAMemoryError": _Rule(ExitCode.REFUSED),
    "memory_store.errors.StorageError": _Rule(ExitCode.ENVIRONMENT),
    "memory_store.errors.MemoryStoreError": _Rule(ExitCode.REFUSED),
    "classifiers.errors.EncoderLoadError": _Rule(ExitCode.NOT_FOUND),
    "classifiers.errors.ClassifierError": _Rule(ExitCode.REFUSED),
}


def describe(error: Exception) -> Failure:
    """What to tell of an error: the rule of its class or nearest base, else that memedit itself is at fault."""
    name = type(error).__name__
    if isinstance(error, CommandError):
        return Failure(error.code, name, str(error), error.hint)
    for base in type(error).__mro__:
        rule = _RULES.get(f"{base.__module__}.{base.__qualname__}")
        if rule is not None:
            return Failure(rule.code, name, str(error), rule.hint)
    if _is_usage_error(error):
        return _describe_usage_error(error)
    if isinstance(error, OSError):
        return _describe_os_error(error)
    return Failure(
        ExitCode.DEFECT,
        name,
        f"{name}: {error}",
        "this is a defect in memedit; run again with MEMEDIT_DEBUG=1 and report what it prints",
    )


def _is_usage_error(error: Exception) -> bool:
    """Whether typer refused the command line; its classes of errors have no public home."""
    return hasattr(error, "format_message") and isinstance(getattr(error, "exit_code", None), int)


def _describe_usage_error(error: Any) -> Failure:
    context = getattr(error, "ctx", None)
    hint = f"see: {context.command_path} --help" if context is not None else None
    return Failure(ExitCode.USAGE, "UsageError", error.format_message(), hint)


def _describe_os_error(error: OSError) -> Failure:
    place = f"{error.filename}: " if error.filename else ""
    hint = "free some space and run the command again" if error.errno == errno.ENOSPC else None
    return Failure(ExitCode.ENVIRONMENT, type(error).__name__, f"{place}{error.strerror or error}", hint)
