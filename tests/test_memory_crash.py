"""Kills writers at random moments and looks at what is left.

The children are forked from a process that has imported everything, so that a kill costs a fraction of a second and the
moment falls into the work itself, not into the start of an interpreter.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

import pytest
from hashing_encoder import HashingEncoder
from spawned import run_in_a_process_without_threads

from memory_store import Edit, EditMemory, live_indexes

KILLS = 200
PER_CHUNK = 8


def stream(child):
    """Edits without end; those of one child differ from those of all others, some contradict the one before."""
    n = 0
    while True:
        yield Edit(prompt=f"prompt {child} {n - n % 5 // 4}", target=f"target {n}", paraphrases=(f"other {child} {n}",))
        n += 1


def add_until_killed(path, child, acknowledge):
    with EditMemory(path, encoder=HashingEncoder()) as memory:
        memory.search_text(["prompt"])  # so that indexes are kept up and saved along the way

        def acknowledged(progress):
            os.write(acknowledge, b"".join(f"{edit_id}\n".encode() for edit_id in progress.ids))

        memory.add_many(stream(child), chunk_size=PER_CHUNK, on_chunk=acknowledged)


def fork_and_kill(path, child, after_s, *, once_at_work):
    """Runs a writer, kills it some time after its start or after its first commit; returns what it acknowledged."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.close(reader)
            add_until_killed(path, child, writer)
        os._exit(1)
    os.close(writer)
    first = os.read(reader, 1) if once_at_work else b""
    time.sleep(after_s)
    os.kill(pid, signal.SIGKILL)
    with os.fdopen(reader, "rb") as pipe:
        acknowledged = (first + pipe.read()).decode().split()
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status), "the writer must be killed at work, not fail by itself"
    return acknowledged


@pytest.mark.slow
def test_what_was_acknowledged_survives_kill_9(tmp_path):
    run_in_a_process_without_threads(kill_again_and_again, tmp_path / "facts.db", seconds=300)


def kill_again_and_again(path):
    import faiss  # noqa: F401 - in the parent, so that a child need not

    live_indexes.SAVE_AFTER_CHANGES = 40  # kills fall into savings as well
    moments = random.Random(20261)
    acknowledged: list[str] = []
    at_work = 0
    for child in range(KILLS):
        ids = fork_and_kill(path, child, moments.uniform(0.0, 0.15), once_at_work=child % 4 != 0)
        at_work += bool(ids)
        acknowledged.extend(ids)
        if child % 20 == 19:
            check(path, acknowledged)
    check(path, acknowledged)
    assert at_work >= KILLS * 3 // 4, "most kills must come after a commit"


def check(path, acknowledged):
    """Every acknowledged edit is there and whole, and index and database agree."""
    with EditMemory(path, encoder=HashingEncoder()) as memory:
        there = {edit.id: edit for edit in memory.iterate(state=None)}
        missing = [edit_id for edit_id in acknowledged if edit_id not in there]
        assert missing == []
        report = memory.verify()
        assert report.problems == ()
        assert report.edits == len(there)
        assert len(there) % PER_CHUNK == 0, "a chunk is there whole or not at all"
        some = random.Random(len(there)).sample(acknowledged, min(25, len(acknowledged)))
        for edit in (there[edit_id] for edit_id in some):
            found = {hit.edit.id for hit in memory.search_text([edit.prompt], 3)[0]}
            assert (edit.id in found) == (edit.state == "active")


def test_an_import_that_was_killed_is_resumed_by_running_it_again(tmp_path):
    run_in_a_process_without_threads(kill_an_import, tmp_path / "facts.db", seconds=60)


def kill_an_import(path):
    edits = [Edit(prompt=f"prompt {n}", target="x") for n in range(2000)]
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException), EditMemory(path, encoder=HashingEncoder()) as memory:
            memory.add_many(
                edits,
                chunk_size=50,
                on_chunk=lambda progress: None if progress.seen < 1000 else os.kill(os.getpid(), 9),
            )
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    encoder = HashingEncoder()
    with EditMemory(path, encoder=encoder) as memory:
        report = memory.add_many(edits, chunk_size=50)
        assert (report.unchanged, report.added, encoder.texts_encoded) == (1000, 1000, 2000)
        assert memory.verify().ok


def test_a_failure_before_the_commit_leaves_nothing(tmp_path):
    path = tmp_path / "facts.db"
    with EditMemory(path, encoder=HashingEncoder()) as memory:
        memory.add("alpha", "x")
        for moment in ("write", "clock"):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(f"memory_store.ledger.{moment}", _fail)
                with pytest.raises(OSError, match="pulled"):
                    memory.add("beta", "y")
        assert (memory.count(state=None), memory.sequence) == (1, 1)
        assert memory.add("beta", "y").outcome == "added"
        assert memory.verify().ok


def _fail(*_args):
    raise OSError("the plug was pulled")
