"""The queue of rows: order, rests, and ends."""

from __future__ import annotations

import asyncio
import time

from gateway.batch.row_queue import RowQueue


async def test_rows_are_drawn_in_order_and_each_once() -> None:
    queue = RowQueue([4, 1, 9])
    drawn = [await queue.next() for _ in range(3)]
    assert drawn == [1, 4, 9]
    for row in (1, 4, 9):
        await queue.ended(row, again_in_s=None)
    assert await queue.next() is None


async def test_without_rows_there_is_nothing_to_draw() -> None:
    assert await RowQueue([]).next() is None


async def test_idle_worker_takes_returned_row() -> None:
    """A worker without a row waits for a row that another worker gives back."""
    queue = RowQueue([0])
    assert await queue.next() == 0
    other = asyncio.create_task(queue.next())
    await asyncio.sleep(0.01)
    assert not other.done()
    await queue.ended(0, again_in_s=0.0)
    assert await other == 0
    third = asyncio.create_task(queue.next())
    await queue.ended(0, again_in_s=None)
    assert await third is None


async def test_failed_row_goes_last() -> None:
    """A row that failed rests and others come first."""
    queue = RowQueue([0, 1])
    assert await queue.next() == 0
    began = time.monotonic()
    await queue.ended(0, again_in_s=0.2)
    assert await queue.next() == 1
    assert await queue.next() == 0
    assert time.monotonic() - began >= 0.19


async def test_resting_row_blocks_nobody() -> None:
    """Others do not wait for a row that rests."""
    queue = RowQueue([0, 1])
    assert await queue.next() == 0
    await queue.ended(0, again_in_s=3600.0)
    assert await asyncio.wait_for(queue.next(), 60.0) == 1
