"""Runs tasks one after another in this process, or side by side in worker processes or on a Ray cluster.

All three give the same results for the same tasks; side by side they come in the order in which they are ready. What is
dear to build (a loaded model) is built once a worker and kept between runs, until `close`. An executor stops with what
reads it::

    with contextlib.closing(Processes(make_worker, workers=4)) as executor:
        for place, outcome in executor.run(tasks):
            ...

Each worker has one task at a time. So when a worker dies, the task it was at is known, the other workers go on, and an
interrupt leaves nothing queued; a worker whose parent has died ends with the task it is at. `concurrent.futures` holds
none of that: there, one dead worker breaks the whole pool and does not say over which task.

Messages between processes are pickled in memory by `multiprocessing` or Ray; nothing pickled is written to a file. This
file knows nothing of models or evaluation.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import traceback
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from memedit.errors import ConfigError, WorkerError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

__all__ = ["Executor", "InProcess", "MakeWorker", "Processes", "RayCluster", "TaskError"]

_LOG = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")
_Task = TypeVar("_Task", contravariant=True)
_Result = TypeVar("_Result", covariant=True)

MakeWorker = Callable[[], Callable[[T], R]]
"""Builds a worker, which turns a task into its result.

It is sent to other processes: a function at the top of a module, or a frozen dataclass with ``__call__``.
"""

_TRIES = 2
"""How often a task is tried that kills its worker."""

_SECONDS_TO_LEAVE = 5.0
"""How long an idle worker process may take to end by itself."""

_SECONDS_TO_CONNECT = 10.0
"""How long a Ray cluster may take to accept a connection."""

_ANOTHER_CLUSTER = "Start one with `ray start --head`, or give another address; 'local' starts one for the run."

_THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class TaskError:
    """A task that failed, as it is told across processes.

    Attributes:
        type: Name of the error's class; ``"WorkerDied"`` where the task took its worker with it.
        message: The error's message.
        traceback: The traceback as text, or what Ray knows of the death; empty where there is none.
    """

    type: str
    message: str
    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException) -> TaskError:
        """Tells of an error that was caught."""
        return cls(type(error).__qualname__, str(error), "".join(traceback.format_exception(error)))


class Executor(Protocol[_Task, _Result]):
    """Runs tasks, somewhere."""

    def run(self, tasks: Sequence[_Task]) -> Generator[tuple[int, _Result | TaskError], None, None]:
        """Run tasks that do not depend on one another.

        Closing the generator, or an interrupt, stops at once what is at work.

        Args:
            tasks: The tasks. Neighbours tend to go to the same worker, one after the other.

        Yields:
            Place of a task among `tasks`, and its result or why there is none: each task once, as they are ready.

        Raises:
            WorkerError: No worker could be set up in another process. In this process, the error itself is raised.
            ConfigError: What the workers are to run on is not there.
        """

    def close(self) -> None:
        """Let the workers go. The executor may be run again; it then builds new ones."""


class InProcess(Generic[T, R]):
    """Runs tasks one after another in this process, in order.

    Args:
        make_worker: Builds the worker, at the first task.
    """

    def __init__(self, make_worker: MakeWorker[T, R]) -> None:
        self._make_worker = make_worker
        self._worker: Callable[[T], R] | None = None

    def run(self, tasks: Sequence[T]) -> Generator[tuple[int, R | TaskError], None, None]:
        """Run tasks; see `Executor`."""
        for place, task in enumerate(tasks):
            if self._worker is None:
                self._worker = self._make_worker()
            yield place, _attempt(self._worker, task)

    def close(self) -> None:
        """Let the worker go."""
        self._worker = None


class _Hand(Protocol):
    """A worker elsewhere, as its executor sees it. The first thing to take is whether it could be built."""

    def give(self, task: Any) -> None:
        """Hand it a task; raises whatever comes of sending it."""

    def take(self) -> Any:
        """What it has come to: a result, a TaskError, or None where it has been built. Raises `_WorkerDied`."""

    def dismiss(self) -> None:
        """Let it go, now that it has nothing to do."""

    def kill(self) -> None:
        """End it whatever it is doing."""


_H = TypeVar("_H", bound=_Hand)


class _WorkerDied(Exception):  # noqa: N818 - not an error by itself: the task may be tried again
    """A worker went away without a word.

    Args:
        how: What happened to it, as the rest of a sentence that begins with the worker.
        report: What more is known.
    """

    def __init__(self, how: str, report: str = "") -> None:
        super().__init__(how)
        self.report = report


class _Hands(Generic[T, R, _H]):
    """What is the same wherever workers are: handing out tasks, and bearing the death of workers.

    Args:
        workers: How many.
    """

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise ConfigError(f"workers must be at least 1, not {workers}")
        self._workers = workers
        self._limit = workers
        self._building: list[_H] = []
        self._idle: dict[_H, int | None] = {}
        self._busy: dict[_H, int] = {}

    @abstractmethod
    def _start(self) -> _H:
        """Begin to build a worker."""

    @abstractmethod
    def _wait(self, hands: Sequence[_H]) -> list[_H]:
        """Those of some workers, at least one, that have something to take."""

    def run(self, tasks: Sequence[T]) -> Generator[tuple[int, R | TaskError], None, None]:
        """Run tasks; see `Executor`."""
        waiting = _Waiting(len(tasks))
        deaths: Counter[int] = Counter()
        finished: list[tuple[int, R | TaskError]] = []
        self._idle = dict.fromkeys(self._idle)
        try:
            while True:
                self._staff(len(waiting))
                finished += self._hand_out(tasks, waiting)
                yield from finished
                if not waiting and not self._busy:
                    return
                finished = []
                for hand in self._wait([*self._building, *self._busy]):
                    if hand in self._busy:
                        finished += self._hear(hand, waiting, deaths)
                    else:
                        self._hear_first(hand)
        finally:
            for hand in self._busy:
                hand.kill()
            self._busy.clear()

    def close(self) -> None:
        """Let the workers go."""
        for hand in (*self._building, *self._busy):
            hand.kill()
        for hand in self._idle:
            hand.dismiss()
        self._building.clear()
        self._busy.clear()
        self._idle.clear()
        self._limit = self._workers

    def _staff(self, waiting: int) -> None:
        """Begin to build the workers that are missing."""
        here = len(self._building) + len(self._idle)
        for _ in range(min(self._limit - len(self._busy), waiting) - here):
            self._building.append(self._start())

    def _hand_out(self, tasks: Sequence[T], waiting: _Waiting) -> list[tuple[int, TaskError]]:
        """Give every idle worker a task; gives those that cannot be sent."""
        failed = []
        for hand, last in list(self._idle.items()):
            while (place := waiting.take(after=last, at_work=self._busy.values())) is not None:
                refused = _attempt(hand.give, tasks[place])
                if not isinstance(refused, TaskError):
                    del self._idle[hand]
                    self._busy[hand] = place
                    break
                failed.append((place, refused))
        return failed

    def _hear(self, hand: _H, waiting: _Waiting, deaths: Counter[int]) -> list[tuple[int, R | TaskError]]:
        """Take what came of a task."""
        place = self._busy.pop(hand)
        try:
            outcome: R | TaskError = hand.take()
        except _WorkerDied as death:
            deaths[place] += 1
            if deaths[place] < _TRIES:
                _LOG.warning("A worker %s at task %d, which is tried again.", death, place)
                waiting.put_back(place)
                return []
            message = f"each of the {_TRIES} workers that ran this task {death}"
            return [(place, TaskError("WorkerDied", message, death.report))]
        self._idle[hand] = place
        return [(place, outcome)]

    def _hear_first(self, hand: _H) -> None:
        """Take whether a worker could be built."""
        self._building.remove(hand)
        try:
            failed = hand.take()
        except _WorkerDied as death:
            self._limit -= 1
            if not (self._building or self._idle or self._busy):
                self._limit = self._workers
                raise WorkerError(
                    f"no worker could be set up: the last that was tried {death}\n{death.report}"
                ) from None
            _LOG.warning("A worker %s while it was set up; %d are left.", death, self._limit)
            return
        if isinstance(failed, TaskError):
            hand.kill()
            raise WorkerError(
                f"a worker could not be set up: {failed.type}: {failed.message}\nIn the worker:\n{failed.traceback}"
            )
        self._idle[hand] = None


class _Waiting:
    """The places of the tasks that nobody has begun.

    Alike tasks stand together, and what one of them sets up may serve the next. So whoever has done a task goes on with
    the one behind it; others begin in the middle of the longest stretch that somebody is working into.

    Args:
        count: How many tasks there are.
    """

    def __init__(self, count: int) -> None:
        self._stretches = [range(count)] if count else []
        self._again: list[int] = []

    def __len__(self) -> int:
        return sum(map(len, self._stretches)) + len(self._again)

    def put_back(self, place: int) -> None:
        """Have a task done again, when all others have been begun."""
        self._again.append(place)

    def take(self, *, after: int | None, at_work: Collection[int]) -> int | None:
        """Take a task out.

        Args:
            after: The task that the worker did last; None where it did none.
            at_work: The tasks that others are at.

        Returns:
            Its place; None where there is none left.
        """
        if not self._stretches:
            return self._again.pop(0) if self._again else None
        stretch = next((one for one in self._stretches if after is not None and one.start == after + 1), None)
        if stretch is None:
            stretch = max(self._stretches, key=len)
            place = stretch[len(stretch) // 2] if stretch.start - 1 in at_work else stretch.start
        else:
            place = stretch.start
        self._stretches.remove(stretch)
        self._stretches += [part for part in (range(stretch.start, place), range(place + 1, stretch.stop)) if part]
        return place


def _attempt(call: Callable[[T], R], task: T) -> R | TaskError:
    try:
        return call(task)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a task raises is its result, and told in it
        return TaskError.of(error)


# -- worker processes on this machine ----------------------------------------------------------------------------------


class Processes(_Hands[T, R, "_Process"]):
    """Runs tasks in worker processes on this machine, among which its cores are divided.

    The processes are spawned: a script that uses this keeps what it does behind ``if __name__ == "__main__":``.

    Args:
        make_worker: Builds the worker, once in each process.
        workers: How many processes.
    """

    def __init__(self, make_worker: MakeWorker[T, R], *, workers: int) -> None:
        super().__init__(workers)
        self._make_worker = make_worker

    def _start(self) -> _Process:
        return _Process(self._make_worker, threads=_threads(self._workers))

    def _wait(self, hands: Sequence[_Process]) -> list[_Process]:
        from multiprocessing.connection import wait

        by_connection: dict[Any, _Process] = {hand.connection: hand for hand in hands}
        return [by_connection[ready] for ready in wait(by_connection)]


class _Process:
    """A worker process and the connection to it."""

    def __init__(self, make_worker: MakeWorker[T, R], *, threads: int) -> None:
        from multiprocessing import get_context

        spawn = get_context("spawn")
        self.connection, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs, threads), daemon=True)
        self._process.start()
        theirs.close()  # so that the connection ends when the worker does
        with suppress(OSError):  # it has died already, which is found out when it is listened to
            self.connection.send(make_worker)

    def give(self, task: Any) -> None:
        with suppress(OSError):  # as above
            self.connection.send(task)

    def take(self) -> Any:
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            raise _WorkerDied(self._last_words()) from None
        except Exception as error:  # noqa: BLE001 - what was sent cannot be read here, which is the task's result
            return TaskError.of(error)

    def dismiss(self) -> None:
        self.connection.close()
        self._process.join(_SECONDS_TO_LEAVE)
        self.kill()

    def kill(self) -> None:
        self.connection.close()
        self._process.kill()
        self._process.join()
        self._process.close()

    def _last_words(self) -> str:
        """How it ended."""
        self.connection.close()
        self._process.join(_SECONDS_TO_LEAVE)
        code = self._process.exitcode
        self.kill()
        if code is None:
            return "closed its connection and was ended"
        if code >= 0:
            return f"ended with exit code {code}; what it wrote to the standard error stream says why"
        name = signal.Signals(-code).name
        memory = "; unless somebody did that, memory ran out: use fewer workers" if name == "SIGKILL" else ""
        return f"was killed by signal {-code} ({name}){memory}"


def _serve(connection: Connection, threads: int) -> None:
    """What a worker process does: build the worker, then one task after the other until nobody is at the other end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt at the terminal is the parent's to act on
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        worker = _built(connection.recv, threads)
        if isinstance(worker, TaskError):
            connection.send(worker)
            return
        connection.send(None)
        while True:
            _send(connection, _received(connection, worker))


