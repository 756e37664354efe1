"""Operations that run in this process: their work, their leases, and the errors that they end with, for callers and for the log."""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

import structlog
from opentelemetry import trace

from gateway.operations.leases import LeasedOperation, OperationQueue
from gateway.operations.store import OperationRecord, OperationStore, taken_over
from services.common.errors import (
    ContractBrokenError,
    DubstageError,
    OperationNotFoundError,
    TransientError,
    UnexpectedError,
    WorkCancelledError,
)
from services.common.server import call_context, error_status
from services.common.server.call_context import acting_for

Report = Callable[[bytes], None]
"""Called with progress, a serialised metadata message."""
Abandon = Callable[[OperationRecord], Awaitable[None]]
"""Removes what a cancelled operation has left in this process and in earlier ones. Called for waiting operations too."""
_log = structlog.stdlib.get_logger("dubstage.operations")
Rewrite = Callable[[DubstageError, str], DubstageError]
"""Turns an error of a kind of operation into the error that callers may see."""
DATABASE_SECONDS: Final = 600.0
"""Most seconds that an ended operation waits for a shared database that cannot be written. Then a gateway does the work again."""
WRITE_AGAIN_S: Final = 5.0
"""Seconds before a further try to store an end, if the database does not say when to try again."""
PROGRESS_S: Final = 2.0
"""Least seconds between two writes of one operation's progress for other gateways."""


@dataclass(frozen=True, slots=True)
class BegunOperation:
    """An operation that this process has begun: the input of a handler.

    Attributes:
        record: the operation.
        resumed: whether another process may have begun the operation.
        report: called with progress.
        confirm: checks that the operation is still this gateway's; blocks. Called before a result becomes visible.
            Raises WorkCancelledError if another gateway has taken the operation.
    """

    record: OperationRecord
    resumed: bool
    report: Report
    confirm: Callable[[], None]


Handler = Callable[[BegunOperation], Awaitable[bytes]]
"""Does the work and returns the serialised response. The call is cancelled with the operation, and when the process ends."""


async def leave_nothing(record: OperationRecord) -> None:
    """Do nothing: the `Abandon` of work that leaves nothing behind."""


def for_tenant(tenant: str, handler: Handler) -> Handler:
    """Return a handler that does the work of `handler` for a tenant: the stages keep what they make in the tenant's store."""

    async def run(operation: BegunOperation) -> bytes:
        with acting_for(tenant):
            return await handler(operation)

    return run


def since_boot_s() -> float:
    """Return the seconds since the machine started, asleep or not. A paused process finds that they have passed."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(slots=True)
class ActiveOperation:
    """An operation that runs in this process, or ends.

    Attributes:
        record: the operation with its last progress.
        resumed: whether another process may have begun the work.
        call: what the stages see of the operation.
        submit_span: span of the call that submitted the operation.
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
    call: call_context.Call
    submit_span: trace.SpanContext
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


def error_of(error: BaseException | None, *, cancelled: bool, record: OperationRecord, job_id: str, rewrite: Rewrite) -> bytes:
    """Return the serialised google.rpc.Status of an operation that failed or was cancelled, and log the error.

    Args:
        error: what the work raised; None: the work was cancelled.
        cancelled: whether somebody asked for the operation to stop.
        record: the operation.
        job_id: id of the operation in logs and traces.
        rewrite: turns the error of a kind of operation into the error that callers may see.
    """
    if cancelled or not isinstance(error, Exception):
        failure: DubstageError = WorkCancelledError("the operation was cancelled")
    else:
        failure = error_status.domain_error(error)
        if isinstance(failure, UnexpectedError):
            # The caller gets the error id only. This line of the log has the error of the id.
            fields = {"error_id": failure.error_id, "exc_info": failure.__cause__ or error}
            _log.error("operation_failed", operation=record.name, job_id=job_id, reason=failure.reason, **fields)
        elif isinstance(failure, ContractBrokenError):
            _log.error("operation_failed", operation=record.name, job_id=job_id, reason=failure.reason, exc_info=error)
        else:
            _log.info("operation_failed", operation=record.name, job_id=job_id, reason=failure.reason, message=failure.message)
    return bytes(error_status.to_status(rewrite(failure, record.kind), stage="gateway").SerializeToString())


