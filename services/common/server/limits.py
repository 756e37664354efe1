"""Back-pressure: how many calls a server takes at once, how much work waits for its threads, and how busy both are."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from services.common.errors import BackendUnavailableError, ModelNotReadyError, OverloadedError, TransientError
from services.common.server import call_context
from services.common.server.call_context import current_caller
from services.common.server.resources import resident_bytes

WINDOW_SECONDS: Final = 60.0
"""Length of the ratio's window: long enough to be calm, short enough that an autoscaler sees a burst."""
LEAST_COMPUTED_SECONDS: Final = 1.0
"""Smallest divisor of a ratio, so that a few milliseconds of work in a quiet minute are no load."""
_SAMPLE_SECONDS: Final = 1.0
_RETRY_AFTER_S: Final = 1.0
"""Seconds after which a refused call may come again."""
P = ParamSpec("P")
T = TypeVar("T")


class ResourceUse(NamedTuple):
    """Seconds of a window, summed over all work that waited and over all work that was computed."""

    waited_s: float
    computed_s: float

    @property
    def ratio(self) -> float:
        """Seconds waited per second computed; 0 where no work waited."""
        return self.waited_s / max(self.computed_s, LEAST_COMPUTED_SECONDS)


class Load:
    """Counts waiting and running work, and sums both over time. Safe for several threads.

    Work counts while it waits, not only after it was served: a queue that does not move shows at once.

    Args:
        clock: returns seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._queued = 0
        self._running = 0
        self._at = clock()
        self._total = ResourceUse(0.0, 0.0)
        # These are totals at earlier times: at most one per second, and one from before the window.
        self._history: deque[tuple[float, ResourceUse]] = deque([(self._at, self._total)])

    @property
    def queued(self) -> int:
        """Amount of work that waits now."""
        return self._queued

    @property
    def running(self) -> int:
        """Amount of work that runs now."""
        return self._running

    def arrive(self) -> None:
        """Note that work began to wait."""
        self._change(queued=1)

    def give_up(self) -> None:
        """Note that waiting work left without having run."""
        self._change(queued=-1)

    def start(self) -> None:
        """Note that waiting work begins to run."""
        self._change(queued=-1, running=1)

    def finish(self) -> None:
        """Note that running work has ended."""
        self._change(running=-1)

    def waited_inside(self, seconds: float) -> None:
        """Count seconds of running work as waiting: the work waited for a server that computes for it.

        Args:
            seconds: summed over all work; at most what has been counted as computed so far.
        """
        with self._lock:
            self._advance(self._clock())
            seconds = min(max(0.0, seconds), self._total.computed_s)
            self._total = ResourceUse(self._total.waited_s + seconds, self._total.computed_s - seconds)

    def lately(self) -> ResourceUse:
        """Return the seconds waited and computed in the last WINDOW_SECONDS, or since the beginning where that is shorter."""
        with self._lock:
            now = self._clock()
            self._advance(now)
            begin = now - WINDOW_SECONDS
            (time_a, a), (time_b, b) = self._history[0], self._history[1] if len(self._history) > 1 else (now, self._total)
            share = min(1.0, max(0.0, (begin - time_a) / (time_b - time_a))) if time_b > time_a else 0.0
            before = ResourceUse(
                a.waited_s + share * (b.waited_s - a.waited_s), a.computed_s + share * (b.computed_s - a.computed_s)
            )
            return ResourceUse(self._total.waited_s - before.waited_s, self._total.computed_s - before.computed_s)

    def _change(self, *, queued: int = 0, running: int = 0) -> None:
        with self._lock:
            self._advance(self._clock())
            self._queued += queued
            self._running += running

    def _advance(self, now: float) -> None:
        passed = now - self._at
        self._total = ResourceUse(self._total.waited_s + self._queued * passed, self._total.computed_s + self._running * passed)
        self._at = now
        if now - self._history[-1][0] >= _SAMPLE_SECONDS:
            self._history.append((now, self._total))
        while len(self._history) > 1 and self._history[1][0] <= now - WINDOW_SECONDS:
            self._history.popleft()


class Admission:
    """Lets `max_active` calls run and `max_queued` calls wait in order, and refuses further calls at once.

    Before `open()` no call is admitted. After `close()` no further call is admitted, and calls that wait or run go on. Use the
    object from one event loop only.

    Args:
        max_active: most calls that run.
        max_queued: most calls that wait.
        most_of_tenant: most calls of one tenant that run or wait; None: one tenant may have all slots.
    """

    def __init__(self, *, max_active: int, max_queued: int, most_of_tenant: int | None = None) -> None:
        self._capacity = max_active + max_queued
        self._most_of_tenant = most_of_tenant
        self._of_tenant: Counter[str] = Counter()
        self._slots = asyncio.Semaphore(max_active)
        self._present = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._refusal: TransientError | None = ModelNotReadyError("the stage is still warming up")
        self.load = Load()
        """Load by calls that wait and run."""
        self.on_admitted: Callable[[float], None] = lambda wait_s: None
        """Called with the seconds that each call waited."""

    def open(self) -> None:
        """Begin to admit calls."""
        self._refusal = None

    def close(self) -> None:
        """Admit no more calls."""
        self._refusal = BackendUnavailableError("the stage is shutting down")

    async def idle(self) -> None:
        """Wait until no call runs or waits."""
        await self._idle.wait()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold one of the active slots for the current caller while the block runs.

        Raises:
            ModelNotReadyError: `open()` has not been called yet.
            BackendUnavailableError: `close()` has been called.
            OverloadedError: all slots and the whole queue are taken, or the caller's tenant has as many calls as one tenant may
                have.
        """
        if self._refusal is not None:
            raise type(self._refusal)(self._refusal.message, retry_after_s=_RETRY_AFTER_S)
        if self._present >= self._capacity:
            raise OverloadedError(f"the stage already has {self._present} calls, as many as it takes", retry_after_s=_RETRY_AFTER_S)
        tenant = current_caller().tenant
        if self._most_of_tenant is not None and self._of_tenant[tenant] >= self._most_of_tenant:
            raise OverloadedError(
                f"tenant {tenant} already has {self._most_of_tenant} calls, as many as one tenant may have",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._present += 1
        self._of_tenant[tenant] += 1
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
            self._of_tenant[tenant] -= 1
            if not self._present:
                self._idle.set()


class FirstMessages:
    """Byte budget for the first messages of calls, which arrive while nothing is known of the calls but their headers.

    The size of a message is not known before the message is there, so each message counts as a largest one. Calls without a slot
    wait in order, and gRPC takes no more than their first bytes meanwhile. Use the object from one event loop only.

    Args:
        budget_bytes: most bytes of all messages that arrive at the same time.
        message_bytes: size of the largest message, bytes. At least two messages may arrive at the same time.
        shared_by_tenant: whether one tenant may have at most half of the slots, rounded up. Otherwise one client address may:
            behind a proxy, all tenants have one address.
    """

    def __init__(self, *, budget_bytes: int, message_bytes: int, shared_by_tenant: bool = False) -> None:
        self.num_slots = max(2, budget_bytes // message_bytes)
        """Most first messages that arrive at the same time."""
        self._slots = asyncio.Semaphore(self.num_slots)
        self._share = (self.num_slots + 1) // 2
        self._shared_by_tenant = shared_by_tenant
        self._slots_of: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def acquire(self, host: str) -> Callable[[], None]:
        """Wait for a slot for the current caller. Return the function that gives the slot back.

        Args:
            host: address of the caller.
        """
        group = f"tenant {current_caller().tenant}" if self._shared_by_tenant else f"host {host}"
        # A caller over its share waits outside, and keeps no slot from others.
        wanted = [self._slots_of.setdefault(group, asyncio.Semaphore(self._share)), self._slots]
        acquired: list[asyncio.Semaphore] = []

        def release() -> None:
            while acquired:
                acquired.pop().release()

        try:
            for slots in wanted:
                await slots.acquire()
                acquired.append(slots)
        except BaseException:
            release()
            raise
        return release


@dataclass(eq=False, slots=True)
class Computation:
    """Computation in one worker thread.

    Attributes:
        call: the call that the computation serves; None where there is no call.
        resident_bytes: memory of the process at the beginning, or after another call was ended for its memory; None where the
            platform does not say.
        began_at: instant of `time.monotonic()`.
    """

    call: call_context.Call | None
    resident_bytes: int | None
    began_at: float = field(default_factory=time.monotonic)


class WorkerPool:
    """Threads for heavy work, so that the event loop stays free, with a bounded queue.

    Args:
        num_threads: computations that run at once.
        max_queued: computations that may wait for a thread, before a further call is refused; and calls that may wait for a slot.
        name: name of the threads, and of the pool in metrics.
    """

    def __init__(self, *, num_threads: int, max_queued: int, name: str = "worker") -> None:
        self.name = name
        self.load = Load()
        """Load by computations that wait and run."""
        self.on_computed: Callable[[float, float], None] = lambda wait_s, compute_s: None
        """Called for each computation that ran, in its thread, with the seconds that it waited and the seconds that it ran."""
        self._executor = ThreadPoolExecutor(num_threads, thread_name_prefix=name)
        self._capacity = num_threads + max_queued
        self._slots = asyncio.Semaphore(num_threads)
        self._in_slots = 0
        self._pending = 0
        self._running: set[Computation] = set()
        self._lock = threading.Lock()

    @property
    def pending(self) -> int:
        """Number of computations that run or wait now."""
        return self._pending

    @property
    def computations(self) -> tuple[Computation, ...]:
        """Computations that run now."""
        with self._lock:
            return tuple(self._running)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold one of `num_threads` slots for the current call while the block runs, so that calls of many computations follow each
        other and do not take turns. Calls wait in order. Use the slots from one event loop only.

        Raises:
            OverloadedError: all slots and the whole queue are taken.
        """
        if self._in_slots >= self._capacity:
            raise OverloadedError(
                f"{self._in_slots} calls run or wait already, as many as the stage takes", retry_after_s=_RETRY_AFTER_S
            )
        call = call_context.current_call()
        self._in_slots += 1
        try:
            self.load.arrive()
            if call is not None:
                call.begin_computation()
            try:
                await self._slots.acquire()
            finally:
                self.load.give_up()
                if call is not None:
                    call.end_computation()
            try:
                yield
            finally:
                self._slots.release()
        finally:
            self._in_slots -= 1

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` in a worker thread, in a copy of this context (log fields, trace, current call).

        A cancelled wait makes room in the queue, and lets go of the function and its arguments: until a thread comes to it, only an
        empty entry of 5 kB is left. A computation whose call is over does not begin. A running computation goes on to its end
        or to its next `call_context.check_not_cancelled()`, and keeps its thread until then.

        Raises:
            OverloadedError: the queue is full, and this is the call's first computation. Further ones are not refused: the server
                bounds the number of calls.
            WorkCancelledError: the call was over before the computation began.
        """
        call = call_context.current_call()
        with self._lock:
            if self._pending >= self._capacity and not (call is not None and call.is_admitted):
                raise OverloadedError(f"{self._pending} computations run or wait already, as many as the stage takes")
            self._pending += 1
        context = contextvars.copy_context()
        arrived = time.perf_counter()

        def work() -> T:
            context.run(call_context.check_not_cancelled)
            return context.run(function, *args, **kwargs)

        # The executor keeps cancelled entries until a thread comes to them. Arguments of megabytes must not wait so long.
        waiting = [work]

        def compute() -> T:
            self.load.start()
            began = time.perf_counter()
            computation = Computation(call, resident_bytes())
            with self._lock:
                self._running.add(computation)
            try:
                return waiting.pop()()
            finally:
                with self._lock:
                    self._running.discard(computation)
                self.load.finish()
                self.on_computed(began - arrived, time.perf_counter() - began)

        def leave(done: Future[T]) -> None:
            if done.cancelled():
                waiting.clear()
                self.load.give_up()
            self._leave(call)

        self.load.arrive()
        if call is not None:
            call.begin_computation()
        try:
            future = self._executor.submit(compute)
        except RuntimeError:
            self._leave(call)
            self.load.give_up()
            raise
        future.add_done_callback(leave)
        return await asyncio.wrap_future(future)

    def shutdown(self) -> None:
        """Drop computations that wait. Running computations go on (see `pending`)."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _leave(self, call: call_context.Call | None) -> None:
        if call is not None:
            call.end_computation()
        with self._lock:
            self._pending -= 1


def most_waiting(max_queued: int, num_threads: int, max_concurrent_rpcs: int) -> int:
    """Return how many personalisations may wait. All of them hold slots of calls, and leave half of these slots to shorter calls.

    Args:
        max_queued: largest number by the settings.
        num_threads: personalisations that run at the same time.
        max_concurrent_rpcs: slots of calls.
    """
    return min(max_queued, max(0, max_concurrent_rpcs // 2 - num_threads))
