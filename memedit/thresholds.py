"""The threshold of a namespace: the scope classifier's own, or one chosen from traffic and kept with the memory.

What is kept says what it was chosen from, and counts only for the very classifier and encoder it was chosen for. How
one is chosen is not known here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Self

from classifiers import ScopeClassifier
from memedit.errors import ConfigError
from memory_store import JSON, EditMemory

__all__ = [
    "OWN_THRESHOLD",
    "ChosenThreshold",
    "NamespaceThreshold",
    "forget_threshold",
    "keep_threshold",
    "kept_threshold",
    "threshold_history",
]

SETTING = "scope_threshold"
"""The namespace's setting that holds a chosen threshold."""

OWN_THRESHOLD = "the classifier's own"
"""What is said of a threshold that was not chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenThreshold:
    """A threshold and what it was chosen from.

    The promise: with ``confidence``, at most a share ``max_false_fire`` of prompts drawn as the traffic was are wrongly
    governed, while the namespace holds at most ``room_for`` edits.

    Attributes:
        threshold: The probability from which on an edit governs.
        max_false_fire: The share of wrongly governed prompts that is kept.
        confidence: With what confidence.
        prompts: How many prompts of the traffic counted.
        in_scope: How many more were marked as rightly governed, and left out.
        fires: How many of ``prompts`` an edit governs at this threshold.
        edits: How many edits were in force.
        room_for: Up to how many the promise holds.
        candidates: How many edits the router retrieved for a prompt.
        classifier: Name of the scope classifier.
        classifier_fingerprint: Its fingerprint.
        encoder_fingerprint: That of the text encoder.
        traffic: Name of the traffic's file.
        traffic_sha256: SHA-256 of its bytes.
        traffic_bytes: Their number.
        chosen_at: When (UTC).
        version: With which version of memedit.
    """

    threshold: float
    max_false_fire: float
    confidence: float
    prompts: int
    in_scope: int
    fires: int
    edits: int
    room_for: int
    candidates: int
    classifier: str
    classifier_fingerprint: str
    encoder_fingerprint: str
    traffic: str
    traffic_sha256: str
    traffic_bytes: int
    chosen_at: datetime
    version: str

    @property
    def origin(self) -> str:
        """When, from what and for what it was chosen."""
        return (
            f"chosen on {self.chosen_at:%Y-%m-%d} from {self.prompts:,} prompts "
            f"for at most {percent(self.max_false_fire)} false fires"
        )

    def doubt(self, *, edits: int, candidates: int) -> str | None:
        """Says why the promise no longer holds; None while it does.

        Args:
            edits: How many edits are in force.
            candidates: How many edits the router retrieves for a prompt.
        """
        if edits > self.room_for:
            return f"that was promised for up to {self.room_for:,} edits and there are {edits:,}: calibrate again"
        if candidates > self.candidates:
            return (
                f"that was promised for {self.candidates:,} candidates a prompt and {candidates:,} are read: "
                "calibrate again"
            )
        return None

    def to_json(self) -> dict[str, Any]:
        """Returns it as a JSON object, the time in ISO 8601."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {**values, "chosen_at": self.chosen_at.isoformat()}

    @classmethod
    def from_json(cls, mapping: Mapping[str, Any]) -> Self:
        """Reads what `to_json` gave; what else is there is passed over.

        Raises:
            ConfigError: Something is missing, or is no time or no number.
        """
        try:
            values = {one.name: mapping[one.name] for one in fields(cls)}
            values["threshold"] = float(values["threshold"])
            values["chosen_at"] = datetime.fromisoformat(values["chosen_at"]).astimezone(UTC)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"The namespace's threshold cannot be read ({type(error).__name__}: {error}). Forget it with "
                "`memedit calibrate --reset`, and choose it again."
            ) from error
        return cls(**values)


@dataclass(frozen=True, slots=True)
class NamespaceThreshold:
    """The threshold by which the edits of a namespace are judged.

    Attributes:
        namespace: The namespace.
        threshold: The probability from which on one of its edits governs.
        chosen: The chosen threshold that is kept, in force or not; None where there is none.
        unused: Why the chosen one is not in force; None where it is, or there is none.
    """

    namespace: str
    threshold: float
    chosen: ChosenThreshold | None = None
    unused: str | None = None

    @classmethod
    def of(
        cls, namespace: str, chosen: ChosenThreshold | None, scope: ScopeClassifier, *, encoder_fingerprint: str | None
    ) -> Self:
        """The threshold in force for a classifier and an encoder.

        Args:
            namespace: The namespace.
            chosen: What is kept for it.
            scope: The scope classifier.
            encoder_fingerprint: Of the text encoder.
        """
        if chosen is None:
            return cls(namespace, scope.threshold)
        if chosen.classifier_fingerprint != scope.fingerprint:
            return cls(namespace, scope.threshold, chosen, "was chosen for another classifier")
        if chosen.encoder_fingerprint != encoder_fingerprint:
            return cls(namespace, scope.threshold, chosen, "was chosen for another encoder")
        return cls(namespace, chosen.threshold, chosen)

    @property
    def in_force(self) -> bool:
        """Whether a chosen threshold is in force."""
        return self.chosen is not None and self.unused is None

    @property
    def origin(self) -> str:
        """Where the threshold comes from, in words."""
        if self.chosen is None:
            return OWN_THRESHOLD
        if self.unused is None:
            return self.chosen.origin
        return f"{OWN_THRESHOLD}: {self.chosen.threshold:.3f} of {self.chosen.chosen_at:%Y-%m-%d} {self.unused}"


def keep_threshold(memory: EditMemory, namespace: str, chosen: ChosenThreshold) -> None:
    """Keeps a chosen threshold with the memory; every process goes by it from its next query on.

    Args:
        memory: The memory.
        namespace: Whose edits are judged by it.
        chosen: The threshold.
    """
    memory.set_namespace_setting(namespace, SETTING, chosen.to_json())


def kept_threshold(memory: EditMemory, namespace: str) -> ChosenThreshold | None:
    """The chosen threshold that is kept for a namespace; None where there is none.

    Raises:
        ConfigError: What is kept cannot be read.
    """
    return _read(memory.get_namespace_setting(namespace, SETTING))


def forget_threshold(memory: EditMemory, namespace: str) -> bool:
    """Goes back to the classifier's own threshold for a namespace; the history keeps what was chosen.

    Returns:
        Whether there was one to forget.
    """
    was_there = memory.get_namespace_setting(namespace, SETTING) is not None
    memory.set_namespace_setting(namespace, SETTING, None)
    return was_there


def threshold_history(memory: EditMemory, namespace: str) -> list[tuple[datetime, ChosenThreshold | None]]:
    """Every threshold that was kept for a namespace and since when, oldest first; None where one was forgotten.

    What cannot be read is left out.
    """
    found = []
    for change in memory.namespace_setting_history(namespace, SETTING):
        with contextlib.suppress(ConfigError):
            found.append((change.at, _read(change.value)))
    return found


def percent(share: float) -> str:
    """A share in percent, with as many digits as it takes: 0.01 is ``"1%"``."""
    return f"{100 * share:.4g}%"


def _read(value: JSON) -> ChosenThreshold | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"The namespace's threshold is no JSON object but {type(value).__name__}. Forget it with "
            "`memedit calibrate --reset`, and choose it again."
        )
    return ChosenThreshold.from_json(value)
