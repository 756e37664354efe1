from __future__ import annotations

import asyncio
import contextvars
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from services.common.errors import BackendUnavailableError, ModelNotReadyError, OverloadedError
from services.common.server import call_context
from services.common.server.call_context import acting_for
from services.common.server.limits import (
    LEAST_COMPUTED_SECONDS,
    WINDOW_SECONDS,
    Admission,
    FirstMessages,
    Load,
    WorkerPool,
    most_waiting,
)
from services.common.server.resources import resident_bytes


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def load(clock: Clock) -> Load:
    return Load(clock)


def test_an_idle_queue_has_a_ratio_of_zero(load: Load, clock: Clock) -> None:
    clock.now += 500
    assert load.lately() == (0.0, 0.0)
    assert load.lately().ratio == 0.0


def test_unqueued_work_has_ratio_zero(load: Load, clock: Clock) -> None:
    """Work that never waits has a ratio of zero however busy the workers are."""
    load.arrive()
    load.start()
    clock.now += 30
    assert load.lately() == (0.0, 30.0)
    assert load.lately().ratio == 0.0
    assert (load.queued, load.running) == (0, 1)


def test_waiting_seconds_are_summed(load: Load, clock: Clock) -> None:
    """Seconds are summed over everything that waits while it waits."""
    for _ in range(4):
        load.arrive()
    load.start()
    clock.now += 10
    assert load.lately() == (30.0, 10.0)
    assert load.lately().ratio == 3.0
    load.give_up()
    clock.now += 10
    assert load.lately() == (50.0, 20.0)


def test_only_the_window_counts(load: Load, clock: Clock) -> None:
    for _ in range(2):
        load.arrive()
    load.start()
    clock.now += 20
    load.finish()
    load.start()
    clock.now += 20
    load.finish()
    assert load.lately() == (20.0, 40.0)
    clock.now += WINDOW_SECONDS - 30
    # The first ten seconds, in which one waited and one ran, are over.
    assert load.lately() == pytest.approx((10.0, 30.0))
    clock.now += WINDOW_SECONDS
    assert load.lately() == pytest.approx((0.0, 0.0))


def test_many_short_computations_in_window(load: Load, clock: Clock) -> None:
    """A window of many short computations is right to a second."""
    for _ in range(20_000):
        load.arrive()
        clock.now += 0.004
        load.start()
        clock.now += 0.006
        load.finish()
    waited, computed = load.lately()
    assert waited == pytest.approx(0.4 * WINDOW_SECONDS, abs=1.0)
    assert computed == pytest.approx(0.6 * WINDOW_SECONDS, abs=1.0)


def test_stuck_queue_shows(load: Load, clock: Clock) -> None:
    """A queue that does not move at all shows."""
    load.arrive()
    clock.now += 45
    assert load.lately().ratio == 45 / LEAST_COMPUTED_SECONDS


@pytest.mark.skipif(resident_bytes() is None, reason="the platform does not say how much memory a process has")
def test_memory_that_is_written_to_is_resident() -> None:
    # In a process of its own: this one may give memory of other tests back between the two looks.
    code = (
        "from services.common.server.resources import resident_bytes\n"
        "before = resident_bytes()\n"
        "held = b'x' * (24 << 20)\n"
        "print(resident_bytes() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert int(done.stdout) > 12 << 20


async def test_admission_opens_and_closes() -> None:
    """Admission is closed until it is opened and after it is closed."""
    admission = Admission(max_active=1, max_queued=0)
    with pytest.raises(ModelNotReadyError):
        async with admission.slot():
            pass
    admission.open()
    async with admission.slot():
        admission.close()
        with pytest.raises(BackendUnavailableError):
            async with admission.slot():
                pass
        idle = asyncio.create_task(admission.idle())
        await asyncio.sleep(0)
        assert not idle.done()
    await asyncio.wait_for(idle, 60)


async def test_waiting_calls_keep_order() -> None:
    """Waiting calls run in the order of their arrival."""
    admission = Admission(max_active=1, max_queued=3)
    admission.open()
    order: list[int] = []

    async def call(number: int) -> None:
        async with admission.slot():
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(call(number) for number in range(4)))
    assert order == [0, 1, 2, 3]


async def test_tenant_call_limit() -> None:
    """A tenant with as many calls as one may have is refused and others are admitted."""
    admission = Admission(max_active=4, max_queued=4, most_of_tenant=2)
    admission.open()

    async def call() -> None:
        async with admission.slot():
            pass

    with acting_for("acme"):
        async with admission.slot():
            await call()
            async with admission.slot():
                with pytest.raises(OverloadedError, match=r"tenant acme .* 2 calls") as caught:
                    await call()
                assert caught.value.retry_after_s > 0
                with acting_for("bolt"):
                    await call()
            await call()


async def begun(messages: FirstMessages, host: str, tenant: str = "acme") -> asyncio.Task[Callable[[], None]]:
    """Ask for a place for a first message. The task is done where the message may arrive."""
    with acting_for(tenant):
        task = asyncio.create_task(messages.acquire(host))
    for _ in range(4):
        await asyncio.sleep(0)
    return task


async def test_address_shares_budget() -> None:
    """First messages of one address leave places to another and never exceed the budget."""
    messages = FirstMessages(budget_bytes=100, message_bytes=24)
    assert messages.num_slots == 4
    own = [await begun(messages, "a") for _ in range(3)]
    assert [task.done() for task in own] == [True, True, False]
    others = [await begun(messages, host) for host in ("b", "c", "d")]
    assert [task.done() for task in others] == [True, True, False]
    # A caller that leaves while it waits keeps no place.
    own[2].cancel()
    own[0].result()()
    await asyncio.sleep(0.01)
    assert others[2].done()
    assert not (await begun(messages, "e")).done()


