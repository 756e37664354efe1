"""Ends calls that are idle or take too much memory, and reports computations that outlive their call."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import structlog

from services.common.errors import CallTooLargeError, OverloadedError, StageDeadlineExceededError
from services.common.server.call_context import Call, mebibytes
from services.common.server.limits import Computation, WorkerPool
from services.common.server.resources import give_back_freed_memory, resident_bytes

CHECK_INTERVAL_S: Final = 0.25
OUTLIVED_AFTER_S: Final = 5.0
"""Seconds after the end of a call from which on a computation of the call is logged and counted: the computation lacks a
`check_not_cancelled()`."""
RELIEF_S: Final = 10.0
"""Seconds that the computation of a call that was ended for its memory has to stop, before another call is ended."""

SETTLE_S: Final = 1.0
"""Seconds that the process's memory has to shrink after that computation has stopped."""
UNFINISHED_S: Final = 2.0
"""Seconds from which on a message counts as unfinished where memory is short. Callers with a good network send a largest message in
less."""
GIVE_BACK_S: Final = 1.0
"""Seconds after the end of a call that was ended, after which freed memory goes back to the system: half-sent messages."""

_NEARLY: Final = 0.9

_log = structlog.stdlib.get_logger("dubstage.watchdog")


class Watchdog:
    """Looks at a server's calls and computations four times per second, in the server's event loop.

    A call is idle while it waits for its caller to send or to take a message, and computes nothing. Time in the queue of calls does
    not count, nor does time in which this process did not run.

    Args:
        pools: worker pools whose computations are watched.
        max_idle_s: seconds that a call may be idle.
        max_memory_bytes: resident memory of the process above which the call whose computation grew most is ended, or, if no
            computation grew, the calls that have waited for a message of their caller for UNFINISHED_S; 0 is off.
        memory: returns the resident memory of the process in bytes; None where the platform does not say.
        on_ended: called for each call that was ended, with the reason.
        on_outlived: called for each computation that outlived its call.
    """

    def __init__(
        self,
        pools: Sequence[WorkerPool],
        *,
        max_idle_s: float,
        max_memory_bytes: int,
        memory: Callable[[], int | None] = resident_bytes,
        on_ended: Callable[[str], None] = lambda reason: None,
        on_outlived: Callable[[], None] = lambda: None,
    ) -> None:
        self._pools = tuple(pools)
        self._max_idle_s = max_idle_s
        self._max_memory_bytes = max_memory_bytes
        self._memory = memory
        self._on_ended = on_ended
        self._on_outlived = on_outlived
        self._calls: set[Call] = set()
        self._reported: set[Computation] = set()
        self._relief_until = self._settled_at = 0.0
        self._over = False
        self._give_back_at = math.inf

    @contextmanager
    def watching(self, call: Call) -> Iterator[None]:
        """Watch a call while the current task serves the call."""
        call.task = asyncio.current_task()
        call.active_at = time.monotonic()
        self._calls.add(call)
        try:
            yield
        except asyncio.CancelledError:
            self._give_back_soon()
            raise
        finally:
            self._calls.discard(call)
            call.task = None

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await asyncio.sleep(CHECK_INTERVAL_S)
            late_s = loop.time() - began - CHECK_INTERVAL_S
            self.look(paused_s=late_s if late_s > CHECK_INTERVAL_S else 0.0)
            if time.monotonic() > self._give_back_at:
                self._give_back_at = math.inf
                await asyncio.to_thread(give_back_freed_memory)

    def look(self, *, paused_s: float = 0.0) -> None:
        """Look once at all calls and computations.

        Args:
            paused_s: seconds before this look in which this process did not run, because its machine was paused or busy. What the
                callers sent meanwhile was not read, so these seconds do not count as theirs.
        """
        now = time.monotonic()
        for call in self._calls if paused_s else ():
            call.excuse(paused_s, now)
        running = [computation for pool in self._pools for computation in pool.computations]
        self._end_idle_calls(now)
        self._tell_of_outlived(running, now)
        if self._max_memory_bytes:
            self._relieve_memory(running, now)

    def _end_idle_calls(self, now: float) -> None:
        for call in tuple(self._calls):
            if call.idle_s(now) > self._max_idle_s:
                self._end(
                    call,
                    StageDeadlineExceededError(
                        f"{call.rpc}: no message for {self._max_idle_s:g} s: the caller neither sent one nor took one "
                        "(DUBSTAGE_MAX_IDLE_S)"
                    ),
                )

    def _tell_of_outlived(self, running: Sequence[Computation], now: float) -> None:
        self._reported.intersection_update(running)
        for computation in running:
            call = computation.call
            if call is None or computation in self._reported or not call.ended.is_set() or now - call.ended_at < OUTLIVED_AFTER_S:
                continue
            self._reported.add(computation)
            self._on_outlived()
            _log.warning("computation_outlives_its_call", rpc=call.rpc, job_id=call.job_id, seconds=round(now - call.ended_at, 1))

    def _relieve_memory(self, running: Sequence[Computation], now: float) -> None:
        resident = self._memory()
        if resident is None or resident <= self._max_memory_bytes:
            self._over = False
            return
        stopping = now < self._relief_until and any(one.call is not None and one.call.ended.is_set() for one in running)
        if stopping:
            self._settled_at = now + SETTLE_S
        if stopping or now < self._settled_at:
            # Memory of the ended call, and memory that the allocator has not given back yet, counts for no other call.
            for computation in running:
                computation.resident_bytes = resident
            return
        largest = self._largest(running, resident)
        if largest is not None:
            call, taken = largest
            self._relief_until, self._settled_at = now + RELIEF_S, now + SETTLE_S
            self._end(
                call,
                CallTooLargeError(
                    f"{call.rpc} was ended: the stage takes {mebibytes(resident)} of the {mebibytes(self._max_memory_bytes)} of "
                    f"memory that it may (DUBSTAGE_MAX_MEMORY_BYTES), {mebibytes(taken)} of them since this call's computation "
                    "began, which is most; send less in one call"
                ),
            )
        elif waiting := [call for call in self._calls if call.offered_at is None and call.idle_s(now) > UNFINISHED_S]:
            # gRPC keeps the pieces of a message, and the buffers in which the pieces arrived.
            self._settled_at = now + GIVE_BACK_S + SETTLE_S
            for call in waiting:
                self._end(
                    call,
                    OverloadedError(
                        f"{call.rpc} was ended while it waited for a message of its caller: the stage takes {mebibytes(resident)} "
                        f"of the {mebibytes(self._max_memory_bytes)} of memory that it may (DUBSTAGE_MAX_MEMORY_BYTES)",
                        retry_after_s=RELIEF_S,
                    ),
                )
        elif not self._over:
            _log.error(
                "memory_over_limit", resident_bytes=resident, max_memory_bytes=self._max_memory_bytes, calls=len(self._calls)
            )
        self._over = True

    def _largest(self, running: Sequence[Computation], resident: int) -> tuple[Call, int] | None:
        """Return the call that took most memory, and the bytes: by the growth during its computation, otherwise by its charges.

        The process grows as a whole, so computations side by side seem to grow alike. Of computations with nearly the same growth,
        the one that began last is taken for the cause.
        """
        grown = [
            (computation.call, resident - computation.resident_bytes)
            for computation in sorted(running, key=lambda one: one.began_at, reverse=True)
            if computation.call in self._calls and computation.call is not None and computation.resident_bytes is not None
        ]
        taken = grown or [(call, call.charged_bytes) for call in self._calls]
        most = max((amount for _, amount in taken), default=0)
        return next(((call, amount) for call, amount in taken if amount > 0 and amount >= _NEARLY * most), None)

    def _end(self, call: Call, error: StageDeadlineExceededError | CallTooLargeError | OverloadedError) -> None:
        if call.failure is None:
            call.end(error)
            self._on_ended(error.reason)

    def _give_back_soon(self) -> None:
        """Give freed memory back after calls that their callers left, or that were ended: gRPC drops their unfinished messages."""
        self._give_back_at = min(self._give_back_at, time.monotonic() + GIVE_BACK_S)
