"""Runs operations: some at once, some wait, further ones are refused. Operations that a restart interrupts are resumed."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import structlog
from opentelemetry import trace

from gateway.operations.store import OperationRecord, OperationStore
from services.common.chassis import calls, error_status
from services.common.errors import (
    BackendUnavailable,
    Cancelled,
    ContractBroken,
    DubstageError,
    InvalidRequest,
    Overloaded,
    Unexpected,
)

CANCEL_SECONDS: Final = 60.0
"""Most seconds that an erasure waits for the cancelled work on a person to stop."""

DATABASE_SECONDS: Final = 600.0
"""Most seconds that an ended operation waits for a database that does not answer. Then the next process does the work again."""

_log = structlog.stdlib.get_logger("dubstage.operations")

Report = Callable[[bytes], None]
"""Called with progress, a serialised metadata message."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a handler gets.

    Attributes:
        record: the operation.
        resumed: whether an earlier process began the operation and ended first.
        report: called with progress.
    """

    record: OperationRecord
    resumed: bool
    report: Report


Handler = Callable[[Job], Awaitable[bytes]]
"""Does the work and returns the serialised response. The call is cancelled with the operation, and when the process ends."""

Abandon = Callable[[OperationRecord], Awaitable[None]]
"""Removes what a cancelled operation has left in this process and in earlier ones. Called for waiting operations too."""


async def leave_nothing(record: OperationRecord) -> None:
    """Do nothing: the `Abandon` of work that leaves nothing behind."""


@dataclass(slots=True)
class _Active:
    record: OperationRecord
    resumed: bool
    call: calls.Call
    asked_by: trace.SpanContext
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    work: asyncio.Task[bytes] | None = None
    keeper: asyncio.Task[None] | None = None
    cancelled: bool = False

    def stop(self) -> None:
        """Cancel the work, in the stages' threads too."""
        if self.work is not None and not self.work.done():
            self.call.ended.set()
            self.work.cancel()


