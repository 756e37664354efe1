"""Runs operations: some at once, some wait, further ones are refused.

Runners of several tenants may share the slots of one process. Several gateways share one queue (gateway.operations.leases): an
operation that a restart interrupts, or whose gateway died, is taken by the next gateway with a free slot.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import structlog
from opentelemetry import trace

from gateway.operations.execution import Abandon, ActiveOperation, Execution, Handler, Rewrite, leave_nothing, since_boot_s
from gateway.operations.leases import LEASE_S, Admit, LeasedOperation, OperationQueue
from gateway.operations.store import NO_REQUEST_ID, OperationRecord, OperationStore, RequestIdentity
from services.common.errors import BackendUnavailableError, DubstageError, InvalidRequestError, OverloadedError

CANCEL_SECONDS: Final = 60.0
"""Most seconds that an erasure waits for the cancelled work on a person to stop."""
BEAT_S: Final = 1.0
"""Seconds between two renewals of leases, and between two looks for operations that wait. With short leases: a fifth of a lease."""
_MOST_AT_ONCE: Final = 100
_LAST_LOOK_S: Final = 5.0
T = TypeVar("T")
_log = structlog.stdlib.get_logger("dubstage.operations")


@dataclass(eq=False, slots=True)
class _User:
    running: Callable[[], int]
    wake: Callable[[], None]
    served: int = 0


class Slots:
    """Slots of one process. Used from one event loop.

    Attributes:
        turn: held by a runner while it takes operations, so that no two runners fill the same slot.

    Args:
        number: most operations that run at once.
    """

    def __init__(self, number: int) -> None:
        self.turn = asyncio.Lock()
        self._number = number
        self._users: list[_User] = []
        self._served = itertools.count(1)

    def join(self, running: Callable[[], int], wake: Callable[[], None]) -> Callable[[], None]:
        """Let a runner share the slots. Return what the runner calls when it has begun an operation.

        Args:
            running: returns how many slots the runner fills now.
            wake: lets the runner look for operations that wait.
        """
        user = _User(running, wake)
        self._users.append(user)

        def begun() -> None:
            user.served = next(self._served)

        return begun

    def leave(self, running: Callable[[], int]) -> None:
        """Share the slots no more with the runner that joined with this function."""
        self._users = [user for user in self._users if user.running != running]

    def free(self) -> int:
        """Return the number of operations that can begin now."""
        return max(0, self._number - sum(user.running() for user in self._users))

    @property
    def load(self) -> float:
        """Share of the slots that are filled, 0 to 1."""
        return 1.0 - self.free() / self._number

    def wake_all(self) -> None:
        """Let all runners look for operations that wait.

        The one with the fewest running operations comes first, and among equals the one that began an operation longest ago.
        """
        for user in sorted(self._users, key=lambda one: (one.running(), one.served)):
            user.wake()


class OperationRunner:
    """Operations of one gateway process. Used from one event loop.

    Args:
        store: stores the operations.
        handlers: handlers by kind of operation.
        max_concurrent: most operations that run at once in this process.
        max_queued: most operations that wait, for this or another gateway.
        abandon: awaited when a cancelled operation has stopped.
        rewrite: turns an error of a kind of operation into the error that callers may see.
        shared: whether other gateways use the database.
        lease_s: seconds after which other gateways take the operations of a gateway that died.
        slots: slots that other runners of this process share, in place of `max_concurrent`; None: the runner has slots of its own.
    """

    def __init__(
        self,
        store: OperationStore,
        handlers: Mapping[str, Handler],
        *,
        max_concurrent: int,
        max_queued: int,
        abandon: Abandon = leave_nothing,
        rewrite: Rewrite = lambda error, kind: error,
        shared: bool = False,
        lease_s: float = LEASE_S,
        slots: Slots | None = None,
    ) -> None:
        self._store = store
        lease = lease_s if shared else None
        self._queue = OperationQueue(store.database, lease_s=lease, kinds=store.kinds, audit_of=store.audit_of)
        self._running = Execution(store, self._queue, handlers, abandon=abandon, rewrite=rewrite, on_change=self._something_changed)
        self._slots = slots or Slots(max_concurrent)
        self._max_queued = max_queued
        self._submit_spans: dict[str, trace.SpanContext] = {}
        self._waiting: Counter[str] = Counter()
        self._has_unwanted = False
        self._turn = self._slots.turn
        self._look = asyncio.Event()
        self._begun = self._slots.join(self._filled, self._look.set)
        self._changed = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._closed = False
        self._beat_s = min(BEAT_S, lease_s / 5) if shared else None

    @property
    def tracer(self) -> trace.Tracer:
        """Makes one span per operation, in the trace of the call that submitted the operation."""
        return self._running.tracer

    @tracer.setter
    def tracer(self, tracer: trace.Tracer) -> None:
        self._running.tracer = tracer

    @property
    def unfinished(self) -> Counter[str]:
        """Number of operations that run in this process, and of those that wait for any gateway, by kind."""
        return Counter(active.record.kind for active in self._running.all()) + self._waiting

    async def start(self) -> None:
        """Begin to take operations: those that wait, and those that gateways which ended left unfinished."""
        if self._beat_s is None:
            await asyncio.to_thread(self._queue.release_all)
        self._keep_looking()
        async with self._turn:
            await self._end_unwanted()
        await self._fill()

    async def submit(
        self,
        kind: str,
        request: bytes,
        *,
        actor_id: str = "",
        output: str = "",
        admit: Admit = lambda unfinished: None,
        identity: RequestIdentity = NO_REQUEST_ID,
    ) -> OperationRecord:
        """Accept work, and return the new operation, or the one that the same request has begun before.

        Args:
            kind: kind of the operation, which has a handler.
            request: serialised message for the handler.
            actor_id: actor that the work concerns; empty: none.
            output: file that the work writes; empty: none. Two operations never write one file at the same time.
            admit: refuses the work by an error; see `Admit`.
            identity: what identifies the request when the request comes again.

        Raises:
            DubstageError: from `admit`.
            RequestIdReusedError: another request had this id.
            OverloadedError: the most operations that may run and wait already do.
            BackendUnavailableError: the gateway is shutting down, or the database does not answer. Nothing begins.
            StorageRefusedError: the connection to the database broke, and nobody knows whether the work begins.
            InvalidRequestError: another operation writes this output.
        """
        self._keep_looking()
        return await self._in_turn(
            lambda: self._submit(kind, request, actor_id=actor_id, output=output, admit=admit, identity=identity)
        )

    async def _submit(
        self,
        kind: str,
        request: bytes,
        *,
        actor_id: str,
        output: str,
        admit: Admit,
        identity: RequestIdentity,
    ) -> OperationRecord:
        if self._closed:
            raise BackendUnavailableError("the gateway is shutting down")
        leased_at, busy, free = since_boot_s(), self._busy(), self._free()
        new = await asyncio.to_thread(
            lambda: self._queue.submit(
                kind,
                request,
                actor_id=actor_id,
                output=output,
                busy=busy,
                free=free,
                most_waiting=self._max_queued,
                admit=admit,
                identity=identity,
            )
        )
        self._waiting = new.waiting
        if new.repeated:
            return new.record
        self._submit_spans[new.record.name] = trace.get_current_span().get_span_context()
        if new.mine:
            self._begin(LeasedOperation(new.record, begun=False), leased_at)
        elif free:
            self._look.set()
        return new.record

    async def once(self, identity: RequestIdentity, begin: Callable[[], Awaitable[OperationRecord]]) -> OperationRecord:
        """Return the operation that an earlier request of the same id has begun, or else what `begin` returns.

        The earlier request may begin its operation while `begin` checks the later one, which the operation then contradicts.

        Raises:
            RequestIdReusedError: another request had this id.
            DubstageError: from `begin`.
        """
        if not identity.request_id:
            return await begin()
        earlier = await asyncio.to_thread(self._store.begun_by, identity)
        if earlier is not None:
            return await self.get(earlier.name)
        try:
            return await begin()
        except DubstageError:
            earlier = await asyncio.to_thread(self._store.begun_by, identity)
            if earlier is None:
                raise
            return await self.get(earlier.name)

    async def get(self, name: str) -> OperationRecord:
        """Return an operation as it is now.

        Raises:
            OperationNotFoundError: there is no operation of this name.
        """
        active = self._running.find(name)
        return active.record if active is not None else await asyncio.to_thread(self._store.get, name)

    async def list(
        self, *, after: int, limit: int, done: bool | None, kind: str = "", newest: bool = False
    ) -> list[OperationRecord]:
        """Return operations in the order of their submission, or the newest first. See OperationStore.list."""
        records = await asyncio.to_thread(lambda: self._store.list(after=after, limit=limit, done=done, kind=kind, newest=newest))
        here = [self._running.find(record.name) for record in records]
        return [record if active is None else active.record for active, record in zip(here, records, strict=True)]

    async def wait(self, name: str, timeout_s: float) -> OperationRecord:
        """Return an operation when it has ended, or as it is after `timeout_s` seconds.

        Raises:
            OperationNotFoundError: there is no operation of this name.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            active = self._running.find(name)
            record = active.record if active is not None else await asyncio.to_thread(self._store.get, name)
            left = deadline - time.monotonic()
            if record.done or left <= 0:
                return record
            event = active.ended if active is not None else self._changed
            with suppress(TimeoutError):
                async with asyncio.timeout(left if active is not None or self._beat_s is None else min(left, self._beat_s)):
                    await event.wait()
            if active is not None and active.ended.is_set() and not active.lost:
                return active.record

    async def cancel(self, name: str) -> None:
        """Ask an operation to stop, in whichever gateway it runs. An operation that has ended stays as it is.

        Raises:
            OperationNotFoundError: there is no operation of this name.
        """
        # No operation is taken meanwhile: it is either seen to run here, or taken with the wish in its row.
        await self._in_turn(lambda: self._cancel(name))

    async def _cancel(self, name: str) -> None:
        active = self._running.find(name)
        if active is not None:
            active.cancel()
            # Stored too: if this process dies before the work has stopped, no other process goes on with the work.
            await asyncio.to_thread(self._queue.cancel, active.record.number)
            return
        record = await asyncio.to_thread(self._store.get, name)
        if not record.done:
            await asyncio.to_thread(self._queue.cancel, record.number)
            await self._end_unwanted()

    async def delete(self, name: str) -> None:
        """Forget an operation that has ended.

        Raises:
            OperationNotFoundError: there is no operation of this name.
            InvalidRequestError: the operation has not ended.
        """
        if self._running.find(name) is not None or not (await asyncio.to_thread(self._store.get, name)).done:
            raise InvalidRequestError(f"{name} has not ended: cancel it first", field="name")
        await asyncio.to_thread(self._store.delete, name)

    async def concerns(self, actor_id: str) -> bool:
        """Return whether work that concerns a person runs or waits in any gateway."""
        return await asyncio.to_thread(self._queue.concerns, actor_id)

    async def stop_work_on(self, actor_id: str) -> None:
        """Cancel all work that concerns a person, in all gateways, and wait until it has stopped.

        Raises:
            OverloadedError: the work did not stop within CANCEL_SECONDS.
        """
        await self._in_turn(lambda: self._cancel_work_on(actor_id))
        try:
            async with asyncio.timeout(CANCEL_SECONDS):
                while await self.concerns(actor_id):
                    mine = self._running_on(actor_id)
                    for active in mine:
                        await active.ended.wait()
                    if not mine:
                        await asyncio.sleep(BEAT_S / 4)
        except TimeoutError:
            raise OverloadedError(f"work on {actor_id} has not stopped yet: try again", retry_after_s=5.0) from None

    async def _cancel_work_on(self, actor_id: str) -> None:
        await asyncio.to_thread(self._queue.cancel_work_on, actor_id)
        for active in self._running_on(actor_id):
            active.cancel()
        await self._end_unwanted()

    async def forget_actor(self, actor_id: str) -> None:
        """Delete the ended operations that concern a person, because their requests hold the consent record."""
        await asyncio.to_thread(self._store.forget_actor, actor_id)

    async def close(self) -> None:
        """Stop all work where it is. Stopped operations count as interrupted: another process may take them at once."""
        self._closed = True
        self._look.set()
        if self._looking is not None:
            # A look that has begun ends on its own, so that nothing is taken which is not given back.
            await asyncio.wait({self._looking}, timeout=_LAST_LOOK_S)
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        async with self._turn:  # an operation whose submission is being stored begins first, and is then interrupted
            await self._running.close()
        self._slots.leave(self._filled)

    async def _in_turn(self, section: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a section while this runner has the turn. A section that has begun runs to its end, even if its caller is cancelled.

        If the section stopped earlier, its thread would still store the lease of an operation that this runner never begins.
        """
        await self._turn.acquire()
        task = asyncio.create_task(section())
        task.add_done_callback(self._turn_is_over)
        return await asyncio.shield(task)

    def _turn_is_over(self, task: asyncio.Task[Any]) -> None:
        self._turn.release()
        if not task.cancelled():
            task.exception()  # Python does not report the error of a section whose caller has left

    def _running_on(self, actor_id: str) -> Sequence[ActiveOperation]:
        return [active for active in self._running.all() if active.record.actor_id == actor_id]

    def _busy(self) -> set[int]:
        return {active.record.number for active in self._running.all()}

    def _free(self) -> int:
        """Return the number of operations that can begin now."""
        return self._slots.free()

    def _filled(self) -> int:
        return sum(not active.unwanted for active in self._running.all())

    def _keep_looking(self) -> None:
        if self._looking is None and not self._closed:
            self._looking = asyncio.create_task(self._look_for_ever(), context=contextvars.Context())
            if self._beat_s is not None:
                self._running.keep_leases(self._beat_s)

    async def _look_for_ever(self) -> None:
        """Take operations: at every change, and every BEAT_S if other gateways may have changed something."""
        while not self._closed:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._beat_s):
                    await self._look.wait()
            self._look.clear()
            try:
                if self._beat_s is not None or self._has_unwanted:
                    async with self._turn:
                        await self._end_unwanted()
                await self._fill()
            except Exception as problem:
                expected = isinstance(problem, DubstageError)
                _log.warning("operations_not_seen", problem=str(problem), exc_info=None if expected else problem)
                await asyncio.sleep(BEAT_S)
                self._look.set()

    async def _fill(self) -> None:
        """Begin operations that wait, as many as there are free slots."""
        async with self._turn:
            free = self._free()
            if not free or self._closed:
                return
            await self._take(free)

    async def _end_unwanted(self) -> None:
        """End the cancelled operations that no gateway runs. The caller holds the turn."""
        try:
            await self._take(_MOST_AT_ONCE, unwanted=True)
        except DubstageError:
            # Their cancellation is stored: a look tries again.
            self._has_unwanted = True
            self._look.set()
            raise
        self._has_unwanted = False

    async def _take(self, limit: int, *, unwanted: bool = False) -> None:
        leased_at, busy = since_boot_s(), self._busy()
        taken, self._waiting = await asyncio.to_thread(self._queue.take, limit, busy=busy, unwanted=unwanted)
        for one in taken:
            self._begin(one, leased_at, unwanted=unwanted)
        if not self._waiting:  # other gateways took the rest
            self._submit_spans.clear()

    def _begin(self, taken: LeasedOperation, leased_at: float, *, unwanted: bool = False) -> None:
        name = taken.record.name
        resumed = taken.begun or name not in self._submit_spans
        if resumed and not unwanted:
            _log.info("operation_resumed", operation=name, kind=taken.record.kind)
        submit_span = self._submit_spans.pop(name, trace.INVALID_SPAN_CONTEXT)
        self._begun()
        self._running.begin(taken, leased_at, submit_span=submit_span, resumed=resumed, unwanted=unwanted)

    def _something_changed(self) -> None:
        self._slots.wake_all()
        self._changed.set()
        self._changed = asyncio.Event()
