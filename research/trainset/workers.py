"""Work in several processes, where the death of a process costs one task and nothing else."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

Start = Callable[[], AbstractContextManager[Callable[[T], R]]]
"""Opens what a process needs, and yields the function that does a task. Another process imports it by its name."""


@dataclass(frozen=True, slots=True)
class WorkerDiedError:
    """A process that ended in the middle of a task.

    Attributes:
        exit_code: exit code of the process; negative: the signal that ended it.
    """

    exit_code: int

    def __str__(self) -> str:
        how = f"by signal {-self.exit_code}" if self.exit_code < 0 else f"with code {self.exit_code}"
        return f"the process that read it ended {how}: the file is damaged, or the memory is too small"


def in_processes(tasks: Iterable[T], processes: int, start: Start[T, R]) -> Iterator[tuple[T, R | WorkerDiedError]]:
    """Yield each task with its result, in the order in which tasks are finished. Tasks are drawn when a process is free.

    Args:
        tasks: the tasks; they and their results can be pickled.
        processes: number of processes; 0: this process.
        start: opens what a process needs. It is called once a process, before the first task.

    Raises:
        Exception: what a task raised.
    """
    if processes == 0:
        with start() as work:
            yield from ((task, work(task)) for task in tasks)
        return
    pool = _Pool(start)
    try:
        waiting = iter(tasks)
        for task in islice(waiting, processes):
            pool.give(pool.hire(), task)
        while pool.busy:
            for worker, done, result in pool.finished():
                if isinstance(result, Exception):
                    raise result
                following = list(islice(waiting, 1))
                if following:
                    pool.give(pool.hire() if isinstance(result, WorkerDiedError) else worker, following[0])
                yield done, result
    finally:
        pool.end()


@dataclass(frozen=True, slots=True, eq=False)
class _Worker:
    process: BaseProcess
    connection: Connection[Any, Any]


class _Pool(Generic[T, R]):
    def __init__(self, start: Start[T, R]) -> None:
        self._start, self._context = start, get_context("spawn")
        self._hired: list[_Worker] = []
        self.busy: dict[_Worker, T] = {}

    def hire(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._start), daemon=True)
        process.start()
        theirs.close()
        self._hired.append(_Worker(process, ours))
        return self._hired[-1]

    def give(self, worker: _Worker, task: T) -> None:
        self.busy[worker] = task
        # `finished` reports a dead process.
        with suppress(OSError):
            worker.connection.send(task)

    def finished(self) -> Iterator[tuple[_Worker, T, R | WorkerDiedError | Exception]]:
        """Wait, and yield each worker that has finished its task, with the task and its result."""
        ready = wait([worker.connection for worker in self.busy])
        for worker in [worker for worker in self.busy if worker.connection in ready]:
            try:
                result = worker.connection.recv()
            except (EOFError, OSError):
                worker.process.join()
                result = WorkerDiedError(worker.process.exitcode or 0)
            yield worker, self.busy.pop(worker), result

    def end(self) -> None:
        """End all processes: idle ones at the end of their input, busy ones at once."""
        for worker in self._hired:
            worker.connection.close()
            if worker in self.busy:
                worker.process.terminate()
        for worker in self._hired:
            worker.process.join()


def _serve(connection: Connection[Any, Any], start: Start[Any, Any]) -> None:
    """Do tasks until the other end is closed."""
    # Ctrl-C reaches all processes of a terminal. The first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with start() as work:
        while True:
            try:
                task = connection.recv()
            except (EOFError, OSError):
                return
            try:
                result = work(task)
            except Exception as problem:
                result = problem
            try:
                connection.send(result)
            except OSError:
                return