class JobRunner:
    """Operations of one gateway process. Used from one event loop.

    Attributes:
        tracer: makes one span per operation, in the trace of the call that submitted the operation.

    Args:
        store: stores the operations.
        handlers: handlers by kind of operation.
        max_concurrent: most operations that run at once.
        max_queued: most operations that wait.
        abandon: awaited when a cancelled operation has stopped.
        rewrite: turns an error into the error that callers may see.
    """

    def __init__(
        self,
        store: OperationStore,
        handlers: Mapping[str, Handler],
        *,
        max_concurrent: int,
        max_queued: int,
        abandon: Abandon = leave_nothing,
        rewrite: Callable[[DubstageError], DubstageError] = lambda error: error,
    ) -> None:
        self._store = store
        self._handlers = handlers
        self._slots = asyncio.Semaphore(max_concurrent)
        self._capacity = max_concurrent + max_queued
        self._active: dict[str, _Active] = {}
        self._adding = 0
        self._closed = False
        self._abandon = abandon
        self._rewrite = rewrite
        self.tracer: trace.Tracer = trace.NoOpTracer()

    @property
    def unfinished(self) -> int:
        """Number of operations that run or wait now."""
        return len(self._active)

    async def start(self) -> None:
        """Resume all operations that an earlier process left unfinished, in the order of submission."""
        after = 0
        while records := await asyncio.to_thread(lambda: self._store.list(after=after, done=False)):  # noqa: B023 - awaited at once
            for record in records:
                _log.info("operation_resumed", operation=record.name, kind=record.kind)
                self._begin(record, resumed=True)
            after = records[-1].number

    async def submit(self, kind: str, request: bytes, *, actor_id: str = "", output: str = "") -> OperationRecord:
        """Accept work, and return the new operation.

        Args:
            kind: kind of the operation, which has a handler.
            request: serialised message for the handler.
            actor_id: actor that the work concerns; empty: none.
            output: file that the work writes; empty: none. Two operations never write one file at the same time.

        Raises:
            Overloaded: the most operations that may run and wait already do.
            BackendUnavailable: the gateway is shutting down.
            InvalidRequest: another operation writes this output.
        """
        if self._closed:
            raise BackendUnavailable("the gateway is shutting down")
        if len(self._active) + self._adding >= self._capacity:
            raise Overloaded(
                f"{len(self._active)} operations run or wait already, as many as the gateway takes: try again later",
                retry_after_s=5.0,
            )
        if output and any(active.record.output == output for active in self._active.values()):
            raise InvalidRequest(f"another operation writes {output}: wait for it, or choose another name", field="output_uri")
        self._adding += 1
        try:
            record = await asyncio.to_thread(self._store.add, kind, request, actor_id=actor_id, output=output)
        finally:
            self._adding -= 1
        self._begin(record, resumed=False)
        return record

    async def get(self, name: str) -> OperationRecord:
        """Return an operation as it is now.

        Raises:
            OperationNotFound: there is no operation of this name.
        """
        active = self._active.get(name)
        return active.record if active is not None else await asyncio.to_thread(self._store.get, name)

    async def list(self, *, after: int, limit: int, done: bool | None) -> list[OperationRecord]:
        """Return operations in the order of their submission. See OperationStore.list."""
        records = await asyncio.to_thread(lambda: self._store.list(after=after, limit=limit, done=done))
        return [self._active[record.name].record if record.name in self._active else record for record in records]

    async def wait(self, name: str, timeout_s: float) -> OperationRecord:
        """Return an operation when it has ended, or as it is after `timeout_s` seconds.

        Raises:
            OperationNotFound: there is no operation of this name.
        """
        active = self._active.get(name)
        if active is None:
            return await asyncio.to_thread(self._store.get, name)
        try:
            async with asyncio.timeout(timeout_s):
                await active.ended.wait()
        except TimeoutError:
            pass
        return active.record

    async def cancel(self, name: str) -> None:
        """Ask an operation to stop. An operation that has ended stays as it is.

        Raises:
            OperationNotFound: there is no operation of this name.
        """
        active = self._active.get(name)
        if active is None:
            await asyncio.to_thread(self._store.get, name)
            return
        self._cancel(active)

    async def delete(self, name: str) -> None:
        """Forget an operation that has ended.

        Raises:
            OperationNotFound: there is no operation of this name.
            InvalidRequest: the operation has not ended.
        """
        if name in self._active:
            raise InvalidRequest(f"{name} has not ended: cancel it first", field="name")
        await asyncio.to_thread(self._store.get, name)
        await asyncio.to_thread(self._store.delete, name)

    def concerns(self, actor_id: str) -> bool:
        """Return whether work that concerns a person runs or waits."""
        return any(active.record.actor_id == actor_id for active in self._active.values())

    async def stop_work_on(self, actor_id: str) -> None:
        """Cancel all work that concerns a person and wait until it has stopped.

        Raises:
            Overloaded: the work did not stop within CANCEL_SECONDS.
        """
        mine = [active for active in self._active.values() if active.record.actor_id == actor_id]
        for active in mine:
            self._cancel(active)
        try:
            async with asyncio.timeout(CANCEL_SECONDS):
                for active in mine:
                    await active.ended.wait()
        except TimeoutError:
            raise Overloaded(f"work on {actor_id} has not stopped yet: try again", retry_after_s=5.0) from None

    async def forget_actor(self, actor_id: str) -> None:
        """Delete the ended operations that concern a person, because their requests hold the consent record."""
        await asyncio.to_thread(self._store.forget_actor, actor_id)

    async def close(self) -> None:
        """Stop all work where it is. Stopped operations count as interrupted: the next process resumes them."""
        self._closed = True
        active = list(self._active.values())
        for one in active:
            one.stop()
        await asyncio.gather(*(one.keeper for one in active if one.keeper is not None), return_exceptions=True)

    def _begin(self, record: OperationRecord, *, resumed: bool) -> None:
        call = calls.Call(stage="gateway", rpc=record.name, job_id=record.name.removeprefix("operations/"))
        active = _Active(record, resumed, call, trace.get_current_span().get_span_context())
        self._active[record.name] = active
        # The work has its own context: it must not end with the call that submitted it, nor have that call's deadline.
        active.work = asyncio.create_task(self._work(active), context=contextvars.Context())
        active.keeper = asyncio.create_task(self._keep(active))

    @staticmethod
    def _cancel(active: _Active) -> None:
        active.cancelled = True
        active.stop()

    async def _work(self, active: _Active) -> bytes:
        calls.set_current_call(active.call)
        structlog.contextvars.bind_contextvars(job_id=active.call.job_id)

        def report(metadata: bytes) -> None:
            active.record = replace(active.record, metadata=metadata)

        job = Job(active.record, active.resumed, report)
        async with self._slots:
            parent = trace.set_span_in_context(trace.NonRecordingSpan(active.asked_by))
            attributes: dict[str, str | bool] = {"dubstage.job_id": active.call.job_id, "dubstage.resumed": active.resumed}
            with self.tracer.start_as_current_span(active.record.kind, context=parent, attributes=attributes):
                return await self._handlers[active.record.kind](job)

    async def _keep(self, active: _Active) -> None:
        """Wait for the work, and store how the work ended. This task is never cancelled."""
        assert active.work is not None
        await asyncio.wait({active.work})
        active.call.ended.set()
        error = None if active.work.cancelled() else active.work.exception()
        failed = active.work.cancelled() or error is not None
        try:
            if failed and self._closed and not active.cancelled:
                return
            if active.cancelled:
                await self._left(active.record)
            if failed:
                ended = replace(active.record, error=self._status(active, error))
            else:
                ended = replace(active.record, response=active.work.result())
            active.record = await self._written(ended)
            _log.info("operation_ended", operation=ended.name, kind=ended.kind, failed=failed, cancelled=active.cancelled)
        finally:
            del self._active[active.record.name]
            active.ended.set()

    async def _left(self, record: OperationRecord) -> None:
        """Remove what a cancelled operation has left."""
        try:
            await self._abandon(record)
        except Exception as problem:
            # The operation ends all the same. `dubstage jobs list` shows what it has left.
            _log.warning("operation_left_something", operation=record.name, exc_info=problem)

    async def _written(self, ended: OperationRecord) -> OperationRecord:
        """Store how an operation ended, and return the record.

        Waits for a database that restarts, so that no hours of work are lost.
        """
        deadline = time.monotonic() + DATABASE_SECONDS
        while True:
            try:
                return await asyncio.to_thread(self._store.finish, ended)
            except BackendUnavailable as problem:
                if self._closed or time.monotonic() > deadline:
                    raise
                _log.warning("operation_not_written_yet", operation=ended.name, message=problem.message)
                await asyncio.sleep(problem.retry_after_s)

    def _status(self, active: _Active, error: BaseException | None) -> bytes:
        if active.cancelled or not isinstance(error, Exception):
            found: DubstageError = Cancelled("the operation was cancelled")
        else:
            found = error_status.domain_error(error)
            name, call = active.record.name, active.call
            if isinstance(found, Unexpected):
                # The caller gets the error id only. This line of the log has the error of the id.
                fields = {"error_id": found.error_id, "exc_info": found.__cause__ or error}
                _log.error("operation_failed", operation=name, job_id=call.job_id, reason=found.reason, **fields)
            elif isinstance(found, ContractBroken):
                _log.error("operation_failed", operation=name, job_id=call.job_id, reason=found.reason, exc_info=error)
            else:
                _log.info("operation_failed", operation=name, job_id=call.job_id, reason=found.reason, message=found.message)
        return bytes(error_status.to_status(self._rewrite(found), stage="gateway").SerializeToString())
