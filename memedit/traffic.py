"""Traffic: prompts as users send them, from a file or at hand, from which a threshold is chosen.

A file of JSON lines (``.jsonl``, ``.ndjson``, ``.json``) has one object a line, with the prompt under ``prompt`` or
``question``, or a conversation under ``messages``; ``in_scope: true`` marks one that an edit rightly governs, and other
fields are passed over. Any other file has one prompt a line. Blank lines are passed over. This file knows nothing of
edits or thresholds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from memedit.errors import DataFileError, InvalidPromptError
from memedit.queries import Query, conversation_query, question_query

__all__ = ["Traffic", "TrafficPrompt", "read_traffic", "traffic_of"]

Messages = Sequence[Mapping[str, str]]

_JSON_LINES = frozenset({".jsonl", ".ndjson", ".json"})
_PROMPT_FIELDS = ("prompt", "question", "messages")


@dataclass(frozen=True, slots=True)
class TrafficPrompt:
    """One prompt.

    Attributes:
        query: What it asks.
        in_scope: Whether a person marked it as rightly governed by an edit.
    """

    query: Query
    in_scope: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Prompts and where they come from.

    Attributes:
        prompts: In the order in which they came; a prompt sent twice stands there twice.
        name: Name of the file, without its folder.
        sha256: Of its bytes.
        size: Number of its bytes.
    """

    prompts: tuple[TrafficPrompt, ...]
    name: str
    sha256: str
    size: int

    def marked(self, queries: Collection[Query]) -> Traffic:
        """Returns it with the prompts that ask one of ``queries`` marked as rightly governed too."""
        wanted = frozenset(queries)
        prompts = (replace(one, in_scope=one.in_scope or one.query in wanted) for one in self.prompts)
        return replace(self, prompts=tuple(prompts))


@dataclass(frozen=True, slots=True)
class _Turn:
    role: str
    content: str


def read_traffic(file: Path) -> Traffic:
    """Reads a file of prompts.

    Raises:
        DataFileError: The file cannot be read, or a line holds no prompt; names the line.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataFileError(f"{file} cannot be read: {error.strerror or error}.") from error
    read_line = _of_json_line if file.suffix.lower() in _JSON_LINES else _of_text_line
    prompts = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            prompts.append(read_line(line.decode("utf-8")))
        except (UnicodeDecodeError, InvalidPromptError, RecursionError) as error:
            raise DataFileError(f"{file}:{number}: {error}") from error
    if not prompts:
        raise DataFileError(f"{file} holds no prompt; give one a line.")
    return Traffic(prompts=tuple(prompts), name=file.name, sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def traffic_of(prompts: Iterable[str | Messages]) -> Traffic:
    """Makes traffic of prompts at hand, each a text or chat messages; its hash is that of them as JSON lines.

    Raises:
        InvalidPromptError: In one of them nothing is asked.
    """
    given = [prompt if isinstance(prompt, str) else [dict(message) for message in prompt] for prompt in prompts]
    data = "".join(json.dumps(prompt, ensure_ascii=False, sort_keys=True) + "\n" for prompt in given).encode()
    return Traffic(
        prompts=tuple(TrafficPrompt(_query(prompt)) for prompt in given),
        name="prompts at hand",
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
    )


def _of_text_line(line: str) -> TrafficPrompt:
    return TrafficPrompt(question_query(line))


def _of_json_line(line: str) -> TrafficPrompt:
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        raise InvalidPromptError(f"is not valid JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(values, dict):
        raise InvalidPromptError(f"must be a JSON object, not {type(values).__name__}")
    given = [name for name in _PROMPT_FIELDS if values.get(name) is not None]
    if len(given) != 1:
        raise InvalidPromptError(
            f"needs one of the fields {', '.join(_PROMPT_FIELDS)}; it has {' and '.join(given) or 'none of them'}"
        )
    in_scope = values.get("in_scope", False)
    if not isinstance(in_scope, bool):
        raise InvalidPromptError(f"in_scope is true or false, not {in_scope!r}")
    return TrafficPrompt(_query(values[given[0]]), in_scope)


def _query(prompt: Any) -> Query:
    """What a text or a conversation asks."""
    if isinstance(prompt, str):
        return question_query(prompt)
    if not isinstance(prompt, list) or not all(isinstance(message, Mapping) for message in prompt):
        raise InvalidPromptError(f"a prompt is a text or a list of messages, not {type(prompt).__name__}")
    turns = []
    for place, message in enumerate(prompt):
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or not isinstance(content, str):
            raise InvalidPromptError(f"message {place} must have texts as its 'role' and 'content'")
        turns.append(_Turn(role, content))
    return conversation_query(turns)
