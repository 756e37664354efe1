from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.tenants import quota as gate_module
from gateway.tenants.limits import Limits
from gateway.tenants.quota import FairSlots, TenantQuota
from services.common.errors import (
    BackendUnavailableError,
    TenantDubsReachedError,
    TenantFramesReachedError,
    TenantStorageReachedError,
    TenantStreamsReachedError,
    TransientError,
)


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


async def test_slot_goes_to_smallest_tenant() -> None:
    """A free slot goes to the tenant with the fewest in the order of arrival within the tenant."""
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


class World:
    """A quota whose limits, storage and dubs a test sets."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.stored = 0
        self.unfinished = 0
        file.write_text("")
        self.looks = 0
        self.away = False
        self.quota = TenantQuota("acme", Limits(file), stored_bytes=lambda: self.stored, unfinished=self._unfinished)

    def _unfinished(self) -> int:
        self.looks += 1
        if self.away:
            raise BackendUnavailableError("the database does not answer")
        return self.unfinished

    def limit(self, **limits: int) -> None:
        lines = [f"{name} = {number}" for name, number in limits.items()]
        self.file.write_text("\n".join(["[tenants.acme]", *lines]))


@pytest.fixture(autouse=True)
def frequent_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "POLL_S", 0.02)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "limits.toml")


async def test_without_limits_everything_may_begin(world: World) -> None:
    world.stored, world.unfinished = 1 << 50, 1 << 20
    world.quota.check_dubs(world.unfinished)
    world.quota.check_frames()
    await world.quota.check_storage()
    with world.quota.stream(), world.quota.stream():
        async with world.quota.shots(FairSlots(1)):
            pass


async def test_slow_answers_about_storage_serve_for_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that needs long to add up the storage is asked seldom. A tenant at the limit is looked at each time."""
    monkeypatch.setattr(gate_module, "_STORAGE_QUICK_S", 0.0)
    monkeypatch.setattr(gate_module, "_STORAGE_SHARE", 1e6)
    world.limit(storage_bytes=100)
    world.stored = 50
    await world.quota.check_storage()
    world.stored = 100
    await world.quota.check_storage()
    world.limit(storage_bytes=50)
    with pytest.raises(TenantStorageReachedError):
        await world.quota.check_storage()
    world.stored = 10
    await world.quota.check_storage()


async def test_limits_name_themselves(world: World) -> None:
    """Each limit names itself and says when to come again."""
    world.limit(concurrent_dubs=2, live_streams=1, frames_per_minute=10, storage_bytes=100)
    world.quota.check_dubs(1)
    found: list[TransientError] = []
    with pytest.raises(TenantDubsReachedError) as dubs:
        world.quota.check_dubs(2)
    with world.quota.stream(), pytest.raises(TenantStreamsReachedError) as streams, world.quota.stream():
        pass
    with world.quota.stream():
        for _ in range(10):
            world.quota.count_frame()
    with pytest.raises(TenantFramesReachedError) as frames:
        world.quota.check_frames()
    with pytest.raises(TenantFramesReachedError), world.quota.stream():
        pass
    world.stored = 99
    await world.quota.check_storage()
    world.stored = 100
    with pytest.raises(TenantStorageReachedError) as storage:
        await world.quota.check_storage()
    found = [dubs.value, streams.value, frames.value, storage.value]
    assert [one.reason for one in found] == [
        "TENANT_CONCURRENT_DUBS",
        "TENANT_LIVE_STREAMS",
        "TENANT_FRAMES_PER_MINUTE",
        "TENANT_STORAGE_BYTES",
    ]
    for one in found:
        assert (one.code, one.retryable) == ("RESOURCE_EXHAUSTED", True)
        assert one.retry_after_s >= 1
        assert "tenant acme" in one.message


def test_frames_count_when_written(world: World) -> None:
    """Frames of a video count as they are written."""
    world.limit(frames_per_minute=100)
    count = world.quota.counting()
    for stage, done in (("track", 500), ("dub", 32), ("dub", 64), ("dub", 64), ("measure", 900)):
        count(stage, done, 1000)
    world.quota.check_frames()
    world.quota.counting()("dub", 36, 36)
    with pytest.raises(TenantFramesReachedError):
        world.quota.check_frames()


async def test_shot_waits_and_frees_slot(world: World) -> None:
    """A shot waits for its turn and leaves no slot behind."""
    world.limit(concurrent_dubs=1)
    slots = FairSlots(1)
    mine = world.quota.shots(slots)
    async with mine:
        with pytest.raises(TenantDubsReachedError):
            world.quota.check_dubs(0)
        begun = asyncio.Event()

        async def second() -> None:
            async with mine:
                begun.set()

        waiting = asyncio.create_task(second())
        given_up = asyncio.create_task(second())
        await asyncio.sleep(0)
        given_up.cancel()
        assert not begun.is_set()
    async with asyncio.timeout(60):
        await waiting
        await asyncio.gather(given_up, return_exceptions=True)
    world.quota.check_dubs(0)
    assert slots.free == 1


async def test_second_tenant_comes_first(world: World) -> None:
    """A shot of a second tenant begins before further shots of the first tenant."""
    slots, begun = FairSlots(1), list[str]()
    other = TenantQuota("bolt", Limits(None), stored_bytes=lambda: 0, unfinished=lambda: 0)

    async def shot(quota: TenantQuota, name: str) -> None:
        async with quota.shots(slots):
            begun.append(name)
            await asyncio.sleep(0)

    async with asyncio.timeout(60):
        await asyncio.gather(*(shot(world.quota, f"acme {number}") for number in range(4)), shot(other, "bolt"))
    assert begun == ["acme 0", "bolt", "acme 1", "acme 2", "acme 3"]
    assert slots.free == 1


async def test_dub_holds_up_shot(world: World) -> None:
    """A dub keeps a shot waiting until the limits change."""
    world.limit(concurrent_dubs=1)
    world.unfinished = 1
    await _shot_waits_until(world, lambda: world.limit(concurrent_dubs=2))


async def test_a_shot_waits_while_the_database_is_away(world: World) -> None:
    world.limit(concurrent_dubs=1)
    world.away = True
    await _shot_waits_until(world, lambda: setattr(world, "away", False))


async def test_cancelled_waiting_shot_counts_nothing(world: World) -> None:
    """A shot that is cancelled while others shots run counts no more."""
    world.limit(concurrent_dubs=1)
    slots = FairSlots(0)

    async def shot() -> None:
        async with world.quota.shots(slots):
            raise AssertionError("there is no slot")

    waiting = asyncio.create_task(shot())
    async with asyncio.timeout(60):
        while not _counts(world.quota):  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not _counts(world.quota)


def _counts(quota: TenantQuota) -> bool:
    """Return whether a shot counts against the limit of one."""
    try:
        quota.check_dubs(0)
    except TenantDubsReachedError:
        return True
    return False


async def _shot_waits_until(world: World, change: Callable[[], None]) -> None:
    """Check that a shot waits, and begins after a change of the world."""
    begun = asyncio.Event()

    async def shot() -> None:
        async with world.quota.shots(FairSlots(1)):
            begun.set()

    waiting = asyncio.create_task(shot())
    async with asyncio.timeout(60):
        while world.looks < 2 and not waiting.done():  # noqa: ASYNC110 - the count changes in a thread
            await asyncio.sleep(0.01)
    assert not begun.is_set()
    change()
    async with asyncio.timeout(60):
        await waiting
    assert begun.is_set()
