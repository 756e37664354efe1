"""Which call the watchdog ends, and why."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.common.errors import CallTooLargeError, OverloadedError, StageDeadlineExceededError
from services.common.server import watchdog
from services.common.server.call_context import Call, set_current_call
from services.common.server.limits import WorkerPool
from services.common.server.watchdog import Watchdog


class Server:
    """Calls that wait in tasks of their own, and a process whose memory is what a test says."""

    def __init__(self) -> None:
        self.resident: int | None = 100
        self.pool = WorkerPool(num_threads=4, max_queued=4)
        self.ended: list[str] = []
        self.watchdog = Watchdog(
            [self.pool], max_idle_s=1000.0, max_memory_bytes=1000, memory=lambda: self.resident, on_ended=self.ended.append
        )
        self.tasks: list[asyncio.Task[Any]] = []

    async def call(self, name: str, *, charged: int = 0, awaits: bool = False) -> Call:
        call = Call("echo", name, charged_bytes=charged)

        async def serve() -> None:
            with self.watchdog.watching(call), suppress(asyncio.CancelledError):
                if awaits:
                    with call.awaited():
                        await asyncio.Event().wait()
                await asyncio.Event().wait()

        self.tasks.append(asyncio.create_task(serve()))
        await asyncio.sleep(0)
        return call

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.pool.shutdown()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with AsyncExitStack() as stack:
        server = Server()
        stack.push_async_callback(server.close)
        yield server


async def test_only_waiting_call_is_idle(server: Server) -> None:
    """Only a call that waits for its caller and computes nothing is idle."""
    waiting = await server.call("waiting", awaits=True)
    working = await server.call("working")
    computing = await server.call("computing", awaits=True)
    computing.begin_computation()
    recent = await server.call("recent", awaits=True)
    for call in (waiting, working, computing):
        call.active_at -= 1100.0
    recent.active_at -= 900.0
    server.watchdog.look()
    assert isinstance(waiting.failure, StageDeadlineExceededError)
    assert [call.failure for call in (working, computing, recent)] == [None, None, None]
    assert server.ended == ["STAGE_DEADLINE_EXCEEDED"]
    # The time of the computation is none of waiting.
    computing.end_computation()
    server.watchdog.look()
    assert computing.failure is None


async def test_suspended_time_does_not_count(server: Server) -> None:
    """The time in which this process did not run is not the caller's."""
    silent, heard, new = [await server.call(name, awaits=True) for name in ("silent", "heard", "new")]
    untaken = await server.call("untaken", awaits=True)
    silent.active_at -= 3200.0
    heard.active_at -= 2900.0
    with untaken.offered():
        assert untaken.offered_at is not None
        untaken.offered_at -= 2900.0
        server.watchdog.look(paused_s=2000.0)
        assert isinstance(silent.failure, StageDeadlineExceededError)
        assert [call.failure for call in (heard, new, untaken)] == [None, None, None]
        # Nothing is excused twice, nor in advance.
        for call in (heard, new):
            call.active_at -= 1001.0 if call is new else 200.0
        untaken.offered_at -= 200.0
        server.watchdog.look()
    assert all(isinstance(call.failure, StageDeadlineExceededError) for call in (heard, new, untaken))


async def test_sender_without_reading_is_idle(server: Server) -> None:
    """A caller that sends on and takes no answer is idle."""
    call = await server.call("writing")
    with call.offered():
        assert call.offered_at is not None
        call.offered_at -= 1100.0
        # A message that came meanwhile.
        with call.awaited():
            pass
        # Nor is the time of a computation that ran meanwhile one of waiting.
        before = call.offered_at
        call.begin_computation()
        server.watchdog.look()
        assert call.failure is None
        call.end_computation()
        server.watchdog.look()
        assert call.failure is None
        call.offered_at = before
        server.watchdog.look()
    assert isinstance(call.failure, StageDeadlineExceededError)


