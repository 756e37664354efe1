"""The rows that workers of the local engine draw: each row once, and again later if its attempt failed."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable


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
            row: the row.
            again_in_s: seconds until the row can be drawn again; None: the row has ended.
        """
        async with self._changed:
            self._drawn.discard(row)
            if again_in_s is not None:
                heapq.heappush(self._waiting, (asyncio.get_running_loop().time() + again_in_s, row))
            self._changed.notify_all()
