"""Tasks in this process, in worker processes and on a Ray cluster: the same results, and nothing lost on the way."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from memedit.errors import ConfigError, WorkerError
from memedit.evaluation.executors import InProcess, Processes, RayCluster, TaskError, _Waiting

psutil: Any = importlib.import_module("psutil")  # carries no types

ROOT = Path(__file__).parent.parent
HAS_RAY = importlib.util.find_spec("ray") is not None
LONG = pytest.mark.skipif(not os.environ.get("MEMEDIT_LONG_TESTS"), reason="half a minute; set MEMEDIT_LONG_TESTS=1")
NEEDS_RAY = pytest.mark.skipif(not HAS_RAY, reason="ray is not installed (pip install 'memedit[ray]')")


@dataclass(frozen=True)
class Task:
    """Something for `Worker` to do: the name of one of its methods, and a number or a path."""

    what: str
    value: Any = 0


@dataclass(frozen=True)
class MakeWorker:
    """Builds a `Worker`, leaving a mark of each time it does."""

    marks: Path

    def __call__(self) -> Worker:
        (self.marks / f"built-{os.getpid()}-{time.monotonic_ns()}").touch()
        return Worker(self.marks)


@dataclass(frozen=True)
class MakeGreedyWorker(MakeWorker):
    """Builds a `Worker` with a library that takes threads of its own."""

    def __call__(self) -> Worker:
        import torch

        torch.set_num_threads(3)
        return Worker(self.marks)


class Worker:
    def __init__(self, marks: Path) -> None:
        self.marks = marks

    def __call__(self, task: Task) -> Any:
        return getattr(self, task.what)(task.value)

    def square(self, value: int) -> int:
        time.sleep(0.01 * (value % 3))  # so that results come out of order
        return value * value

    def fail(self, value: int) -> int:
        raise ValueError(f"no {value}")

    def fail_oddly(self, value: int) -> int:
        raise OddError(value, "an error that cannot be pickled")

    def leave(self, value: int) -> None:
        sys.exit(value)

    def unpicklable(self, value: int) -> Any:
        return lambda: value

    def die(self, value: int) -> None:
        (self.marks / f"died-{value}-{time.monotonic_ns()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)

    def die_once(self, value: int) -> int:
        mark = self.marks / f"died-once-{value}"
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    def sleep(self, seconds: float) -> float:
        (self.marks / f"asleep-{os.getpid()}").touch()
        time.sleep(seconds)
        return seconds

    def pid(self, value: int) -> int:
        time.sleep(0.02)
        return os.getpid()

    def threads(self, value: int) -> tuple[int, str]:
        import torch

        return torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]


class OddError(Exception):
    def __init__(self, value: int, why: str) -> None:
        super().__init__(f"{value}: {why}")


class Unreadable:
    """Can be pickled, but not read again."""

    def __reduce__(self) -> tuple[Any, ...]:
        return refuse, ()


def refuse() -> None:
    raise RuntimeError("cannot be read here")


def make_nothing() -> Callable[[Task], Any]:
    raise ConfigError("there is no model 'x'")


def make_dead() -> Callable[[Task], Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


@dataclass(frozen=True)
class MakeOnlyOne:
    """The first worker can be built; every other dies while it is."""

    marks: Path

    def __call__(self) -> Worker:
        try:
            (self.marks / "taken").touch(exist_ok=False)
        except FileExistsError:
            os.kill(os.getpid(), signal.SIGKILL)
        return Worker(self.marks)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Processes[Task, Any]]:
    with contextlib.closing(Processes(MakeWorker(tmp_path), workers=2)) as executor:
        yield executor


def outcomes_of(executor: Any, tasks: list[Task]) -> list[Any]:
    """The outcomes in the order of the tasks; each task must have come exactly once."""
    pairs = list(executor.run(tasks))
    assert sorted(place for place, _ in pairs) == list(range(len(tasks)))
    return [outcome for _, outcome in sorted(pairs, key=lambda pair: pair[0])]


def builds(marks: Path) -> int:
    return len(list(marks.glob("built-*")))


MIXED = [
    *(Task("square", n) for n in range(8)),
    Task("fail", 3),
    Task("fail_oddly", 4),
    Task("leave", 5),
    *(Task("square", n) for n in range(8, 12)),
]


def check_mixed(outcomes: list[Any]) -> None:
    assert [one for one in outcomes if isinstance(one, int)] == [n * n for n in range(12)]
    failed, odd, left = outcomes[8:11]
    assert (failed.type, failed.message) == ("ValueError", "no 3")
    assert failed.traceback.startswith("Traceback")
    assert 'raise ValueError(f"no {value}")' in failed.traceback
    assert (odd.type, odd.message) == ("OddError", "4: an error that cannot be pickled")
    assert (left.type, left.message) == ("SystemExit", "5")


def test_the_same_results_in_process_and_in_processes(tmp_path: Path, two: Processes[Task, Any]) -> None:
    here = outcomes_of(InProcess(MakeWorker(tmp_path)), MIXED)
    check_mixed(here)
    assert outcomes_of(two, MIXED) == here


def test_in_process_goes_in_order_and_builds_once(tmp_path: Path) -> None:
    executor = InProcess(MakeWorker(tmp_path))
    assert list(executor.run([])) == []
    assert builds(tmp_path) == 0
    for _ in range(2):
        assert list(executor.run([Task("square", n) for n in range(4)])) == [(n, n * n) for n in range(4)]
    assert builds(tmp_path) == 1
    executor.close()
    assert list(executor.run([Task("square", 5)])) == [(0, 25)]
    assert builds(tmp_path) == 2


def test_processes_build_once_each_and_are_kept_between_runs(tmp_path: Path, two: Processes[Task, Any]) -> None:
    assert list(two.run([])) == []
    assert builds(tmp_path) == 0
    pids = set(outcomes_of(two, [Task("pid")] * 40))
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert set(outcomes_of(two, [Task("pid")] * 40)) <= pids
    assert builds(tmp_path) == 2
    two.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert len(outcomes_of(two, [Task("pid")])) == 1  # a run after that builds anew, and no more than there are tasks
    assert builds(tmp_path) == 3


@pytest.mark.parametrize("make", [MakeWorker, MakeGreedyWorker])
def test_cores_are_divided_among_processes(make: type[MakeWorker], tmp_path: Path) -> None:
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    with contextlib.closing(Processes(make(tmp_path), workers=2)) as executor:
        assert outcomes_of(executor, [Task("threads")]) == [(share, str(share))]


def test_there_are_never_less_threads_than_one(tmp_path: Path) -> None:
    with contextlib.closing(Processes(MakeWorker(tmp_path), workers=1_000)) as executor:
        assert outcomes_of(executor, [Task("threads")]) == [(1, "1")]


def test_a_task_that_kills_its_worker_twice_fails_and_the_rest_goes_on(
    tmp_path: Path, two: Processes[Task, Any]
) -> None:
    tasks = [Task("square", 1), Task("die", 7), *(Task("square", n) for n in range(2, 12)), Task("die_once", 9)]
    outcomes = outcomes_of(two, tasks)
    (died,) = [one for one in outcomes if isinstance(one, TaskError)]
    assert outcomes.index(died) == 1
    assert died.type == "WorkerDied"
    assert "killed by signal 9 (SIGKILL)" in died.message
    assert "use fewer workers" in died.message
    assert outcomes[:1] + outcomes[2:] == [1, *(n * n for n in range(2, 12)), 9]
    assert len(list(tmp_path.glob("died-7-*"))) == 2
    assert 4 <= builds(tmp_path) <= 5  # two at first, one for each death after which something was still to be done


def test_a_worker_killed_from_outside_costs_nothing(tmp_path: Path, two: Processes[Task, Any]) -> None:
    running = two.run([Task("sleep", 0.5), Task("sleep", 0.6), *(Task("square", n) for n in range(6))])
    results = dict([next(running)])
    sleeper = [int(mark.name.removeprefix("asleep-")) for mark in tmp_path.glob("asleep-*")][-1]
    with contextlib.suppress(ProcessLookupError):
        os.kill(sleeper, signal.SIGKILL)
    results |= dict(running)
    assert results == {0: 0.5, 1: 0.6, **{n + 2: n * n for n in range(6)}}


def test_what_cannot_be_sent_is_told(two: Processes[Task, Any]) -> None:
    tasks = [Task("square", lambda: 0), Task("unpicklable"), Task("square", Unreadable()), Task("square", 3)]
    sent_not, answered_not, read_not, fine = outcomes_of(two, tasks)
    assert "pickle" in sent_not.message
    assert "pickle" in answered_not.message
    assert (read_not.type, read_not.message) == ("RuntimeError", "cannot be read here")
    assert fine == 9


def test_a_worker_that_cannot_be_built(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no model 'x'"):
        list(InProcess(make_nothing).run([Task("square")]))
    with (
        contextlib.closing(Processes(make_nothing, workers=2)) as executor,
        pytest.raises(WorkerError, match=r"could not be set up: ConfigError: there is no model 'x'(.|\n)*Traceback"),
    ):
        list(executor.run([Task("square")] * 3))
    with (
        contextlib.closing(Processes(make_dead, workers=2)) as dead,
        pytest.raises(WorkerError, match=r"no worker could be set up: .* killed by signal 9 \(SIGKILL\)"),
    ):
        list(dead.run([Task("square")] * 3))
    with contextlib.closing(Processes(MakeOnlyOne(tmp_path), workers=3)) as fewer:
        assert outcomes_of(fewer, [Task("square", n) for n in range(9)]) == [n * n for n in range(9)]


def test_workers_are_counted_from_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 1, not 0"):
        Processes(MakeWorker(tmp_path), workers=0)


def test_leaving_a_run_stops_what_is_at_work(tmp_path: Path, two: Processes[Task, Any]) -> None:
    with contextlib.closing(two.run([Task("square", 2), *[Task("sleep", 60)] * 5])) as running:
        assert next(running) == (0, 4)
        wait_for(lambda: any(tmp_path.glob("asleep-*")))
    began = time.monotonic()
    assert outcomes_of(two, [Task("square", 3)]) == [9]
    assert time.monotonic() - began < 20
    two.close()
    assert not [child for child in psutil.Process().children() if child.pid in pids_asleep(tmp_path)]


def pids_asleep(marks: Path) -> set[int]:
    return {int(mark.name.removeprefix("asleep-")) for mark in marks.glob("asleep-*")}


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def run_sleepers(kind: str, marks: str, seconds: str) -> None:
    """The body of a program that is interrupted or killed: many sleeps on two workers."""
    make = MakeWorker(Path(marks))
    executor = Processes(make, workers=2) if kind == "processes" else RayCluster(make, address="local", workers=2)
    with contextlib.closing(executor):
        for _ in executor.run([Task("sleep", float(seconds))] * 10):
            pass


@contextlib.contextmanager
def program(kind: str, marks: Path, seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    """Runs `run_sleepers` in a process group of its own, as a terminal does, and waits until both workers sleep."""
    arguments = json.dumps([kind, str(marks), str(seconds)])
    started = subprocess.Popen(
        [sys.executable, "-c", f"from test_executors import run_sleepers; run_sleepers(*{arguments})"],
        cwd=ROOT / "tests",
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        wait_for(lambda: len(pids_asleep(marks)) == 2, seconds=120)
        yield started
    finally:
        started.kill()
        started.communicate()


@pytest.mark.parametrize("kind", ["processes", pytest.param("ray", marks=[NEEDS_RAY, pytest.mark.slow, LONG])])
def test_an_interrupt_stops_promptly_and_leaves_nobody_behind(kind: str, tmp_path: Path) -> None:
    with program(kind, tmp_path, 60) as started:
        family = psutil.Process(started.pid).children(recursive=True)
        assert pids_asleep(tmp_path) <= {one.pid for one in family}
        os.killpg(started.pid, signal.SIGINT)
        _, complaint = started.communicate(timeout=20)
        assert started.returncode == -signal.SIGINT
        assert complaint.count(b"KeyboardInterrupt") == 1, complaint.decode()
        wait_for(lambda: not any(one.is_running() for one in family), seconds=20)


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    with program("processes", tmp_path, 0.5) as started:
        family = psutil.Process(started.pid).children(recursive=True)
        started.kill()
        started.wait()
        wait_for(lambda: not any(one.is_running() for one in family), seconds=20)


# -- which task goes to whom -------------------------------------------------------------------------------------------


def test_neighbours_go_to_the_same_worker() -> None:
    waiting = _Waiting(10)
    assert len(waiting) == 10
    assert waiting.take(after=None, at_work=()) == 0
    assert waiting.take(after=None, at_work=(0,)) == 5  # the middle of 1..9
    assert waiting.take(after=0, at_work=(5,)) == 1
    assert waiting.take(after=1, at_work=(5,)) == 2
    assert waiting.take(after=5, at_work=(2,)) == 6
    assert waiting.take(after=2, at_work=(6,)) == 3
    assert waiting.take(after=3, at_work=(6,)) == 4
    assert waiting.take(after=4, at_work=(6,)) == 8  # 7 is left to whoever is at 6
    waiting.put_back(8)
    assert waiting.take(after=6, at_work=()) == 7
    assert waiting.take(after=7, at_work=()) == 9
    assert waiting.take(after=9, at_work=()) == 8
    assert waiting.take(after=8, at_work=()) is None
    assert len(waiting) == 0


def test_each_worker_works_through_a_stretch(two: Processes[Task, Any]) -> None:
    pids = outcomes_of(two, [Task("pid")] * 60)
    changes = sum(a != b for a, b in pairwise(pids))
    assert len(set(pids)) == 2
    assert changes <= 12, "turn and turn about it would be 59"


# -- Ray ---------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(HAS_RAY, reason="ray is installed")
def test_ray_that_is_not_installed_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pip install 'memedit\[ray\]'"):
        list(RayCluster(MakeWorker(tmp_path), address="local", workers=1).run([Task("square")]))


@NEEDS_RAY
def test_a_cluster_that_does_not_answer_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        executor = RayCluster(MakeWorker(tmp_path), address=address, workers=1)
        with pytest.raises(ConfigError, match=rf"'{address}' does not answer: .*refused(.|\n)*ray start --head"):
            list(executor.run([Task("square")]))
    with pytest.raises(ConfigError, match=r"'host:port'.*not 'nowhere'"):
        list(RayCluster(MakeWorker(tmp_path), address="nowhere", workers=1).run([Task("square")]))


@NEEDS_RAY
@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's own
def test_the_same_results_on_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'tests'}")
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    here = outcomes_of(InProcess(MakeWorker(tmp_path)), MIXED)
    with contextlib.closing(RayCluster(MakeWorker(tmp_path), address="local", workers=2)) as executor:
        assert outcomes_of(executor, MIXED) == here
        pids: set[Any] = set()
        for _ in range(50):  # on a busy machine one actor may answer twenty times before the other is there
            pids |= set(outcomes_of(executor, [Task("pid")] * 20))
            if len(pids) == 2:
                break
        assert len(pids) == 2
        assert os.getpid() not in pids
        assert builds(tmp_path) == 3, "one here, two there"
        died, once, fine = outcomes_of(executor, [Task("die", 1), Task("die_once", 2), Task("square", 3)])
        assert (died.type, once, fine) == ("WorkerDied", 2, 9)
        assert died.message == "each of the 2 workers that ran this task was lost, Ray says (ActorDiedError)"
        assert "worker process has died" in died.traceback
        sent_not, answered_not, after = outcomes_of(
            executor, [Task("square", Unreadable()), Task("square", sys._getframe()), Task("square", 4)]
        )
        assert isinstance(sent_not, TaskError)
        assert isinstance(answered_not, TaskError)
        assert after == 16
    wait_for(lambda: {child.pid for child in psutil.Process().children(recursive=True)} <= before)
    with (
        contextlib.closing(RayCluster(make_nothing, address="local", workers=1)) as unbuilt,
        pytest.raises(WorkerError, match="could not be set up: ConfigError: there is no model 'x'"),
    ):
        list(unbuilt.run([Task("square")]))
