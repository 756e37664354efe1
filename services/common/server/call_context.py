"""Context of a call: the caller's tenant, identity, deadline, memory, and reported values, for handlers and worker threads.

A tenant is a customer of one installation. The module imports no gRPC.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Final

from services.common.errors import CallTooLargeError, DubstageError, UnauthenticatedError, WorkCancelledError

DEFAULT_TENANT: Final = "default"
"""Tenant of tokens that name no tenant, of callers where no token is asked for, and of everything that has no owner."""

TENANT_KEY: Final = "dubstage-tenant"
"""Metadata entry in which a gateway names to a stage the tenant that it works for."""

_TENANT: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,29}[a-z0-9])?")
JOB_ID_KEY = "dubstage-job-id"
SHOT_ID_KEY = "dubstage-shot-id"
_lock = threading.Lock()
_current: ContextVar[Call | None] = ContextVar("dubstage_call", default=None)


@dataclass(frozen=True, slots=True)
class Caller:
    """Caller of a call.

    Attributes:
        tenant: name of the tenant.
        fingerprint: what `fingerprint_of` returned for the bearer token, or for the user; empty: no token was asked for.
        user: name of the user whom a proxy has signed in; empty: the caller sent a token, or none was asked for.
    """

    tenant: str = DEFAULT_TENANT
    fingerprint: str = ""
    user: str = ""


_NOBODY: Final = Caller()
_current_caller: ContextVar[Caller] = ContextVar("caller", default=_NOBODY)


def is_tenant(name: str) -> bool:
    """Return whether a text can be the name of a tenant: 1 to 31 lower-case letters, digits and inner hyphens."""
    return _TENANT.fullmatch(name) is not None


def fingerprint_of(token: str, key: bytes) -> str:
    """Return the fingerprint of a token: 16 hexadecimal digits that tell tokens apart in a log.

    The digits are the first of the HMAC-SHA-256 of the token. Without the key, the fingerprint does not show whether a guess of the
    token is right.

    Args:
        token: the bearer token.
        key: secret of the installation.
    """
    return hmac.digest(key, token.encode(), "sha256").hex()[:16]


def current_caller() -> Caller:
    """Return the caller. Outside of calls, and for work of no caller: the default tenant without a token."""
    return _current_caller.get()


def set_current_caller(caller: Caller) -> None:
    """Set who calls, for the current task or thread and for what they begin."""
    _current_caller.set(caller)


def tenant_metadata() -> tuple[tuple[str, str], ...]:
    """Return the metadata entry that names the present tenant to a stage; no entry: the default tenant."""
    tenant = _current_caller.get().tenant
    return () if tenant == DEFAULT_TENANT else ((TENANT_KEY, tenant),)


def named_by(caller: Caller, tenant: str) -> Caller:
    """Return for whom a stage works: for the tenant that a trusted caller names, otherwise for the caller.

    Callers of the default tenant are trusted: a gateway is one.

    Args:
        caller: whose token the call has.
        tenant: value of the call's TENANT_KEY; empty: the call names no tenant.

    Raises:
        UnauthenticatedError: the value is no name of a tenant, or the caller belongs to another tenant.
    """
    if not tenant or tenant == caller.tenant:
        return caller
    if caller.tenant != DEFAULT_TENANT or not is_tenant(tenant):
        raise UnauthenticatedError(f"{TENANT_KEY}: this token does not speak for that tenant", field=TENANT_KEY)
    return replace(caller, tenant=tenant)


@contextmanager
def acting_for(tenant: str) -> Iterator[None]:
    """Do the work of the context for a tenant."""
    before = _current_caller.set(Caller(tenant))
    try:
        yield
    finally:
        _current_caller.reset(before)


@dataclass(slots=True, eq=False)
class Call:
    """One RPC in progress. The interceptor creates the object. Any thread may set counters and flags."""

    stage: str
    rpc: str
    """Full method name without the leading slash, such as `dubstage.render.v1.RenderService/Render`."""
    job_id: str = ""
    """Printable ASCII, as all metadata. The same holds for `shot_id`."""
    shot_id: str = ""
    deadline: float | None = None
    """Instant of `time.monotonic()` by which the call must have ended."""
    frames: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    model_version: str = ""
    messages_received: int = 0
    messages_sent: int = 0
    max_memory_bytes: int | None = None
    """Memory in bytes that the call may keep until its end; None: any."""
    charged_bytes: int = 0
    """Memory in bytes that the call keeps until its end, as counted by `charge`."""
    ended: threading.Event = field(default_factory=threading.Event)
    """Set when the call is over. Work that still runs for the call is in vain."""
    ended_at: float = 0.0
    """Instant of `time.monotonic()` at which `ended` was set."""
    task: asyncio.Task[Any] | None = None
    """Task of the handler, while the task can be cancelled from outside."""
    failure: DubstageError | None = None
    """Reason why the call was ended from outside; None where the call was not."""
    awaiting_caller: int = 0
    """Reads and writes of the call that wait for the caller."""
    computations: int = 0
    """Computations of the call that wait for a thread or run in one."""
    is_admitted: bool = False
    """Whether a worker pool has taken the call: pools refuse none of the call's further computations."""
    active_at: float = field(default_factory=time.monotonic)
    """Instant of `time.monotonic()` of the last message, and of the last begin and end of a computation."""
    offered_at: float | None = None
    """Instant of `time.monotonic()` since which an answer waits for the caller; None where no answer waits."""

    def finish(self) -> None:
        """Note that the call is over. Work for the call stops at the next `check_not_cancelled`."""
        if not self.ended.is_set():
            self.ended_at = time.monotonic()
            self.ended.set()

    def end(self, error: DubstageError) -> None:
        """End the call from outside with an error for the caller. A call that is over stays as it is. Event loop only."""
        if self.task is not None and self.failure is None:
            self.failure = error
            self.finish()
            self.task.cancel()

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Count the time inside the block as waiting for the caller."""
        self.active_at = time.monotonic()
        self.awaiting_caller += 1
        try:
            yield
        finally:
            self.awaiting_caller -= 1
            self.active_at = time.monotonic()

    @contextmanager
    def offered(self) -> Iterator[None]:
        """Count the time inside the block as waiting for the caller to take an answer, even if the caller sends messages."""
        self.offered_at = time.monotonic()
        try:
            with self.awaited():
                yield
        finally:
            self.offered_at = None

    def idle_s(self, now: float) -> float:
        """Return the seconds for which the call has waited for nothing but its caller: to send a message, or to take an answer.

        Args:
            now: instant of `time.monotonic()`.
        """
        if not self.awaiting_caller or self.computations:
            return 0.0
        return now - (self.active_at if self.offered_at is None else self.offered_at)

    def excuse(self, seconds: float, now: float) -> None:
        """Do not count the last `seconds` before `now`, an instant of `time.monotonic()`, as idle."""
        self.active_at = min(now, self.active_at + seconds)
        if self.offered_at is not None:
            self.offered_at = min(now, self.offered_at + seconds)

    def begin_computation(self) -> None:
        """Note that the call waits for a computation, and not for the caller."""
        with _lock:
            self.computations += 1
            self.is_admitted = True
            self.active_at = time.monotonic()

    def end_computation(self) -> None:
        """Note that a computation of the call has ended. Any thread."""
        with _lock:
            self.computations -= 1
            self.active_at = time.monotonic()
            if self.offered_at is not None:
                self.offered_at = self.active_at


def current_call() -> Call | None:
    """Return the call that this task or worker thread serves; None outside of calls."""
    return _current.get()


def set_current_call(call: Call | None) -> None:
    """Make `call` the current call of this context. Each task has a context of its own."""
    _current.set(call)


def remaining_s() -> float | None:
    """Return the seconds until the current call's deadline, never negative; None where there is no deadline."""
    call = _current.get()
    if call is None or call.deadline is None:
        return None
    return max(0.0, call.deadline - time.monotonic())