class Execution:
    """The operations that this process has leased. Used from one event loop.

    Attributes:
        tracer: makes one span per operation.

    Args:
        store: stores the operations.
        queue: leases of this process.
        handlers: handlers by kind of operation.
        abandon: awaited when a cancelled operation has stopped.
        rewrite: turns an error of a kind of operation into the error that callers may see.
        on_change: called when an operation has begun or left this process.
    """

    def __init__(
        self,
        store: OperationStore,
        queue: OperationQueue,
        handlers: Mapping[str, Handler],
        *,
        abandon: Abandon,
        rewrite: Rewrite,
        on_change: Callable[[], None],
    ) -> None:
        self._store = store
        self._queue = queue
        self._handlers = handlers
        self._abandon = abandon
        self._rewrite = rewrite
        self._on_change = on_change
        self._active: dict[str, ActiveOperation] = {}
        self._interrupted: set[int] = set()
        # Renewals never wait for the threads of the work.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="leases")
        self._renewing: asyncio.Task[None] | None = None
        self._closed = False
        self.tracer: trace.Tracer = trace.NoOpTracer()

    def find(self, name: str) -> ActiveOperation | None:
        """Return an operation that this process runs; None: it does not run here, or another gateway has taken it."""
        active = self._active.get(name)
        return active if active is not None and not active.lost else None

    def all(self) -> list[ActiveOperation]:
        """Return the operations that this process runs, or ends."""
        return list(self._active.values())

    def begin(
        self, taken: LeasedOperation, leased_at: float, *, submit_span: trace.SpanContext, resumed: bool, unwanted: bool
    ) -> ActiveOperation:
        """Begin the work of an operation.

        Args:
            taken: the operation, which this process has leased.
            leased_at: time before the operation was leased, as `since_boot_s`.
            submit_span: span of the call that submitted the operation.
            resumed: whether another process may have begun the work.
            unwanted: whether the operation was taken only to be ended: its work does not begin.
        """
        record = taken.record
        call = call_context.Call(stage="gateway", rpc=record.name, job_id=record.name.removeprefix("operations/"))
        active = ActiveOperation(record, resumed, call, submit_span, leased_at, unwanted, shown=record.metadata)
        self._active[record.name] = active
        # The work has its own context: it must not end with the call that submitted it, nor have that call's deadline.
        active.work = asyncio.create_task(self._work(active), context=contextvars.Context())
        active.keeper = asyncio.create_task(self._keep(active))
        if unwanted:
            active.cancel()
        self._on_change()
        return active

    def keep_leases(self, every_s: float) -> None:
        """Renew the leases every so many seconds, until `close`."""
        self._renewing = asyncio.create_task(self._renew_for_ever(every_s), context=contextvars.Context())

    async def _renew_for_ever(self, every_s: float) -> None:
        while True:
            try:
                await self._renew()
            except Exception as problem:
                expected = isinstance(problem, DubstageError)
                _log.warning("leases_not_renewed", problem=str(problem), exc_info=None if expected else problem)
            await asyncio.sleep(every_s)

    async def _renew(self) -> None:
        """Renew all leases. Stop the operations that another gateway has taken, or that somebody cancelled in another gateway."""
        now = since_boot_s()
        mine = {active.record.number: active for active in self._active.values()}
        if not mine:
            return
        new = {
            number: active.record.metadata
            for number, active in mine.items()
            if active.record.metadata != active.shown and now - active.shown_at >= PROGRESS_S
        }
        held = await asyncio.get_running_loop().run_in_executor(self._thread, self._queue.renew, set(mine), new)
        for number, active in mine.items():
            if number not in held:
                # An operation that ended meanwhile has no lease either, and no work that could stop.
                active.lose()
                continue
            active.leased_at = now
            if number in new:
                active.shown, active.shown_at = new[number], now
            if held[number] and not active.cancelled:
                active.cancel()

    async def close(self) -> None:
        """Stop all work where it is. Stopped operations count as interrupted: another process may take them at once."""
        self._closed = True
        active = self.all()
        for one in active:
            one.stop()
        await asyncio.gather(*(one.keeper for one in active if one.keeper is not None), return_exceptions=True)
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        if self._interrupted:
            await self._release(self._interrupted)
        await asyncio.to_thread(self._thread.shutdown)

    async def _release(self, numbers: Collection[int]) -> None:
        # If the database cannot be written, the leases end on their own.
        with suppress(DubstageError):
            await asyncio.to_thread(self._queue.release, numbers)

    async def _work(self, active: ActiveOperation) -> bytes:
        call_context.set_current_call(active.call)
        structlog.contextvars.bind_contextvars(job_id=active.call.job_id)

        def report(metadata: bytes) -> None:
            active.record = replace(active.record, metadata=metadata)

        operation = BegunOperation(active.record, active.resumed, report, lambda: self._confirm(active))
        parent = trace.set_span_in_context(trace.NonRecordingSpan(active.submit_span))
        attributes: dict[str, str | bool] = {"dubstage.job_id": active.call.job_id, "dubstage.resumed": active.resumed}
        with self.tracer.start_as_current_span(active.record.kind, context=parent, attributes=attributes):
            return await self._handlers[active.record.kind](operation)

    def _confirm(self, active: ActiveOperation) -> None:
        """Check that the operation is still this gateway's. Blocks."""
        now, lease_s = since_boot_s(), self._queue.lease_s
        # Until the lease ends no other gateway takes the operation, so the database need not be asked.
        if lease_s is None or now - active.leased_at < lease_s:
            return
        if active.lost or active.record.number not in self._queue.renew({active.record.number}, {}):
            raise taken_over(active.record.name)
        active.leased_at = now

    async def _keep(self, active: ActiveOperation) -> None:
        """Wait for the work, and store how the work ended. This task is never cancelled."""
        assert active.work is not None
        await asyncio.wait({active.work})
        active.call.ended.set()
        error = None if active.work.cancelled() else active.work.exception()
        failed = active.work.cancelled() or error is not None
        name = active.record.name
        try:
            if failed and self._closed and not active.cancelled:
                self._interrupted.add(active.record.number)
                return
            if active.lost:
                await self._lost(active)
                return
            if active.cancelled:
                await self._left(active.record)
            if failed:
                status = error_of(
                    error, cancelled=active.cancelled, record=active.record, job_id=active.call.job_id, rewrite=self._rewrite
                )
                ended = replace(active.record, error=status)
            else:
                ended = replace(active.record, response=active.work.result())
            active.record = await self._written(ended)
            _log.info("operation_ended", operation=name, kind=ended.kind, failed=failed, cancelled=active.cancelled)
        except WorkCancelledError:
            active.lost = True
            await self._lost(active)
        except DubstageError as problem:
            # How the operation ended is stored nowhere. A gateway does the work again, and callers wait for that.
            active.lost = True
            _log.error("operation_not_written", operation=name, reason=problem.reason, message=problem.message)
            await self._release({active.record.number})
        finally:
            del self._active[name]
            active.ended.set()
            self._on_change()

    async def _lost(self, active: ActiveOperation) -> None:
        """Leave an operation to the gateway that has taken it. If that gateway has ended it, remove what this process has left."""
        _log.warning("operation_lost", operation=active.record.name, kind=active.record.kind)
        with suppress(DubstageError):
            if await asyncio.to_thread(self._has_ended, active.record.name):
                await self._left(active.record)

    def _has_ended(self, name: str) -> bool:
        try:
            return self._store.get(name).done
        except OperationNotFoundError:
            return True

    async def _left(self, record: OperationRecord) -> None:
        """Remove what a cancelled operation has left."""
        try:
            await self._abandon(record)
        except Exception as problem:
            # The operation ends all the same. `dubstage jobs list` shows what it has left.
            _log.warning("operation_left_something", operation=record.name, exc_info=problem)

    async def _written(self, ended: OperationRecord) -> OperationRecord:
        """Store how an operation ended, and return the record.

        Waits for a database that restarts, and for space on a full disk, so that no hours of work are lost.

        Raises:
            WorkCancelledError: another gateway has taken the operation.
            DubstageError: a shared database could not be written in time, or the gateway shuts down.
        """
        # Without a lease, no other gateway can do the work again, so this process tries until it is closed.
        deadline = math.inf if self._queue.lease_s is None else time.monotonic() + DATABASE_SECONDS
        while True:
            try:
                return await asyncio.to_thread(lambda: self._store.finish(ended, owner=self._queue.owner))
            except WorkCancelledError:
                raise
            except DubstageError as problem:
                if self._closed or time.monotonic() > deadline:
                    raise
                _log.warning("operation_not_written_yet", operation=ended.name, message=problem.message)
                await asyncio.sleep(problem.retry_after_s if isinstance(problem, TransientError) else WRITE_AGAIN_S)
