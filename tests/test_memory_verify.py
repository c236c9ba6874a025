from __future__ import annotations

import logging
import shutil
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from hashing_encoder import HashingEncoder

from memory_store import EXACT, FAISS_FLAT, Edit, EditMemory, NotAMemoryError, PurgeIncompleteError, index_file

SECRET = "Xyzzyplugh"


@pytest.fixture
def path(tmp_path):
    """A memory of 300 edits in two namespaces, saved and closed."""
    with EditMemory(tmp_path / "facts.db", encoder=HashingEncoder()) as memory:
        memory.add_many(Edit(prompt=f"prompt {n}", target="x", namespace=f"n{n % 2}") for n in range(300))
        memory.rebuild_index()
    return tmp_path / "facts.db"


def index_files(path):
    return sorted(path.with_name(path.name + ".index").glob("*.index"))


def alter(path, statement, *values):
    with closing(sqlite3.connect(path)) as connection, connection:
        changed = connection.execute(statement, values).rowcount
    assert changed, "the test must alter something"


def opened(path, **arguments):
    return EditMemory(path, encoder=HashingEncoder(), **arguments)


def all_found(memory):
    """Whether every edit in force is found first by its own prompt."""
    edits = memory.list()
    hits = memory.search_text([edit.prompt for edit in edits], 1)
    return [row[0].edit.id for row in hits] == [edit.id for edit in edits]


def test_a_sound_memory_verifies(path):
    with opened(path) as memory:
        report = memory.verify()
    assert (report.ok, report.problems, report.repaired) == (True, (), ())
    assert (report.edits, report.vectors, report.changes, report.indexes) == (300, 600, 300, 2)


# -- index files ------------------------------------------------------------------------------------------------------


def truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_a_late_bit(file):
    data = bytearray(file.read_bytes())
    data[-20] ^= 4
    file.write_bytes(data)


def flip_a_header_bit(file):
    data = bytearray(file.read_bytes())
    data[data.index(b'"sequence": ') + len(b'"sequence": ')] ^= 1
    file.write_bytes(data)


def replace_by_noise(file):
    file.write_bytes(np.random.default_rng(1).bytes(5000))


def exchange(file):
    others = [other for other in file.parent.glob("*.index") if other != file]
    shutil.copy(others[0], file)


@pytest.mark.parametrize(
    "damage",
    [truncate, flip_a_late_bit, flip_a_header_bit, replace_by_noise, exchange, lambda file: file.write_bytes(b"")],
)
def test_a_damaged_index_file_is_reported_repaired_and_never_believed(path, damage):
    damage(index_files(path)[0])
    with opened(path) as memory:
        assert all_found(memory)
        report = memory.verify()
        assert len(report.problems) == 1
        assert "damaged or foreign" in report.problems[0]
        repaired = memory.verify(repair=True)
        assert (repaired.ok, len(repaired.repaired)) == (True, 1)
        assert memory.verify().problems == ()
    with opened(path) as memory:
        assert all_found(memory)
        assert memory.verify().ok


def test_deleted_index_files_are_built_again_with_progress_and_without_the_encoder(path):
    shutil.rmtree(path.with_name(path.name + ".index"))
    steps = []
    with EditMemory(path, progress=lambda *step: steps.append(step)) as memory:
        assert memory.search(HashingEncoder().encode(["prompt 7"]), 1)[0][0].edit.prompt == "prompt 7"
    assert steps == [("building the index", 300, 300)] * 2
    assert len(index_files(path)) == 2


def test_an_index_file_of_a_copy_of_the_memory_with_another_past_is_not_used(path, tmp_path):
    """A backup is put back and grows differently: the same sequence numbers mean other changes."""
    shutil.copy(path, tmp_path / "backup.db")
    with opened(path) as memory:
        memory.add("alpha", "one")
        memory.rebuild_index()
    shutil.copy(tmp_path / "backup.db", path)
    with EditMemory(path, encoder=HashingEncoder(), index_type=EXACT) as memory:
        memory.add("beta", "two", namespace="n0")
    with opened(path) as memory:
        assert [hit.edit.prompt for hit in memory.search_text(["beta"], 1)[0]] == ["beta"]
        assert "alpha" not in {hit.edit.prompt for hit in memory.search_text(["alpha"], 500)[0]}
    with opened(path) as memory:
        assert memory.verify().problems == (), "closing replaced the foreign files"


