"""Decides what adding, changing and restoring edits comes to, before anything is written.

A planner is given the edits that stand (all that share a prompt with what is to be done), takes operations one after
the other, each seeing the effect of those before, and lists the steps to write. It knows nothing of databases.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from memory_store.errors import ConflictError
from memory_store.identity import Keys, content_hash, keys_of
from memory_store.records import Action, AddOutcome, AddResult, ConflictPolicy, Edit


@dataclass(slots=True)
class Standing:
    """An edit as it stands while the plan is made.

    Attributes:
        number: Its key in the database.
        edit: The edit itself.
        keys: What it is looked up by.
    """

    number: int
    edit: Edit
    keys: Keys


@dataclass(frozen=True, slots=True)
class Step:
    """One change to write.

    Attributes:
        number: Key of the edit that changes.
        action: What is done to it.
        edit: The edit afterwards.
        keys: Its keys afterwards.
        is_new: Whether the edit has no row yet.
        new_texts: Whether its texts must be encoded.
    """

    number: int
    action: Action
    edit: Edit
    keys: Keys
    is_new: bool
    new_texts: bool


class Planner:
    """Plans changes under a conflict policy.

    Args:
        standing: The edits, in any state but purged, that share a namespace and prompt with one of the operations.
        policy: What happens to those that say something else.
        now: Time of the changes (UTC).
        next_number: Key for the first new edit.
    """

    def __init__(
        self, standing: Iterable[Standing], *, policy: ConflictPolicy, now: datetime, next_number: int
    ) -> None:
        self.steps: list[Step] = []
        self._policy: ConflictPolicy = policy
        self._now = now
        self._next_number = next_number
        self._by_prompt: defaultdict[tuple[str, bytes], list[Standing]] = defaultdict(list)
        for one in standing:
            self._by_prompt[one.edit.namespace, one.keys.prompt].append(one)

    def add(self, draft: Edit, keys: Keys) -> AddResult:
        """Plans the addition of a checked draft.

        The same fact (prompt and target) is one edit: fields that the draft gives and that differ make a new version
        of the one that is there, and if that one is out of force it comes back. An edit that comes back, or had
        expired, takes the draft's expiry.

        Raises:
            ConflictError: The policy is ``reject`` and another edit in force has the prompt and another target.
        """
        same_prompt = self._by_prompt[draft.namespace, keys.prompt]
        same_fact = [one for one in same_prompt if one.keys.fact == keys.fact]
        if not same_fact:
            return self._add_new(draft, keys)
        standing = max(same_fact, key=lambda one: (one.edit.state == "active", one.edit.is_live(self._now), one.number))
        before = standing.edit
        merged = self._merge(before, draft)
        was_live = before.is_live(self._now)
        says_more = merged != before
        after = replace(merged, state="active")
        superseded = self._settle(standing.number, after, keys, already_live=was_live)
        if after == before:
            return AddResult(before, "unchanged", superseded)
        outcome: AddOutcome = "updated"
        action: Action = "update" if before.state == "active" else "restore"
        return AddResult(self._write(standing, after, action, new_version=says_more), outcome, superseded)

    def replace(self, number: int, after: Edit, action: Action, *, new_version: bool, settle: bool) -> Edit:
        """Plans that a standing edit becomes another.

        Args:
            number: Key of the edit.
            after: What it becomes; version, hash and time are set here.
            action: What the history calls it.
            new_version: Whether it gets a new version number.
            settle: Whether edits in force that say something else are dealt with by the policy.

        Raises:
            ConflictError: Another active edit says the same, or the policy is ``reject`` and one says something else.
        """
        standing = next(one for group in self._by_prompt.values() for one in group if one.number == number)
        keys = keys_of(after)
        if after.state == "active":
            for one in self._by_prompt[after.namespace, keys.prompt]:
                if one.number != number and one.keys.fact == keys.fact and one.edit.state == "active":
                    raise ConflictError(
                        f"Edit {one.edit.id} says the same already ({_shown(after)}); remove it first, or leave it.",
                        edit_id=one.edit.id,
                    )
            if settle:
                self._settle(number, after, keys, already_live=False)
        return self._write(standing, after, action, new_version=new_version, keys=keys)

    def _add_new(self, draft: Edit, keys: Keys) -> AddResult:
        edit = replace(
            draft,
            id=secrets.token_hex(8),
            created_at=self._now,
            updated_at=self._now,
            version=1,
            state="active",
            content_hash=content_hash(draft),
        )
        number = self._next_number
        superseded = self._settle(number, edit, keys, already_live=False)
        self._next_number += 1
        self._by_prompt[edit.namespace, keys.prompt].append(Standing(number, edit, keys))
        self.steps.append(Step(number, "add", edit, keys, is_new=True, new_texts=True))
        return AddResult(edit, "added", superseded)

    def _merge(self, before: Edit, draft: Edit) -> Edit:
        renewed = draft.expires_at is not None or not before.is_live(self._now)
        return replace(
            before,
            subject=before.subject if draft.subject is None else draft.subject,
            aliases=draft.aliases or before.aliases,
            paraphrases=draft.paraphrases or before.paraphrases,
            source=before.source if draft.source is None else draft.source,
            author=before.author if draft.author is None else draft.author,
            metadata=draft.metadata or before.metadata,
            expires_at=draft.expires_at if renewed else before.expires_at,
        )

    def _settle(self, number: int, edit: Edit, keys: Keys, *, already_live: bool) -> tuple[str, ...]:
        """Deals with the edits in force that have this prompt and another target; returns those put out of force."""
        if self._policy == "keep_both" or not edit.is_live(self._now):
            return ()
        rivals = [
            one
            for one in self._by_prompt[edit.namespace, keys.prompt]
            if one.number != number and one.keys.fact != keys.fact and one.edit.is_live(self._now)
        ]
        if self._policy == "reject":
            if rivals and not already_live:
                raise ConflictError(
                    f"Edit {rivals[0].edit.id} is in force and says {_shown(rivals[0].edit)}; the new one says "
                    f"{_shown(edit)}. Remove the old one first, or choose the policy 'supersede' or 'keep_both'.",
                    edit_id=rivals[0].edit.id,
                )
            return ()
        for rival in rivals:
            self._write(rival, replace(rival.edit, state="superseded"), "supersede", new_version=False)
        return tuple(rival.edit.id for rival in rivals)

    def _write(
        self, standing: Standing, after: Edit, action: Action, *, new_version: bool, keys: Keys | None = None
    ) -> Edit:
        before = standing.edit
        edit = replace(
            after,
            updated_at=self._now,
            version=before.version + 1 if new_version else before.version,
            content_hash=content_hash(after) if new_version else before.content_hash,
        )
        new_texts = new_version and edit.texts() != before.texts()
        if keys is not None and keys.prompt != standing.keys.prompt:
            self._by_prompt[before.namespace, standing.keys.prompt].remove(standing)
            self._by_prompt[edit.namespace, keys.prompt].append(standing)
        standing.keys = keys or standing.keys
        standing.edit = edit
        self.steps.append(Step(standing.number, action, edit, standing.keys, is_new=False, new_texts=new_texts))
        return edit


def _shown(edit: Edit) -> str:
    prompt, target = (text if len(text) <= 60 else f"{text[:57]}..." for text in (edit.prompt, edit.target))
    return f"{prompt!r} -> {target!r}"
