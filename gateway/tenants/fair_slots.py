"""Slots that tenants share: no tenant waits for all the work of another tenant to end."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class _Waiter:
    tenant: str
    turn: asyncio.Future[None]


class FairSlots:
    """A number of slots. A free slot goes to the waiting tenant that holds the fewest slots. Used from one event loop.

    Among tenants that hold equally many slots, the tenant that got a slot longest ago comes first. Within a tenant, the order is
    that of arrival.

    Args:
        number: most slots that are held at once.
    """

    def __init__(self, number: int) -> None:
        self._free = number
        self._held: Counter[str] = Counter()
        self._got: Counter[str] = Counter()
        self._numbers = itertools.count(1)
        self._waiting: list[_Waiter] = []

    @property
    def free(self) -> int:
        """Number of slots that no tenant holds."""
        return self._free

    async def acquire(self, tenant: str) -> None:
        """Wait for a slot, and hold the slot for a tenant."""
        waiter = _Waiter(tenant, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._give()
        try:
            await waiter.turn
        except asyncio.CancelledError:
            # The slot may have been given in the moment of the cancellation.
            if not waiter.turn.cancelled():
                self.release(tenant)
            raise

    def release(self, tenant: str) -> None:
        """Free a slot that a tenant holds."""
        self._held[tenant] -= 1
        self._free += 1
        self._give()

    def _give(self) -> None:
        """Give the free slots to those who wait."""
        self._waiting = [waiter for waiter in self._waiting if not waiter.turn.cancelled()]
        while self._free and self._waiting:
            # Of equals, min() returns the first.
            chosen = min(self._waiting, key=lambda waiter: (self._held[waiter.tenant], self._got[waiter.tenant]))
            self._waiting.remove(chosen)
            self._free -= 1
            self._held[chosen.tenant] += 1
            self._got[chosen.tenant] = next(self._numbers)
            chosen.turn.set_result(None)
