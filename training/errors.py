"""The errors of training: one small tree, a branch of memedit's own.

::

    memedit.errors.MemeditError
    └── TrainingError              training that cannot go on, such as a loss that is no number
        ├── TrainingConfigError    a setting that is unknown, of the wrong type or out of range
        ├── TrainingDataError      records that cannot be trained on (names file, line, field)
        └── CheckpointError        a checkpoint that is damaged, in use, or of another training

Being a branch of memedit's tree, they are told by the command line as memedit's own errors are.
"""

from __future__ import annotations

from memedit.errors import ConfigError, DataFileError, MemeditError

__all__ = ["CheckpointError", "TrainingConfigError", "TrainingDataError", "TrainingError"]


class TrainingError(MemeditError):
    """Base class of every error that training itself raises; itself: training that cannot go on."""


class TrainingConfigError(TrainingError, ConfigError):
    """A setting that is unknown or wrong; the message names it and the nearest known one."""


class TrainingDataError(TrainingError, DataFileError):
    """Records that cannot be trained on; the message names file, line and field."""


class CheckpointError(TrainingError):
    """A checkpoint that cannot be gone on from; the message says why, and how to begin anew."""
