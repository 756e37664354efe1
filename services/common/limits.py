"""Back-pressure: how many calls a server takes at once, and how much computation waits for its worker threads."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from services.common import calls
from services.common.errors import BackendUnavailable, ModelNotReady, Overloaded, TransientError
from services.common.load import Load, resident_bytes

P = ParamSpec("P")
T = TypeVar("T")


class Admission:
    """Lets `max_active` calls run and `max_queued` wait in order; refuses the rest at once.

    Closed until `open()`: before warm-up nothing is served. After `close()` no more come in, and those that wait or run
    go on. Used from one event loop only.
    """

    def __init__(self, *, max_active: int, max_queued: int, retry_after_s: float = 1.0) -> None:
        self._capacity = max_active + max_queued
        self._slots = asyncio.Semaphore(max_active)
        self._retry_after_s = retry_after_s
        self._present = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._refusal: TransientError | None = ModelNotReady("the stage is still warming up")
        self.load = Load()
        """Calls that wait and run."""
        self.on_admitted: Callable[[float], None] = lambda wait_s: None
        """Told how long each call waited."""

    def open(self) -> None:
        """Begin to admit calls."""
        self._refusal = None

    def close(self) -> None:
        """Admit no more calls."""
        self._refusal = BackendUnavailable("the stage is shutting down")

    async def idle(self) -> None:
        """Wait until no call runs or waits."""
        await self._idle.wait()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold one of the active places.

        Raises:
            ModelNotReady: not open yet.
            BackendUnavailable: closed.
            Overloaded: all places and the whole queue are taken.
        """
        if self._refusal is not None:
            raise type(self._refusal)(self._refusal.message, retry_after_s=self._retry_after_s)
        if self._present >= self._capacity:
            raise Overloaded(f"the stage already has {self._present} calls, as many as it takes", retry_after_s=self._retry_after_s)
        self._present += 1
        self._idle.clear()
        try:
            arrived = time.perf_counter()
            self.load.arrive()
            try:
                await self._slots.acquire()
            except BaseException:
                self.load.give_up()
                raise
            self.load.start()
            self.on_admitted(time.perf_counter() - arrived)
            try:
                yield
            finally:
                self._slots.release()
                self.load.finish()
        finally:
            self._present -= 1
            if not self._present:
                self._idle.set()


@dataclass(eq=False, slots=True)
class Computation:
    """What one worker thread computes.

    Attributes:
        call: that it is for; None where it is for none.
        resident_bytes: memory of the process when it began, or after another call was ended for its memory; None where the platform
            does not say.
        began_at: instant of `time.monotonic()`.
    """

    call: calls.Call | None
    resident_bytes: int | None
    began_at: float = field(default_factory=time.monotonic)


class WorkerPool:
    """Threads for heavy work, so that the event loop stays free, with a bounded queue before them.

    Args:
        num_threads: computations that run at once; 1 keeps a stage's memory and its order of work plain.
        max_queued: computations that may wait for a thread.
        name: of the threads, and of the pool in metrics.
    """

    def __init__(self, *, num_threads: int, max_queued: int, name: str = "worker") -> None:
        self.name = name
        self.load = Load()
        """Computations that wait and run."""
        self.on_computed: Callable[[float, float], None] = lambda wait_s, compute_s: None
        """Told of each computation that ran: how long it waited and how long it took; called in its thread."""
        self._executor = ThreadPoolExecutor(num_threads, thread_name_prefix=name)
        self._capacity = num_threads + max_queued
        self._pending = 0
        self._running: set[Computation] = set()
        self._lock = threading.Lock()

    @property
    def pending(self) -> int:
        """Computations that run or wait now."""
        return self._pending

    @property
    def computations(self) -> tuple[Computation, ...]:
        """What the threads compute now."""
        with self._lock:
            return tuple(self._running)

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` in a worker thread, in a copy of this context (log fields, trace, current call).

        A cancelled wait takes the computation out of the queue, and one whose call is over does not begin; one that runs
        already goes on to its end or to its next `calls.check_still_wanted()`, and keeps its place until then.

        Raises:
            Overloaded: the queue is full.
            Cancelled: the call was over before the computation began.
        """
        with self._lock:
            if self._pending >= self._capacity:
                raise Overloaded(f"{self._pending} computations run or wait already, as many as the stage takes")
            self._pending += 1
        context = contextvars.copy_context()
        call = calls.current_call()
        arrived = time.perf_counter()

        def compute() -> T:
            self.load.start()
            began = time.perf_counter()
            computation = Computation(call, resident_bytes())
            with self._lock:
                self._running.add(computation)
            try:
                context.run(calls.check_still_wanted)
                return context.run(function, *args, **kwargs)
            finally:
                with self._lock:
                    self._running.discard(computation)
                self.load.finish()
                self.on_computed(began - arrived, time.perf_counter() - began)

        self.load.arrive()
        if call is not None:
            call.begin_computation()
        try:
            future = self._executor.submit(compute)
        except RuntimeError:
            self._leave(call)
            self.load.give_up()
            raise
        future.add_done_callback(lambda done: self._leave(call, done))
        return await asyncio.wrap_future(future)

    def shutdown(self) -> None:
        """Drop what waits; what runs goes on (see `pending`)."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _leave(self, call: calls.Call | None, future: Future[T] | None = None) -> None:
        if call is not None:
            call.end_computation()
        if future is not None and future.cancelled():
            self.load.give_up()
        with self._lock:
            self._pending -= 1