def _received(connection: Connection, worker: Callable[[Any], Any]) -> Any:
    """What comes of the next task; one that cannot be read here has come to that."""
    try:
        task = connection.recv()
    except (EOFError, ConnectionResetError):
        raise
    except Exception as error:  # noqa: BLE001 - such as a class that cannot be imported here
        return TaskError.of(error)
    return _attempt(worker, task)


def _send(connection: Connection, outcome: Any) -> None:
    """Send what a task came to; nothing has been sent yet where that cannot be pickled."""
    refused = _attempt(connection.send, outcome)
    if isinstance(refused, TaskError):
        connection.send(refused)


def _built(receive: Callable[[], MakeWorker[T, R]], threads: int | None) -> Callable[[T], R] | TaskError:
    """The worker, with its share of the cores; a library that is loaded only now reads it from the environment."""
    if threads is not None:
        os.environ.update(dict.fromkeys(_THREAD_SETTINGS, str(threads)))
    worker = _attempt(lambda _: receive()(), None)
    if threads is not None and "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)
    return worker


def _threads(workers: int) -> int:
    """Each worker's share of this machine's cores, at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // workers)


# -- a Ray cluster -----------------------------------------------------------------------------------------------------


class RayCluster(_Hands[T, R, "_Actor"]):
    """Runs tasks in the actors of a Ray cluster, a core each; memedit and the models are to be on its machines.

    Args:
        make_worker: Builds the worker, once in each actor.
        address: ``"host:port"`` or ``"ray://host:port"`` of a cluster, ``"auto"`` for the one that runs on this
            machine, ``"local"`` for one that is started for the purpose and stopped by `close`. Where this process is
            connected to a cluster already, that one is used, and left connected.
        workers: How many actors.
    """

    def __init__(self, make_worker: MakeWorker[T, R], *, address: str, workers: int) -> None:
        super().__init__(workers)
        self._make_worker = make_worker
        self._address = address
        self._ray: Any = None
        self._connected_here = False

    def close(self) -> None:
        """Let the workers go, and the cluster where this has connected to it."""
        super().close()
        if self._connected_here:
            self._ray.shutdown()
        self._ray, self._connected_here = None, False

    def _start(self) -> _Actor:
        if self._ray is None:
            self._connect()
        threads = _threads(self._workers) if self._address == "local" else None
        return _Actor(self._ray, self._make_worker, threads=threads)

    def _wait(self, hands: Sequence[_Actor]) -> list[_Actor]:
        by_pending = {hand.pending: hand for hand in hands}
        ready, _ = self._ray.wait(list(by_pending), num_returns=1)
        return [by_pending[one] for one in ready]

    def _connect(self) -> None:
        try:
            ray = import_module("ray")
        except ModuleNotFoundError:
            raise ConfigError(
                "running on a Ray cluster needs ray, which is not installed: pip install 'memedit[ray]'"
            ) from None
        if not ray.is_initialized():
            settings: dict[str, Any] = {"address": self._address}
            if self._address == "local":
                os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would send them from here otherwise
                settings |= {"num_cpus": self._workers, "include_dashboard": False}
            else:
                _check_that_it_listens(self._address)
            try:
                ray.init(**settings, log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise ConfigError(
                    f"the Ray cluster at {self._address!r} cannot be used: {error}\n{_ANOTHER_CLUSTER}"
                ) from error
            self._connected_here = True
        self._ray = ray


class _Actor:
    """A Ray actor and what it is to come to next."""

    def __init__(self, ray: Any, make_worker: MakeWorker[T, R], *, threads: int | None) -> None:
        self._ray = ray
        self._actor = ray.remote(_RayWorker).options(num_cpus=1).remote()
        self.pending = self._actor.build.remote(make_worker, threads)

    def give(self, task: Any) -> None:
        self.pending = self._actor.work.remote(task)

    def take(self) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(self.pending)
        except (errors.RayActorError, errors.WorkerCrashedError, errors.OutOfMemoryError) as death:
            raise _WorkerDied(f"was lost, Ray says ({type(death).__name__})", str(death)) from None
        except errors.RayError as error:  # such as a task or a result that cannot be sent
            return TaskError.of(error)

    def dismiss(self) -> None:
        self.kill()

    def kill(self) -> None:
        self._ray.kill(self._actor)


class _RayWorker:
    """What runs in a Ray actor."""

    def __init__(self) -> None:
        self._worker: Callable[[Any], Any] | None = None

    def build(self, make_worker: MakeWorker[Any, Any], threads: int | None) -> TaskError | None:
        """Build the worker; gives why that failed, where it did."""
        worker = _built(lambda: make_worker, threads)
        if isinstance(worker, TaskError):
            return worker
        self._worker = worker
        return None

    def work(self, task: Any) -> Any:
        """Work on a task."""
        if self._worker is None:
            raise WorkerError("the worker was given a task before it was built")
        return _attempt(self._worker, task)


def _check_that_it_listens(address: str) -> None:
    """Ray itself would try for minutes, and write of it to the terminal."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(
            f"a Ray cluster's address is 'host:port', 'ray://host:port', 'auto' or 'local', not {address!r}"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_CONNECT).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"the Ray cluster at {address!r} does not answer: {error}\n{_ANOTHER_CLUSTER}") from error
