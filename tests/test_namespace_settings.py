"""Values that a memory keeps for a namespace: with their history, seen by other processes, and in older files too."""

from __future__ import annotations

import multiprocessing
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hashing_encoder import HashingEncoder

from memory_store import EditMemory, InvalidEditError, SettingChange


@pytest.fixture(params=["file", ":memory:"])
def memory(request, tmp_path):
    path = tmp_path / "facts.db" if request.param == "file" else ":memory:"
    with EditMemory(path, encoder=HashingEncoder()) as opened:
        yield opened


def test_each_namespace_has_its_own_values(memory) -> None:
    assert memory.get_namespace_setting("team", "limit") is None
    assert memory.get_namespace_setting("team", "limit", 3) == 3
    memory.set_namespace_setting("team", "limit", {"at": 0.7, "of": [1, None, "x"]})
    memory.set_namespace_setting("default", "limit", 0)
    memory.set_namespace_setting("team", "other", False)
    assert memory.get_namespace_setting("team", "limit") == {"at": 0.7, "of": [1, None, "x"]}
    assert memory.get_namespace_setting("default", "limit", 3) == 0
    assert memory.namespace_settings() == {
        "default": {"limit": 0},
        "team": {"limit": {"at": 0.7, "of": [1, None, "x"]}, "other": False},
    }
    assert memory.stats().settings == memory.namespace_settings()
    assert memory.get_setting("limit") is None


def test_history_keeps_what_was_set_and_forgotten(memory) -> None:
    before = datetime.now(UTC)
    for value in (1, True, 1.0, 1.0, None, None, 2):
        memory.set_namespace_setting("team", "limit", value)
    memory.set_namespace_setting("other", "limit", 9)
    history = memory.namespace_setting_history("team", "limit")
    assert [(change.sequence, change.value) for change in history] == [(1, 1), (2, True), (3, 1.0), (4, None), (5, 2)]
    assert [type(change.value) for change in history[:3]] == [int, bool, float]
    assert all(isinstance(change, SettingChange) and change.key == "limit" for change in history)
    assert before <= history[0].at
    assert [change.at for change in history] == sorted(change.at for change in history)
    memory.set_namespace_setting("team", "limit", None)
    assert memory.get_namespace_setting("team", "limit", "gone") == "gone"
    assert memory.namespace_settings() == {"other": {"limit": 9}}


def test_a_glance_tells_of_edits_and_of_changed_settings(memory) -> None:
    assert (memory.glance().empty, memory.glance().settings_sequence) == (True, 0)
    memory.add("The capital of France is", "Lyon", namespace="team")
    assert not memory.glance().empty
    assert memory.glance(namespaces=["other"]).empty
    assert not memory.glance(namespaces=["other", "team"]).empty
    memory.set_namespace_setting("other", "limit", 1)
    first = memory.glance(namespaces=["team"]).settings_sequence
    memory.set_namespace_setting("other", "limit", 1)
    assert memory.glance().settings_sequence == first
    memory.set_namespace_setting("other", "limit", None)
    assert memory.glance().settings_sequence == first + 1


def test_a_wrong_namespace_or_value_is_refused(memory) -> None:
    for namespace in ("", "a\nb"):
        with pytest.raises(InvalidEditError, match="namespace"):
            memory.set_namespace_setting(namespace, "limit", 1)
        with pytest.raises(InvalidEditError, match="namespace"):
            memory.get_namespace_setting(namespace, "limit")
    with pytest.raises(ValueError, match="not JSON compliant"):
        memory.set_namespace_setting("team", "limit", float("nan"))
    assert memory.namespace_settings() == {}


def _set(path: Path, value: float) -> None:
    with EditMemory(path) as memory:
        memory.set_namespace_setting("team", "limit", value)


def test_values_survive_and_other_processes_are_seen(tmp_path) -> None:
    path = tmp_path / "facts.db"
    with EditMemory(path) as memory:
        sequence = memory.glance().settings_sequence
        child = multiprocessing.get_context("spawn").Process(target=_set, args=(path, 0.25))
        child.start()
        child.join(60)
        assert child.exitcode == 0
        assert memory.glance().settings_sequence > sequence
        assert memory.get_namespace_setting("team", "limit") == 0.25
    with EditMemory(path) as memory:
        assert memory.get_namespace_setting("team", "limit") == 0.25


def schema(path: Path) -> set[tuple[str, str]]:
    connection = sqlite3.connect(path)
    found = set(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
    connection.close()
    return found


def test_a_memory_of_the_first_schema_gets_the_table_and_keeps_its_edits(tmp_path) -> None:
    path, fresh = tmp_path / "facts.db", tmp_path / "fresh.db"
    with EditMemory(path, encoder=HashingEncoder()) as memory:
        edit = memory.add("The capital of France is", "Lyon").edit
        memory.set_setting("kept", 1)
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE namespace_settings")
        connection.execute("UPDATE meta SET value = '1' WHERE key = 'schema_version'")
    connection.close()
    with EditMemory(path, encoder=HashingEncoder()) as memory:
        assert memory.list() == [edit]
        assert memory.stats().schema_version == 2
        assert memory.get_setting("kept") == 1
        memory.set_namespace_setting("default", "limit", 0.5)
        assert memory.namespace_settings() == {"default": {"limit": 0.5}}
        assert memory.verify().ok
    EditMemory(fresh).close()
    assert schema(path) == schema(fresh)
