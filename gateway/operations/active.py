"""One operation that runs in this process."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from opentelemetry import trace

from gateway.operations.store import OperationRecord
from services.common.chassis import calls


def since_boot_s() -> float:
    """Return the seconds since the machine started, those of its sleep included. A paused process finds that they have passed."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(slots=True)
class Active:
    """An operation that runs in this process, or ends.

    Attributes:
        record: the operation with its last progress.
        resumed: whether another process may have begun the work.
        call: what the stages see of the operation.
        asked_by: trace of the call that submitted the operation.
        leased_at: time before the last renewal of the lease, as `since_boot_s`.
        unwanted: whether the operation was taken only to be ended, and needs no slot.
        ended: set when the operation has left this process.
        work: the handler's task.
        keeper: the task that waits for the work, and stores how the work ended.
        cancelled: whether somebody asked for the operation to stop.
        lost: whether another gateway has taken the operation.
        shown: progress that other gateways see.
        shown_at: time when the progress was written for other gateways, as `since_boot_s`.
    """

    record: OperationRecord
    resumed: bool
    call: calls.Call
    asked_by: trace.SpanContext
    leased_at: float
    unwanted: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    work: asyncio.Task[bytes] | None = None
    keeper: asyncio.Task[None] | None = None
    cancelled: bool = False
    lost: bool = False
    shown: bytes = b""
    shown_at: float = 0.0

    def stop(self) -> None:
        """Cancel the work, in the stages' threads too."""
        if self.work is not None and not self.work.done():
            self.call.ended.set()
            self.work.cancel()

    def cancel(self) -> None:
        """Stop the work because somebody asked for it."""
        self.cancelled = True
        self.stop()

    def lose(self) -> None:
        """Stop the work because another gateway does it."""
        self.lost = True
        self.stop()