@pytest.mark.parametrize("other", [EXACT, FAISS_FLAT], ids=lambda index_type: index_type.name)
def test_an_index_file_of_another_kind_is_built_anew(path, other):
    with EditMemory(path, encoder=HashingEncoder(), index_type=other) as memory:
        assert all_found(memory)
        memory.rebuild_index()
    for file in index_files(path):
        stored = index_file.read(file)
        assert stored is not None
        assert (stored[0].index_type, stored[0].count) == (other.name, 300)
    with opened(path) as memory:
        assert all_found(memory)
        memory.rebuild_index()
    for file in index_files(path):
        stored = index_file.read(file)
        assert stored is not None
        assert (stored[0].index_type, stored[0].count) == ("faiss-fp16-ip", 300)


@pytest.mark.parametrize("component", [2.0**-14, 0.25])
def test_an_index_that_holds_another_vector_is_found_and_repaired(path, component):
    """Even one that differs by no more than half precision can tell."""
    vector = np.zeros(64, dtype=np.float32)
    vector[:2] = component, np.sqrt(1 - component**2)
    data = vector.astype("<f4").tobytes()
    alter(path, "UPDATE vectors SET vector = ? WHERE id = 5 << 12", data)
    with opened(path) as memory:
        memory.rebuild_index()
        assert memory.verify().ok
    vector[0] *= 1 + 2.0**-10
    alter(path, "UPDATE vectors SET vector = ? WHERE id = 5 << 12", vector.astype("<f4").tobytes())
    with opened(path) as memory:
        (problem,) = memory.verify().problems
        assert "holds other values than the database" in problem
        assert memory.verify(repair=True).repaired == (problem,)
        assert memory.verify().ok


def test_an_older_index_file_catches_up(path, tmp_path):
    kept = tmp_path / "kept"
    shutil.copytree(path.with_name(path.name + ".index"), kept)
    with opened(path) as memory:
        edits = memory.list()
        memory.remove(edits[0].id)
        memory.update(edits[1].id, prompt="entirely new")
        memory.update(edits[2].id, paraphrases=["one more"])
        memory.add("added", "x", namespace="n0")
        memory.purge(edits[3].id)
    shutil.rmtree(path.with_name(path.name + ".index"))
    shutil.copytree(kept, path.with_name(path.name + ".index"))
    steps = []
    with opened(path, progress=lambda *step: steps.append(step)) as memory:
        assert all_found(memory)
        assert memory.verify().problems == ()
    assert steps == [], "nothing was built from the beginning"


def test_an_index_that_cannot_be_saved_is_no_error(path, caplog):
    folder = path.with_name(path.name + ".index")
    shutil.rmtree(folder)
    folder.write_bytes(b"a file where the folder should be")
    with caplog.at_level(logging.WARNING, "memory_store"), opened(path) as memory:
        assert all_found(memory)
    assert "cannot be saved" in caplog.text


def test_half_written_files_of_a_killed_process_are_swept_up(path):
    import os
    import time

    folder = path.with_name(path.name + ".index")
    old, fresh = folder / "old.tmp", folder / "fresh.tmp"
    for file in (old, fresh):
        file.write_bytes(b"x")
    an_hour_ago = time.time() - 3600
    os.utime(old, (an_hour_ago, an_hour_ago))
    with opened(path) as memory:
        memory.search_text(["prompt"])
        memory.add("one more", "x", namespace="n0")
    assert (old.exists(), fresh.exists()) == (False, True)


# -- the database -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE edits SET target = 'forged' WHERE number = 5", "content hash"),
        ("UPDATE edits SET prompt_key = x'00' WHERE number = 5", "keys of edit"),
        ("DELETE FROM vectors WHERE id = 5 << 12", "encode again"),
        ("UPDATE vectors SET text = 'other' WHERE id = 5 << 12", "encode again"),
        ("UPDATE vectors SET vector = substr(vector, 5) WHERE id = 5 << 12", "takes 252 bytes"),
        ("UPDATE vectors SET vector = zeroblob(256) WHERE id = 5 << 12", "has the length 0"),
        ("UPDATE vectors SET edit = 6 WHERE id = 5 << 12", "names another edit"),
        ("INSERT INTO vectors SELECT 999 << 12, 5, kind, text, vector FROM vectors LIMIT 1", "belong to no edit"),
        ("UPDATE changes SET snapshot = '{' WHERE sequence = 5", "Change 5 cannot be read"),
        ('UPDATE changes SET snapshot = \'{"prompt": "a", "target": "b"}\' WHERE sequence = 5', "last entry"),
        ("UPDATE changes SET sequence = 900 WHERE sequence = 300", "jumps from change 299 to 900"),
        ("UPDATE edits SET state = 'removed' WHERE number = 5", "last entry"),
    ],
)
def test_what_was_altered_from_outside_is_found(path, statement, message):
    shutil.rmtree(path.with_name(path.name + ".index"))
    alter(path, statement)
    with opened(path) as memory:
        report = memory.verify()
    assert not report.ok
    assert any(message in problem for problem in report.problems), report.problems


