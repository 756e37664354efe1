from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from gateway.async_utilities import ReadAhead, entered_in_threads, gather_all, in_thread, settle_all


class Source:
    """Counts what is read of it, and whether it was closed."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.count = count
        self.error = error
        self.read = 0
        self.closed = False

    async def items(self) -> AsyncIterator[int]:
        try:
            for number in range(self.count):
                self.read += 1
                yield number
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True


async def test_items_come_in_order() -> None:
    assert [item async for item in ReadAhead(Source(9).items(), 2)] == list(range(9))


async def test_no_more_is_read_than_may_wait() -> None:
    source = Source(100)
    ahead = ReadAhead(source.items(), 2)
    assert await anext(ahead) == 0
    for _ in range(20):
        await asyncio.sleep(0)
    assert source.read <= 4
    await ahead.aclose()


async def test_closing_closes_the_source() -> None:
    source = Source(100)
    ahead = ReadAhead(source.items(), 2)
    await anext(ahead)
    await ahead.aclose()
    assert source.closed


async def test_close_ends_waiting_task() -> None:
    """Closing ends the items for a task that waits for the next one, and closes the source at once."""
    may_go_on = asyncio.Event()
    closed: list[bool] = []

    async def slow() -> AsyncIterator[int]:
        try:
            yield 1
            await may_go_on.wait()
            yield 2
        finally:
            closed.append(True)

    async def send() -> list[int]:
        return [item async for item in ahead]

    ahead = ReadAhead(slow(), 2)
    sender = asyncio.create_task(send())  # As gRPC, which reads requests in a task of its own.
    for _ in range(20):
        await asyncio.sleep(0)
    await ahead.aclose()
    assert closed == [True]
    assert await asyncio.wait_for(sender, 60) == [1]


async def test_twice_cancelled_close_completes() -> None:
    """A close that is cancelled twice still waits for the thread and closes the source."""
    began, may_end = threading.Event(), threading.Event()
    events: list[str] = []

    def work() -> None:
        began.set()
        may_end.wait(60)
        events.append("the thread ended")

    async def frames() -> AsyncIterator[int]:
        try:
            await in_thread(work)
            yield 1
        finally:
            events.append("the source closed")

    ahead = ReadAhead(frames(), 2)

    async def first() -> int:
        return await anext(ahead)

    reading = asyncio.create_task(first())
    while not began.is_set():  # noqa: ASYNC110 - a thread begins
        await asyncio.sleep(0.001)
    closing = asyncio.create_task(ahead.aclose())
    for _ in range(3):
        await asyncio.sleep(0.01)
        closing.cancel()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert events == ["the thread ended", "the source closed"]
    with pytest.raises(StopAsyncIteration):
        await reading


async def test_cancelled_source_frees_reader() -> None:
    """A source that is cancelled does not leave its reader waiting."""

    async def cancelled() -> AsyncIterator[int]:
        yield 1
        raise asyncio.CancelledError

    ahead = ReadAhead(cancelled(), 2)
    assert await anext(ahead) == 1
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(anext(ahead), 60)


async def test_an_error_comes_after_the_items_before_it() -> None:
    ahead = ReadAhead(Source(2, ValueError("broken")).items(), 5)
    assert [await anext(ahead), await anext(ahead)] == [0, 1]
    with pytest.raises(ValueError, match="broken"):
        await anext(ahead)
    # The error is told once.
    with pytest.raises(StopAsyncIteration):
        await anext(ahead)


async def test_cancelled_wait_awaits_thread() -> None:
    """Work in a thread has ended when its cancelled wait returns."""
    ended: list[bool] = []
    began, may_end = threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        may_end.wait(60)
        ended.append(True)

    task = asyncio.create_task(in_thread(work))
    while not began.is_set():  # noqa: ASYNC110 - a thread begins
        await asyncio.sleep(0.001)
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=0.05)
    assert not done, "it waits for the thread"
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]


async def test_cancelled_entry_is_undone() -> None:
    """A context manager that is entered while its task is cancelled is left again."""
    steps: list[str] = []
    began, may_end = threading.Event(), threading.Event()

    @contextmanager
    def lasting() -> Iterator[None]:
        began.set()
        may_end.wait(60)
        steps.append("entered")
        try:
            yield
        finally:
            steps.append("left")

    async def work() -> None:
        async with entered_in_threads(lasting()):
            steps.append("worked")

    task = asyncio.create_task(work())
    while not began.is_set():  # noqa: ASYNC110 - a thread begins
        await asyncio.sleep(0.001)
    task.cancel()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps == ["entered", "left"]


async def test_first_error_ends_others() -> None:
    """The first error of tasks that run together ends the others and is raised after they ended."""
    begun, ended = asyncio.Event(), []

    async def lasting() -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            ended.append("lasting")

    async def failing() -> None:
        await begun.wait()
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await gather_all([lasting(), failing()])
    assert ended == ["lasting"]


async def test_cancelled_wait_ends_all_tasks() -> None:
    """Tasks that run together have all ended when a cancelled wait returns, however often it is cancelled."""
    may_end, ended = asyncio.Event(), []

    async def slow(name: str) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            try:
                await settle_all([asyncio.ensure_future(may_end.wait())])
            finally:
                ended.append(name)

    together = asyncio.create_task(gather_all([slow("first"), slow("second")]))
    for _ in range(3):
        await asyncio.sleep(0.01)
        together.cancel()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await together
    assert sorted(ended) == ["first", "second"]
