"""What a handler, and the code that it runs in a worker, can know of the call it serves; no gRPC needed for it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from opentelemetry import propagate

from services.common.errors import CallTooLarge, Cancelled, DubstageError

JOB_ID_KEY = "dubstage-job-id"
SHOT_ID_KEY = "dubstage-shot-id"


@dataclass(slots=True, eq=False)
class Call:
    """One RPC in progress. The interceptor makes it; counters and flags may be set from any thread."""

    stage: str
    rpc: str
    """Full method name without the leading slash, such as `dubstage.render.v1alpha1.RenderService/Render`."""
    job_id: str = ""
    """Printable ASCII, as all metadata is; the same holds for `shot_id`."""
    shot_id: str = ""
    deadline: float | None = None
    """Instant of `time.monotonic()` by which the call must have ended."""
    frames: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    model_version: str = ""
    messages_received: int = 0
    messages_sent: int = 0
    max_memory_bytes: int | None = None
    """How much memory the call may keep until its end; None: any."""
    charged_bytes: int = 0
    """Memory that the call keeps until its end, as far as `charge` was told."""
    ended: threading.Event = field(default_factory=threading.Event)
    """Set when the call is over, however it ended: work that still runs for it is in vain."""
    ended_at: float = 0.0
    """Instant of `time.monotonic()` at which `ended` was set."""
    task: asyncio.Task[Any] | None = None
    """The handler's, while it can be ended from outside."""
    failure: DubstageError | None = None
    """Why the call was ended from outside; None where it was not."""
    awaiting_caller: int = 0
    """Reads and writes of the call that wait for its caller."""
    computations: int = 0
    """Computations of the call that wait for a thread or run in one."""
    active_at: float = field(default_factory=time.monotonic)
    """Instant of `time.monotonic()` of the last message, and of the last begin and end of a computation."""
    offered_at: float | None = None
    """Instant of `time.monotonic()` from which on an answer waits for the caller to take it; None where none waits."""

    def finish(self) -> None:
        """Note that the call is over. Work for it stops at its next `check_still_wanted`."""
        if not self.ended.is_set():
            self.ended_at = time.monotonic()
            self.ended.set()

    def end(self, error: DubstageError) -> None:
        """End the call from outside with an error for its caller; no effect on a call that is over. Event loop only."""
        if self.task is not None and self.failure is None:
            self.failure = error
            self.finish()
            self.task.cancel()

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Count what happens inside as waiting for the caller."""
        self.active_at = time.monotonic()
        self.awaiting_caller += 1
        try:
            yield
        finally:
            self.awaiting_caller -= 1
            self.active_at = time.monotonic()

    @contextmanager
    def offered(self) -> Iterator[None]:
        """Count what happens inside as waiting for the caller to take an answer, whatever the caller sends meanwhile."""
        self.offered_at = time.monotonic()
        try:
            with self.awaited():
                yield
        finally:
            self.offered_at = None

    def idle_s(self, now: float) -> float:
        """Seconds for which the call has waited for its caller alone: for a message, or for one answer to be taken.

        Args:
            now: instant of `time.monotonic()`.
        """
        if not self.awaiting_caller or self.computations:
            return 0.0
        return now - (self.active_at if self.offered_at is None else self.offered_at)

    def begin_computation(self) -> None:
        """Note that the call waits for a computation, and not for its caller."""
        with _lock:
            self.computations += 1
            self.active_at = time.monotonic()

    def end_computation(self) -> None:
        """Note that a computation of the call has ended. Any thread."""
        with _lock:
            self.computations -= 1
            self.active_at = time.monotonic()
            if self.offered_at is not None:
                self.offered_at = self.active_at


_lock = threading.Lock()
_current: ContextVar[Call | None] = ContextVar("dubstage_call", default=None)


def current_call() -> Call | None:
    """The call that this task or worker thread serves; None outside of any."""
    return _current.get()


def set_current_call(call: Call | None) -> None:
    """Make `call` the current one of this context (a task has its own)."""
    _current.set(call)


def remaining_s() -> float | None:
    """Seconds until the current call's deadline, never negative; None where there is none."""
    call = _current.get()
    if call is None or call.deadline is None:
        return None
    return max(0.0, call.deadline - time.monotonic())


def check_still_wanted() -> None:
    """To be called between the steps of long work in a worker, so that it stops when nobody waits for it any more.

    Raises:
        Cancelled: the call is over: cancelled, past its deadline, or the server is shutting down.
    """
    call = _current.get()
    if call is not None and call.ended.is_set():
        raise Cancelled(f"{call.rpc} is over; the work for it stops")


def charge(num_bytes: int) -> None:
    """Count memory that the current call keeps until its end, such as frames that it collects or pictures that it holds.

    To be called before the memory is taken. What is freed before the call ends is not counted. Outside of a call nothing is
    counted.

    Args:
        num_bytes: that come on top of what was charged before, 0 or more.

    Raises:
        CallTooLarge: the call would hold more than the setting `max_call_memory_bytes` allows.
    """
    call = _current.get()
    if call is None:
        return
    with _lock:
        call.charged_bytes += num_bytes
        held = call.charged_bytes
    if call.max_memory_bytes is not None and held > call.max_memory_bytes:
        raise CallTooLarge(
            f"what {call.rpc} collects from its messages would take {mebibytes(held)} of memory, and one call may hold "
            f"{mebibytes(call.max_memory_bytes)}; send fewer or smaller messages in one call, or raise "
            "DUBSTAGE_MAX_CALL_MEMORY_BYTES of the stage"
        )


def count_frames(number: int) -> None:
    """Add to the frames that the current call's log line and metric report.

    A response with a field `frame_index` is counted by the interceptor; this is for those that hold several frames.
    """
    call = _current.get()
    if call is not None:
        call.frames += number


def count_reason(reason: str) -> None:
    """Count one face in one frame of the current call under what speaks for or against replacing its mouth."""
    call = _current.get()
    if call is not None:
        call.reasons[reason] += 1


def set_model_version(version: str) -> None:
    """Name the model that serves the current call, for its log line."""
    call = _current.get()
    if call is not None:
        call.model_version = version


def outgoing_metadata() -> dict[str, str]:
    """Metadata that carries the job, the shot and the trace of the current context into a call to another stage."""
    metadata: dict[str, str] = {}
    propagate.inject(metadata)
    call = _current.get()
    if call is not None:
        identifiers = {JOB_ID_KEY: call.job_id, SHOT_ID_KEY: call.shot_id}
        metadata.update({key: value for key, value in identifiers.items() if value})
    return metadata


def mebibytes(num_bytes: int) -> str:
    """A number of bytes for people."""
    return f"{num_bytes / (1 << 20):,.1f} MiB"
