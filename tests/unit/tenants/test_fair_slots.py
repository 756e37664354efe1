from __future__ import annotations

import asyncio

import pytest

from gateway.tenants.fair_slots import FairSlots


class Shots:
    """Shots that wait for slots, and the order in which they began."""

    def __init__(self, number: int) -> None:
        self.slots = FairSlots(number)
        self.begun: list[str] = []

    async def arrive(self, *names: str) -> list[asyncio.Task[None]]:
        """Let shots wait for slots. The first letter of a shot is its tenant."""
        tasks = [asyncio.create_task(self._wait(name)) for name in names]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return tasks

    async def end(self, name: str) -> None:
        """End a shot that has begun."""
        self.slots.release(name[0])
        await asyncio.sleep(0)

    async def _wait(self, name: str) -> None:
        await self.slots.acquire(name[0])
        self.begun.append(name)


async def test_as_many_shots_run_as_there_are_slots() -> None:
    shots = Shots(2)
    await shots.arrive("a1", "a2", "a3")
    assert shots.begun == ["a1", "a2"]
    assert shots.slots.free == 0


async def test_a_free_slot_goes_to_the_tenant_with_the_fewest_in_the_order_of_arrival_within_the_tenant() -> None:
    shots = Shots(3)
    await shots.arrive("a1", "a2", "b1", "a3", "a4", "b2", "b3")
    assert shots.begun == ["a1", "a2", "b1"]
    await shots.end("a1")
    # Now each tenant holds one slot, and b got its slot last.
    assert shots.begun[3:] == ["a3"]
    await shots.end("a2")
    assert shots.begun[4:] == ["b2"]
    await shots.end("a3")
    assert shots.begun[5:] == ["a4"]


async def test_tenants_take_turns_at_a_single_slot() -> None:
    shots = Shots(1)
    await shots.arrive("a1", "a2", "a3", "b1", "b2", "c1")
    for number in range(6):
        await shots.end(shots.begun[number])
    assert shots.begun == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert shots.slots.free == 1


async def test_a_tenant_that_is_alone_has_all_slots() -> None:
    shots = Shots(2)
    await shots.arrive("a1", "a2")
    for name in ("a1", "a2"):
        await shots.end(name)
    assert shots.slots.free == 2


@pytest.mark.parametrize("given", [False, True], ids=["before a slot is free", "in the moment when it gets the slot"])
async def test_a_waiter_that_is_cancelled_loses_no_slot(given: bool) -> None:
    shots = Shots(1)
    _, cancelled, *_ = await shots.arrive("a1", "b1", "a2")
    if given:
        shots.slots.release("a")
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    if not given:
        shots.slots.release("a")
    await asyncio.sleep(0)
    assert cancelled.cancelled()
    assert shots.begun == ["a1", "a2"]
    await shots.end("a2")
    assert shots.slots.free == 1
