"""What the work of an operation gets, and how the work is called."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.operations.store import OperationRecord
from services.common.chassis.caller import acting_for

Report = Callable[[bytes], None]
"""Called with progress, a serialised metadata message."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a handler gets.

    Attributes:
        record: the operation.
        resumed: whether another process may have begun the operation.
        report: called with progress.
        confirm: checks that the operation is still this gateway's; blocks. Called before a result gets its place.
            Raises Cancelled if another gateway has taken the operation.
    """

    record: OperationRecord
    resumed: bool
    report: Report
    confirm: Callable[[], None]


Handler = Callable[[Job], Awaitable[bytes]]
"""Does the work and returns the serialised response. The call is cancelled with the operation, and when the process ends."""

Abandon = Callable[[OperationRecord], Awaitable[None]]
"""Removes what a cancelled operation has left in this process and in earlier ones. Called for waiting operations too."""


async def leave_nothing(record: OperationRecord) -> None:
    """Do nothing: the `Abandon` of work that leaves nothing behind."""


def for_tenant(tenant: str, handler: Handler) -> Handler:
    """Return a handler that does the work of `handler` for a tenant: the stages keep what they make in the tenant's store."""

    async def run(job: Job) -> bytes:
        with acting_for(tenant):
            return await handler(job)

    return run
