"""Queue of the rows that are left to dub: each row once, and again later if its attempt failed."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable
from typing import Final

from gateway.async_utilities import in_thread
from gateway.batch.lists import ShotQuery
from gateway.batch.store import BatchStore
from gateway.batch.types import ENDED, WRITTEN, ShotRecord
from gateway.batch.worker import video_fault

RETRY_S: Final = 3.0
"""Seconds before a second attempt; five times as long before a third."""


class RowQueue:
    """Rows to dub.

    Args:
        rows: rows, drawn in this order.
    """

    def __init__(self, rows: Iterable[int]) -> None:
        self._waiting = [(0.0, row) for row in rows]
        heapq.heapify(self._waiting)
        self._drawn: set[int] = set()
        self._changed = asyncio.Condition()

    async def next(self) -> int | None:
        """Return the next row to dub; None: all rows have ended. Wait while every row is dubbed now or waits for its next try."""
        loop = asyncio.get_running_loop()
        async with self._changed:
            while self._waiting or self._drawn:
                rest_s = self._waiting[0][0] - loop.time() if self._waiting else None
                if rest_s is not None and rest_s <= 0:
                    _, row = heapq.heappop(self._waiting)
                    self._drawn.add(row)
                    return row
                try:
                    async with asyncio.timeout(rest_s):
                        await self._changed.wait()
                except TimeoutError:
                    continue
            return None

    async def ended(self, row: int, *, again_in_s: float | None) -> None:
        """Give a drawn row back.

        Args:
            again_in_s: seconds until the row can be drawn again; None: the row has ended.
        """
        async with self._changed:
            self._drawn.discard(row)
            if again_in_s is not None:
                heapq.heappush(self._waiting, (asyncio.get_running_loop().time() + again_in_s, row))
            self._changed.notify_all()


async def rows_left(store: BatchStore, name: str, *, check_videos: bool) -> list[int]:
    """Return the rows of the shots that are to be dubbed.

    Args:
        store: store of batches.
        name: name of the batch.
        check_videos: also return shots that are done and whose video is gone or was changed. Every video is read.

    Raises:
        DubstageError: the store of batches, or the path or URL of a video, cannot be used.
    """
    rows = list(await in_thread(store.left, name))
    if check_videos:
        written = await in_thread(store.shots, name, ShotQuery(states=WRITTEN))
        rows += [row for row, shot, record, _ in written if await video_fault(shot, record)]
    return sorted(rows)


def again_in_s(record: ShotRecord) -> float | None:
    """Return the seconds after which a shot is to be tried again; None: the shot has ended."""
    return None if record.state in ENDED else float(RETRY_S * 5 ** max(0, record.attempts - 1))