def test_a_row_that_refers_to_nothing_is_found(path):
    alter(path, "UPDATE changes SET edit = 12345 WHERE sequence = 5")
    with opened(path) as memory:
        assert any("refers to a missing row" in problem for problem in memory.verify().problems)


def test_reencoding_repairs_vectors(path):
    alter(path, "DELETE FROM vectors WHERE id % 7 = 0")
    with opened(path) as memory:
        assert not memory.verify().ok
        assert memory.reencode() == 600
        assert memory.verify().problems == ()
        assert all_found(memory)


def test_damage_to_the_file_is_reported(path):
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 40960] = b"\xa5" * 40960
    path.write_bytes(data)
    try:
        with opened(path) as memory:
            problems = memory.verify().problems
    except NotAMemoryError as error:
        problems = (str(error),)
    assert any("damage" in problem for problem in problems)
    assert any("backup" in problem for problem in problems)


# -- purge ------------------------------------------------------------------------------------------------------------


def traces(path, words):
    """The files of a memory that hold one of the words, or the vector of a text."""
    files = [path, *path.parent.glob(path.name + "-*"), *index_files(path), *index_files(path)[0].parent.glob("*.tmp")]
    return [(file.name, word) for file in files for word in words if word in file.read_bytes()]


def test_a_purged_edit_is_in_no_byte_of_any_file(path):
    encoder = HashingEncoder()
    (vector,) = encoder.encode([f"{SECRET} is"])
    words = [SECRET.encode(), SECRET.lower().encode(), vector.tobytes(), vector.astype(np.float16).tobytes()]
    with opened(path) as memory:
        edits = [
            memory.add(
                f"{SECRET} {n} {'is' * (n % 400)}",
                f"{SECRET}",
                paraphrases=[f"{SECRET} {n} {m}" for m in range(n % 9)],
                source=SECRET,
                metadata={SECRET.lower(): n},
                namespace="n0",
            ).edit
            for n in range(100)
        ]
        plain = memory.add(f"{SECRET} is", "x", namespace="n1").edit
        memory.add_many(Edit(prompt=f"later {n}", target="y" * (n + 1), namespace="n0") for n in range(200))
        for edit in edits[::2]:
            memory.update(edit.id, target=f"{SECRET} again")
        memory.remove(edits[1].id)
        memory.rebuild_index()
        assert {word for _, word in traces(path, words)} == set(words), "the test must be able to see them"
        for edit in [*edits, plain]:
            memory.purge(edit.id)
        assert traces(path, words) == []
        assert memory.verify().problems == ()
        assert all_found(memory)
    assert traces(path, words) == []


def test_a_purge_under_a_reader_is_not_said_to_be_complete(path, monkeypatch):
    monkeypatch.setattr("memory_store.database.TRUNCATION_TIMEOUT_S", 0.2)
    with opened(path) as memory:
        edit = memory.add(SECRET, "x").edit
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM edits").fetchone()
            with pytest.raises(PurgeIncompleteError, match=f"Purge {edit.id} again"):
                memory.purge(edit.id)
            assert memory.count(contains=SECRET) == 0
        memory.purge(edit.id)
    assert traces(path, [SECRET.encode()]) == []


def test_a_mistyped_folder_is_not_created(tmp_path):
    path = tmp_path / "no" / "such" / "facts.db"
    with pytest.raises(NotAMemoryError, match=r"There is no folder .*such to keep facts\.db in"):
        EditMemory(path)
    assert not (tmp_path / "no").exists()


def test_every_commit_reaches_the_disk(tmp_path):
    """What a machine that loses power keeps: the write-ahead log is synced at each commit, on every connection."""
    with EditMemory(tmp_path / "facts.db", encoder=HashingEncoder()) as memory:
        memory.add("The capital of Freedonia is", "Fredville")
        for _ in range(3):
            with memory._database.writing() as connection:
                settings = {
                    name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                    for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
                }
            assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1}
