"""The quota of one tenant in one gateway: lets work begin, or says which limit the tenant has reached.

Tenants share slots so that no tenant waits for all the work of another tenant.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from gateway.media.uploads import UploadsUse
from gateway.tenants.limits import Limits, TenantLimits
from services.common.errors import (
    TenantDubsReachedError,
    TenantFramesReachedError,
    TenantStorageReachedError,
    TenantStreamsReachedError,
    TenantUploadsReachedError,
    TransientError,
)

MINUTE_S: Final = 60
POLL_S: Final = 1.0
"""Seconds between two looks whether a shot that waits may begin."""
_RETRY_S: Final = 5.0
_STORAGE_RETRY_S: Final = 60.0
_STORAGE_QUICK_S: Final = 0.1
_STORAGE_SHARE: Final = 20.0
"""If the database takes longer than _STORAGE_QUICK_S to say how much is stored, the answer serves _STORAGE_SHARE times as long."""


class FrameMeter:
    """Frames by the second in which they were made, for one minute. Used from one event loop.

    Args:
        clock: returns the present time, seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seconds: deque[tuple[int, int]] = deque()
        self._total = 0

    def add(self, frames: int) -> None:
        """Count frames that were made now."""
        now = int(self._clock())
        if self._seconds and self._seconds[-1][0] == now:
            self._seconds.append((now, self._seconds.pop()[1] + frames))
        else:
            self._seconds.append((now, frames))
        self._total += frames
        self._forget(now)

    def last_minute(self) -> int:
        """Return the number of frames that were made within the last minute."""
        self._forget(int(self._clock()))
        return self._total

    def wait_s(self, limit: int) -> float:
        """Return the seconds until the last minute has fewer frames than `limit`; with a limit of 0: a minute."""
        now, left = int(self._clock()), self.last_minute()
        if left < limit:
            return 0.0
        for second, frames in self._seconds:
            left -= frames
            if left < limit:
                return float(second - now + MINUTE_S)
        return float(MINUTE_S)

    def _forget(self, now: int) -> None:
        while self._seconds and self._seconds[0][0] <= now - MINUTE_S:
            self._total -= self._seconds.popleft()[1]


@dataclass(eq=False, slots=True)
class _Waiter:
    tenant: str
    turn: asyncio.Future[None]


class FairSlots:
    """A number of slots. A free slot goes to the waiting tenant that holds the fewest slots. Used from one event loop.

    Among tenants that hold equally many slots, the tenant that got a slot longest ago comes first. Within a tenant, the order is
    that of arrival.

    Attributes:
        free: number of slots that no tenant holds.

    Args:
        number: most slots that are held at once.
    """

    def __init__(self, number: int) -> None:
        self.free = number
        self._held: Counter[str] = Counter()
        self._got: Counter[str] = Counter()
        self._numbers = itertools.count(1)
        self._waiting: list[_Waiter] = []

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
        self.free += 1
        self._give()

    def _give(self) -> None:
        """Give the free slots to those who wait."""
        self._waiting = [waiter for waiter in self._waiting if not waiter.turn.cancelled()]
        while self.free and self._waiting:
            # min() returns the first of equals.
            chosen = min(self._waiting, key=lambda waiter: (self._held[waiter.tenant], self._got[waiter.tenant]))
            self._waiting.remove(chosen)
            self.free -= 1
            self._held[chosen.tenant] += 1
            self._got[chosen.tenant] = next(self._numbers)
            chosen.turn.set_result(None)


