"""The gate of one tenant in one gateway: lets work begin, or says which limit the tenant has reached."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from gateway.tenants.fair_slots import FairSlots
from gateway.tenants.frames import FrameMeter
from gateway.tenants.limits import Limits, TenantLimits
from services.common.errors import TransientError
from services.common.tenant_errors import TenantDubsReached, TenantFramesReached, TenantStorageReached, TenantStreamsReached

LOOK_S: Final = 1.0
"""Seconds between two looks whether a shot that waits may begin."""
_RETRY_S: Final = 5.0
_STORAGE_RETRY_S: Final = 60.0


class TenantGate:
    """What one tenant does in one gateway, against the tenant's limits. Used from one event loop.

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
            TenantFramesReached: the tenant has reached the limit.
        """
        most, made = self._own.frames_per_minute, self._meter.last_minute()
        if most is not None and made >= most:
            raise TenantFramesReached(
                f"{made} frames of tenant {self._tenant} were made within a minute, and {most} may be: try again later",
                retry_after_s=max(1.0, self._meter.wait_s(most)),
            )

    async def check_storage(self) -> None:
        """Check that work which makes artefacts may begin.

        Raises:
            TenantStorageReached: the tenant has reached the limit.
        """
        most = self._own.storage_bytes
        if most is None:
            return
        used = await asyncio.to_thread(self._stored_bytes)
        if used >= most:
            raise TenantStorageReached(
                f"the artefacts of tenant {self._tenant} take {used} bytes, and may take {most}: erase actors that are not needed",
                retry_after_s=_STORAGE_RETRY_S,
            )

    def check_dubs(self, unfinished: int) -> None:
        """Check that a further dub or enrolment may begin.

        Args:
            unfinished: dubs and enrolments of the tenant that run or wait in all gateways.

        Raises:
            TenantDubsReached: the tenant has reached the limit.
        """
        most, present = self._own.concurrent_dubs, unfinished + self._shots
        if most is not None and present >= most:
            raise TenantDubsReached(
                f"{present} dubs, enrolments and shots of tenant {self._tenant} run or wait, and {most} may: try again later",
                retry_after_s=_RETRY_S,
            )

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Count a live stream.

        Raises:
            TenantStreamsReached, TenantFramesReached: the tenant has reached a limit.
        """
        own = self._own
        if own.live_streams is not None and self._streams >= own.live_streams:
            raise TenantStreamsReached(
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
        """Return what is called with the progress of one dub, to count the frames of its film."""
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
            await asyncio.sleep(LOOK_S)

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
        gate: the tenant's gate.
        tenant: name of the tenant.
        slots: slots of the shots of all tenants.
    """

    def __init__(self, gate: TenantGate, tenant: str, slots: FairSlots) -> None:
        self._gate = gate
        self._tenant = tenant
        self._slots = slots

    async def __aenter__(self) -> Callable[[str, int, int], None]:
        await self._gate.begin_shot()
        try:
            await self._slots.acquire(self._tenant)
        except BaseException:
            self._gate.end_shot()
            raise
        return self._gate.counting()

    async def __aexit__(self, *_: object) -> None:
        self._slots.release(self._tenant)
        self._gate.end_shot()
