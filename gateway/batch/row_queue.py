"""Queue of the rows that are left to dub: each row once, and again later if its attempt failed."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable
from typing import Final

from gateway.async_utilities import in_thread
from gateway.batch.store import BatchStore
from gateway.batch.types import ENDED, WRITTEN, ShotRecord
from gateway.batch.worker import film_fault


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
        """Draw a row, after a wait if all rows are drawn or must rest; None: all rows have ended."""
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


RETRY_S: Final = 3.0
"""Seconds before a second attempt; five times as long before a third."""


async def rows_left(store: BatchStore, name: str, *, check_films: bool) -> list[int]:
    """Return the rows of the shots that are to be dubbed.

    Args:
        store: store of batches.
        name: name of the batch.
        check_films: also return shots that are done and whose film is gone or was changed. Every film is read.

    Raises:
        DubstageError: the store of batches, or the place of a film, cannot be used.
    """
    shots, records = await in_thread(store.manifest, name), await in_thread(store.records, name)
    rows = []
    for row, (shot, record) in enumerate(zip(shots, records, strict=True)):
        spoiled = check_films and record.state in WRITTEN and await film_fault(shot, record)
        if record.state not in ENDED or spoiled:
            rows.append(row)
    return rows


def again_in_s(record: ShotRecord) -> float | None:
    """Return the seconds after which a shot is to be tried again; None: the shot has ended."""
    return None if record.state in ENDED else float(RETRY_S * 5 ** max(0, record.attempts - 1))