async def test_largest_idle_call_ends(server: Server) -> None:
    """Without a computation, the call that holds most is ended."""
    small, large = await server.call("small", charged=10), await server.call("large", charged=20)
    server.resident = 1000
    server.watchdog.look()
    assert (small.failure, large.failure) == (None, None)
    server.resident = 1001
    server.watchdog.look()
    assert small.failure is None
    assert isinstance(large.failure, CallTooLargeError)
    assert large.ended.is_set()


async def test_foreign_memory_logged_once(server: Server) -> None:
    """Memory that no call takes is logged once and ends no call."""
    call = await server.call("innocent")
    server.resident = 2000
    with capture_logs() as lines:
        server.watchdog.look()
        server.watchdog.look()
    assert call.failure is None
    assert [line["event"] for line in lines] == ["memory_over_limit"]


async def test_unfinished_messages_end(server: Server) -> None:
    """Memory that no call takes ends the calls whose messages do not arrive."""
    unfinished = [await server.call(name, awaits=True) for name in ("unfinished", "another")]
    recent, working = await server.call("recent", awaits=True), await server.call("working")
    taking = await server.call("taking", awaits=True)
    for call in (*unfinished, working, taking):
        call.active_at -= 2 * watchdog.UNFINISHED_S
    taking.offered_at = taking.active_at
    server.resident = 2000
    server.watchdog.look()
    assert [type(call.failure) for call in unfinished] == [OverloadedError, OverloadedError]
    assert [call.failure for call in (recent, working, taking)] == [None, None, None]
    assert "DUBSTAGE_MAX_MEMORY_BYTES" in str(unfinished[0].failure)
    # Further calls have the time in which the freed memory is given back.
    recent.active_at -= 2 * watchdog.UNFINISHED_S
    server.watchdog.look()
    assert recent.failure is None


async def test_second_call_ends_later(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """No second call is ended before the first one's computation had time to stop."""
    monkeypatch.setattr(watchdog, "RELIEF_S", 1000.0)
    monkeypatch.setattr(watchdog, "SETTLE_S", 0.0)
    first, second = await server.call("first", charged=20), await server.call("second", charged=10)
    free = asyncio.Event()
    loop = asyncio.get_running_loop()
    set_current_call(first)
    running = asyncio.create_task(server.pool.run(lambda: asyncio.run_coroutine_threadsafe(free.wait(), loop).result()))
    while not server.pool.computations:  # noqa: ASYNC110 - a thread begins
        await asyncio.sleep(0.001)
    server.resident = 2_000_000_000_000
    server.watchdog.look()
    server.watchdog.look()
    assert first.failure is not None
    assert second.failure is None
    free.set()
    await running
    while server.pool.computations:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    server.watchdog.look()
    assert second.failure is not None


async def test_newest_computation_ends_first(server: Server) -> None:
    """Among computations that ran side by side, the one that began last is ended."""
    older, newer = await server.call("older"), await server.call("newer")
    free = threading.Event()
    for count, (call, resident) in enumerate([(older, 100), (newer, 150)], start=1):
        set_current_call(call)
        server.tasks.append(asyncio.create_task(server.pool.run(free.wait, 60)))
        while len(server.pool.computations) < count:  # noqa: ASYNC110 - a thread begins
            await asyncio.sleep(0.001)
        for computation in server.pool.computations:
            if computation.call is call:
                computation.resident_bytes = resident
    server.resident = 2000
    server.watchdog.look()
    # The time of the ended call counts for no other call while its computation stops.
    server.watchdog.look()
    free.set()
    assert older.failure is None
    assert isinstance(newer.failure, CallTooLargeError)


async def test_unknown_memory_ends_no_call(server: Server) -> None:
    """No call is ended if the platform does not say how much memory is taken."""
    call = await server.call("any", charged=10)
    server.resident = None
    server.watchdog.look()
    assert call.failure is None
