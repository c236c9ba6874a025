"""Several processes at one memory: nothing lost, nothing stale, nothing locked."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import threading
import time

import pytest
from hashing_encoder import HashingEncoder
from spawned import run_in_a_process_without_threads

from memory_store import EditMemory

SECONDS = 60.0 if os.environ.get("MEMEDIT_LONG_TESTS") else 20.0
SPAWN = multiprocessing.get_context("spawn")


def write_for(path, name, seconds, board, results):
    """Adds, updates and removes; after each commit puts the sequence number it reached on the board."""
    try:
        expected = {}
        end = time.monotonic() + seconds
        with EditMemory(path, encoder=HashingEncoder()) as memory:
            n = 0
            while time.monotonic() < end:
                edit = memory.add(f"prompt {name} n{n}", "x").edit
                expected[edit.id] = "active"
                if n % 5 == 4:
                    memory.update(edit.id, target="y")
                if n % 7 == 6:
                    memory.remove(edit.id)
                    expected[edit.id] = "removed"
                with board.get_lock():
                    board.value = max(board.value, memory.sequence)
                n += 1
                time.sleep(0.002)
        results.put((name, None, expected))
    except BaseException as error:  # noqa: BLE001 - reported to the test, which fails
        results.put((name, repr(error), {}))


def read_for(path, name, seconds, board, results):
    """Searches; what was on the board before a search must be in its result."""
    try:
        checked = 0
        known = {}
        sequence = 0
        end = time.monotonic() + seconds
        encoder = HashingEncoder()
        query = encoder.encode(["prompt w0"])
        with EditMemory(path, encoder=encoder) as memory:
            while time.monotonic() < end:
                reached = board.value
                hits = {hit.edit.id: hit.edit for hit in memory.search(query, 100_000)[0]}
                for change in memory.changes_since(sequence):
                    if change.sequence > reached:
                        break
                    sequence = change.sequence
                    assert change.edit is not None
                    known[change.edit_id] = change.edit
                later = {change.edit_id for change in memory.changes_since(reached)}
                for edit_id, edit in known.items():
                    if edit_id in later:
                        continue  # changed after the board was read: either state is right
                    if edit.state == "active" and hits.get(edit_id) != edit:
                        fail(f"stale: {edit} committed before the search, found {hits.get(edit_id)}")
                    if edit.state != "active" and edit_id in hits:
                        fail(f"stale: {edit} was out of force before the search")
                if sequence < reached:
                    fail(f"history ends at {sequence}, though {reached} was committed")
                checked += 1
        results.put((name, None, checked))
    except BaseException as error:  # noqa: BLE001 - reported to the test, which fails
        results.put((name, repr(error), 0))


def fail(message):
    raise RuntimeError(message)


@pytest.mark.slow
def test_two_writers_and_two_readers(tmp_path):
    path = tmp_path / "facts.db"
    board, results = SPAWN.Value("q", 0), SPAWN.Queue()
    processes = [
        SPAWN.Process(target=target, args=(path, name, SECONDS, board, results))
        for target, name in ((write_for, "w0"), (write_for, "w1"), (read_for, "r0"), (read_for, "r1"))
    ]
    for process in processes:
        process.start()
    reports = {name: (error, value) for name, error, value in (results.get(timeout=SECONDS + 60) for _ in processes)}
    for process in processes:
        process.join()
    results.close()
    results.join_thread()
    assert {name: error for name, (error, _) in reports.items()} == dict.fromkeys(reports)
    expected = reports["w0"][1] | reports["w1"][1]
    assert min(len(reports["w0"][1]), len(reports["w1"][1])) > SECONDS, "each writer must have got its turns"
    assert min(reports["r0"][1], reports["r1"][1]) > SECONDS, "each reader must have searched many times"
    with EditMemory(path, encoder=HashingEncoder()) as memory:
        assert {edit.id: edit.state for edit in memory.iterate(state=None)} == expected
        assert memory.verify().problems == ()


def test_another_process_is_seen_at_the_next_query(tmp_path):
    with EditMemory(tmp_path / "facts.db", encoder=HashingEncoder()) as here:
        first = here.add("alpha", "x").edit
        with EditMemory(tmp_path / "facts.db", encoder=HashingEncoder()) as there:
            ids = lambda: [hit.edit.id for hit in here.search_text(["alpha"])[0]]  # noqa: E731
            assert ids() == [first.id]
            second = there.add("alpha beta", "y").edit
            assert ids() == [first.id, second.id]
            there.remove(first.id)
            assert ids() == [second.id]
            there.restore(first.id)
            there.update(second.id, prompt="gamma")
            assert here.search_text(["gamma"], 1)[0][0].edit.version == 2
            there.purge(first.id)
            assert ids() == [second.id]
            there.add("delta", "z", namespace="new")
            assert len(ids()) == 2
            assert here.is_empty(namespaces=["newer"])


def race(path, policy, barrier, results):
    with EditMemory(path, encoder=HashingEncoder(), conflict_policy=policy) as memory:
        barrier.wait()
        for n in range(30):
            with contextlib.suppress(ValueError):
                memory.add(f"prompt {n}", f"target of {os.getpid()}")
    results.put(os.getpid())


@pytest.mark.parametrize("policy", ["supersede", "reject"])
def test_writers_decide_on_what_is_committed(tmp_path, policy):
    """However two processes race, one edit of a prompt is in force. They also race to create the file."""
    barrier, results = SPAWN.Barrier(2), SPAWN.Queue()
    processes = [SPAWN.Process(target=race, args=(tmp_path / "facts.db", policy, barrier, results)) for _ in range(2)]
    for process in processes:
        process.start()
    for _ in processes:
        results.get(timeout=60)
    for process in processes:
        process.join()
    results.close()
    results.join_thread()
    with EditMemory(tmp_path / "facts.db") as memory:
        prompts = [edit.prompt for edit in memory.list()]
        assert sorted(prompts) == sorted({f"prompt {n}" for n in range(30)})
        assert memory.verify().problems == ()


def test_a_forked_child_and_its_parent_go_on(tmp_path):
    run_in_a_process_without_threads(fork_beside_a_busy_thread, tmp_path / "facts.db", seconds=60)


def fork_beside_a_busy_thread(path):
    with EditMemory(path, encoder=HashingEncoder()) as memory:
        memory.add("alpha", "x")
        memory.search_text(["alpha"])
        stop = threading.Event()

        def keep_busy():
            n = 0
            while not stop.is_set():
                memory.add(f"busy {n}", "x")
                memory.search_text(["busy"])
                n += 1

        busy = threading.Thread(target=keep_busy)
        busy.start()
        for n in range(5):
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                with contextlib.suppress(BaseException):
                    edit = memory.add(f"child {n}", "x").edit
                    found = memory.search_text([f"child {n}"], 1)[0][0].edit.id == edit.id
                    os.write(writer, json.dumps([edit.id, found]).encode())
                os._exit(0)
            os.close(writer)
            with os.fdopen(reader) as pipe:
                edit_id, found = json.loads(pipe.read() or "[null, false]")
            os.waitpid(child, 0)
            assert found
            assert memory.search_text([f"child {n}"], 1)[0][0].edit.id == edit_id
        stop.set()
        busy.join()
        assert memory.verify().problems == ()