async def test_tenant_shares_budget() -> None:
    """First messages of one tenant leave places to another."""
    messages = FirstMessages(budget_bytes=100, message_bytes=24, shared_by_tenant=True)
    acme = [await begun(messages, host) for host in ("a", "b", "c")]
    assert [task.done() for task in acme] == [True, True, False]
    assert (await begun(messages, "a", "studio")).done()
    acme[0].result()()
    await asyncio.sleep(0.01)
    assert acme[2].done()


def test_two_large_messages_may_arrive() -> None:
    """Two first messages may arrive however large a message is."""
    assert FirstMessages(budget_bytes=100, message_bytes=1000).num_slots == 2


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    """A pool of one thread, with room for one waiting computation."""
    made = WorkerPool(num_threads=1, max_queued=1)
    yield made
    made.shutdown()


async def test_pool_queue_limit(pool: WorkerPool) -> None:
    """The pool refuses what is over its queue and takes more when there is room."""
    may_end = threading.Event()
    waiting = [asyncio.create_task(pool.run(may_end.wait, 60)) for _ in range(2)]
    await asyncio.sleep(0)
    assert pool.pending == 2
    with pytest.raises(OverloadedError):
        await pool.run(may_end.wait)
    may_end.set()
    assert await asyncio.gather(*waiting) == [True, True]
    assert await pool.run(divmod, 7, 2) == (3, 1)


async def test_pool_finishes_begun_calls(pool: WorkerPool) -> None:
    """A full pool refuses a call before the call's first computation, and not after that."""
    call_context.set_current_call(call := call_context.Call(stage="echo", rpc="Echo/Stream"))
    assert await pool.run(divmod, 7, 2) == (3, 1)
    call_context.set_current_call(None)
    may_end = threading.Event()
    waiting = [asyncio.create_task(pool.run(may_end.wait, 60)) for _ in range(2)]
    await asyncio.sleep(0)
    call_context.set_current_call(call)
    waiting.append(asyncio.create_task(pool.run(may_end.wait, 60)))
    await asyncio.sleep(0)
    assert pool.pending == 3
    call_context.set_current_call(call_context.Call(stage="echo", rpc="Echo/Stream"))
    with pytest.raises(OverloadedError):
        await pool.run(may_end.wait)
    may_end.set()
    assert await asyncio.gather(*waiting) == [True] * 3


async def test_pool_slots_keep_order(pool: WorkerPool) -> None:
    """Calls of several computations follow each other, count as waiting, and leave the queue when they are cancelled."""
    order: list[int] = []

    async def call(number: int) -> None:
        async with pool.slot():
            for _ in range(3):
                await pool.run(order.append, number)

    first, cancelled = asyncio.create_task(call(0)), asyncio.create_task(call(1))
    await asyncio.sleep(0)
    assert pool.load.queued >= 1
    with pytest.raises(OverloadedError):
        await call(9)
    cancelled.cancel()
    await asyncio.wait({cancelled})
    await asyncio.gather(first, call(2))
    assert order == [0, 0, 0, 2, 2, 2]
    assert (pool.load.queued, pool.load.running) == (0, 0)


async def test_a_cancelled_wait_leaves_the_queue(pool: WorkerPool) -> None:
    began, may_end = threading.Event(), threading.Event()
    ran: list[bool] = []

    def work() -> None:
        began.set()
        may_end.wait(60)

    running = asyncio.create_task(pool.run(work))
    queued = asyncio.create_task(pool.run(ran.append, True))
    while not began.is_set() or pool.pending < 2:  # noqa: ASYNC110 - a thread begins
        await asyncio.sleep(0.001)
    queued.cancel()
    with pytest.raises(asyncio.CancelledError):
        await queued
    assert pool.pending == 1
    may_end.set()
    await running
    await pool.run(lambda: None)
    assert ran == []


async def test_cancelled_wait_frees_arguments(pool: WorkerPool) -> None:
    """A cancelled wait lets go of its arguments while every thread is busy."""
    may_end = threading.Event()
    running = asyncio.create_task(pool.run(may_end.wait, 60))
    await asyncio.sleep(0)
    frames = np.zeros(3)
    kept = weakref.ref(frames)
    queued = asyncio.create_task(pool.run(np.sum, frames))
    await asyncio.sleep(0)
    queued.cancel()
    await asyncio.wait({queued})
    del queued, frames
    gc.collect()
    assert kept() is None
    may_end.set()
    assert await running


async def test_worker_context_and_error(pool: WorkerPool) -> None:
    """A worker sees the context of its call and its error comes back."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    variable.set("mine")
    assert await pool.run(variable.get) == "mine"
    with pytest.raises(ZeroDivisionError):
        await pool.run(divmod, 1, 0)
    assert pool.pending == 0


@pytest.mark.parametrize(("queued", "threads", "slots", "waiting"), [(4, 1, 8, 3), (100, 1, 8, 3), (2, 1, 64, 2), (4, 4, 4, 0)])
def test_half_of_the_slots_stay_free(queued: int, threads: int, slots: int, waiting: int) -> None:
    """Waiting personalisations hold slots of calls."""
    assert most_waiting(queued, threads, slots) == waiting