class TenantQuota:
    """Work of one tenant in one gateway, against the tenant's limits. Used from one event loop.

    Args:
        tenant: name of the tenant.
        limits: limits of all tenants.
        stored_bytes: returns the size of the tenant's artefacts; blocks.
        unfinished: returns the number of the tenant's dubs and enrolments that run or wait in all gateways; blocks.
    """

    def __init__(self, tenant: str, limits: Limits, *, stored_bytes: Callable[[], int], unfinished: Callable[[], int]) -> None:
        self._tenant = tenant
        self._limits = limits
        self._stored_bytes = stored_bytes
        self._known_bytes, self._known_until = 0, 0.0
        self._unfinished = unfinished
        self._meter = FrameMeter(time.monotonic)
        self._streams = 0
        self._shots = 0
        self._turn = asyncio.Lock()

    @property
    def _own(self) -> TenantLimits:
        return self._limits.of(self._tenant)

    def check_frames(self) -> None:
        """Check that work which makes frames may begin.

        Raises:
            TenantFramesReachedError: the tenant has reached the limit.
        """
        most = self._own.frames_per_minute
        if most is not None and (wait_s := self._meter.wait_s(most)):
            raise TenantFramesReachedError(
                f"{self._meter.last_minute()} frames of tenant {self._tenant} were made within a minute, and {most} may be: try "
                "again later",
                retry_after_s=wait_s,
            )

    async def check_storage(self) -> None:
        """Check that work which makes artefacts may begin.

        Raises:
            TenantStorageReachedError: the tenant has reached the limit.
        """
        most = self._own.storage_bytes
        if most is None:
            return
        used = await self._used_bytes(most)
        if used >= most:
            raise TenantStorageReachedError(
                f"the artefacts of tenant {self._tenant} take {used} bytes, and may take {most}: erase actors that are not needed",
                retry_after_s=_STORAGE_RETRY_S,
            )

    async def _used_bytes(self, most: int) -> int:
        """Return the size of the tenant's artefacts. An answer below the limit may be an old one: the database adds up all rows."""
        began = time.monotonic()
        if began >= self._known_until or self._known_bytes >= most:
            self._known_bytes = await asyncio.to_thread(self._stored_bytes)
            ended = time.monotonic()
            took = ended - began
            self._known_until = ended + (_STORAGE_SHARE * took if took > _STORAGE_QUICK_S else 0.0)
        return self._known_bytes

    def check_uploads(self, uploads: UploadsUse, *, most_bytes: int, most_files: int) -> None:
        """Check that an upload may begin.

        Args:
            uploads: the tenant's uploads with the new one.
            most_bytes: largest size where the file of limits names none, bytes; 0: no limit.
            most_files: largest number where the file of limits names none; 0: no limit.

        Raises:
            TenantUploadsReachedError: the uploads would be larger, or more.
        """
        own = self._own
        limit = own.upload_bytes if own.upload_bytes is not None else most_bytes or None
        if limit is not None and uploads.num_bytes > limit:
            raise TenantUploadsReachedError(
                f"with this file, the uploads of tenant {self._tenant} would take {uploads.num_bytes} bytes, and may take {limit}: "
                "delete uploads that are not needed",
                retry_after_s=_STORAGE_RETRY_S,
            )
        limit = own.upload_files if own.upload_files is not None else most_files or None
        if limit is not None and len(uploads.names) > limit:
            raise TenantUploadsReachedError(
                f"with this file, tenant {self._tenant} would have {len(uploads.names)} uploads, and may have {limit}: delete "
                "uploads that are not needed",
                retry_after_s=_STORAGE_RETRY_S,
            )

    def check_dubs(self, unfinished: int) -> None:
        """Check that a further dub or enrolment may begin.

        Args:
            unfinished: dubs and enrolments of the tenant that run or wait in all gateways.

        Raises:
            TenantDubsReachedError: the tenant has reached the limit.
        """
        most, present = self._own.concurrent_dubs, unfinished + self._shots
        if most is not None and present >= most:
            raise TenantDubsReachedError(
                f"{present} dubs, enrolments and shots of tenant {self._tenant} run or wait, and {most} may: try again later",
                retry_after_s=_RETRY_S,
            )

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Count a live stream.

        Raises:
            TenantStreamsReachedError, TenantFramesReachedError: the tenant has reached a limit.
        """
        own = self._own
        if own.live_streams is not None and self._streams >= own.live_streams:
            raise TenantStreamsReachedError(
                f"{self._streams} live streams of tenant {self._tenant} run, and {own.live_streams} may: try again later",
                retry_after_s=_RETRY_S,
            )
        self.check_frames()
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    def count_frame(self) -> None:
        """Count a frame of a live stream."""
        self._meter.add(1)

    def counting(self) -> Callable[[str, int, int], None]:
        """Return what is called with the progress of one dub, to count the frames of its video."""
        written = 0

        def count(stage: str, done: int, total: int) -> None:
            nonlocal written
            if stage == "dub" and done > written:
                self._meter.add(done - written)
                written = done

        return count

    def shots(self, slots: FairSlots) -> ShotSlots:
        """Return the slots of the tenant's shots.

        Args:
            slots: slots of the shots of all tenants.
        """
        return ShotSlots(self, self._tenant, slots)

    async def begin_shot(self) -> None:
        """Wait until the limits allow a further shot of a batch, and count the shot."""
        # Dubs end in other gateways, frames get old, and the file of limits changes: nothing tells of these.
        while True:
            # While the database is away this shot waits, and those that run go on.
            with suppress(TransientError):
                if await self._may_begin_shot():
                    return
            await asyncio.sleep(POLL_S)

    def end_shot(self) -> None:
        """Count a shot of a batch no more."""
        self._shots -= 1

    async def _may_begin_shot(self) -> bool:
        """Count a shot and return True if the limits allow the shot now."""
        async with self._turn:
            own = self._own
            if own.frames_per_minute is not None and self._meter.last_minute() >= own.frames_per_minute:
                return False
            most = own.concurrent_dubs
            if most is not None and self._shots + await asyncio.to_thread(self._unfinished) >= most:
                return False
            self._shots += 1
            return True


class ShotSlots:
    """Slots of one tenant's shots. A shot waits while the tenant's limits, or the other shots, leave no room.

    A context manager that is entered for each attempt of a shot, and gives what counts the frames of the attempt.

    Args:
        quota: the tenant's quota.
        tenant: name of the tenant.
        slots: slots of the shots of all tenants.
    """

    def __init__(self, quota: TenantQuota, tenant: str, slots: FairSlots) -> None:
        self._quota = quota
        self._tenant = tenant
        self._slots = slots

    async def __aenter__(self) -> Callable[[str, int, int], None]:
        await self._quota.begin_shot()
        try:
            await self._slots.acquire(self._tenant)
        except BaseException:
            self._quota.end_shot()
            raise
        return self._quota.counting()

    async def __aexit__(self, *_: object) -> None:
        self._slots.release(self._tenant)
        self._quota.end_shot()
