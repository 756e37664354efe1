from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from gateway.ahead import all_together, in_thread, read_ahead


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
    assert [item async for item in read_ahead(Source(9).items(), 2)] == list(range(9))


async def test_no_more_is_read_than_may_wait() -> None:
    source = Source(100)
    ahead = read_ahead(source.items(), 2)
    assert await anext(ahead) == 0
    for _ in range(20):
        await asyncio.sleep(0)
    assert source.read <= 4
    await ahead.aclose()


async def test_closing_closes_the_source() -> None:
    source = Source(100)
    ahead = read_ahead(source.items(), 2)
    await anext(ahead)
    await ahead.aclose()
    assert source.closed


async def test_an_error_comes_after_the_items_before_it() -> None:
    ahead = read_ahead(Source(2, ValueError("broken")).items(), 5)
    assert [await anext(ahead), await anext(ahead)] == [0, 1]
    with pytest.raises(ValueError, match="broken"):
        await anext(ahead)


async def test_work_in_a_thread_has_ended_when_its_cancelled_wait_returns() -> None:
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


async def test_the_first_error_of_works_that_run_together_ends_the_others_and_is_raised_after_they_ended() -> None:
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
        await all_together([lasting(), failing()])
    assert ended == ["lasting"]