def check_not_cancelled() -> None:
    """Stop work for a call that is over. Long work in a worker calls this function between its steps.

    Raises:
        WorkCancelledError: the call was cancelled, is past its deadline, or the server is shutting down.
    """
    call = _current.get()
    if call is not None and call.ended.is_set():
        raise WorkCancelledError(f"{call.rpc} is over; the work for it stops")


def charge(num_bytes: int) -> None:
    """Count memory that the current call keeps until its end, such as collected frames.

    Call this function before the memory is taken. Memory that is freed before the end of the call is not counted. Outside of a call
    the function does nothing.

    Args:
        num_bytes: further bytes, 0 or more.

    Raises:
        CallTooLargeError: the call would hold more than the setting `max_call_memory_bytes` allows.
    """
    call = _current.get()
    if call is None:
        return
    with _lock:
        call.charged_bytes += num_bytes
        held = call.charged_bytes
    if call.max_memory_bytes is not None and held > call.max_memory_bytes:
        raise CallTooLargeError(
            f"what {call.rpc} collects from its messages would take {mebibytes(held)} of memory, and one call may hold "
            f"{mebibytes(call.max_memory_bytes)}; send fewer or smaller messages in one call, or raise "
            "DUBSTAGE_MAX_CALL_MEMORY_BYTES of the stage"
        )


def count_frames(number: int) -> None:
    """Add to the number of frames in the current call's log line and metric.

    The interceptor counts responses that have a field `frame_index`. This function is for responses with several frames.
    """
    call = _current.get()
    if call is not None:
        call.frames += number


def count_reason(reason: str) -> None:
    """Count one face in one frame of the current call under the reason for or against replacing the face's mouth."""
    call = _current.get()
    if call is not None:
        call.reasons[reason] += 1


def set_model_version(version: str) -> None:
    """Name the model that serves the current call in the call's log line."""
    call = _current.get()
    if call is not None:
        call.model_version = version


def outgoing_metadata() -> dict[str, str]:
    """Return metadata that carries the job, the shot and the trace of the current context into a call to another stage."""
    # Imported by processes that call a stage: every command of the command line imports this module.
    from opentelemetry import propagate

    metadata: dict[str, str] = {}
    propagate.inject(metadata)
    call = _current.get()
    if call is not None:
        identifiers = {JOB_ID_KEY: call.job_id, SHOT_ID_KEY: call.shot_id}
        metadata.update({key: value for key, value in identifiers.items() if value})
    return metadata


def mebibytes(num_bytes: int) -> str:
    """Return a number of bytes as text in MiB."""
    return f"{num_bytes / (1 << 20):,.1f} MiB"
