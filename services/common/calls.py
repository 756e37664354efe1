"""What a handler, and the code that it runs in a worker, can know of the call it serves; no gRPC needed for it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field

from opentelemetry import propagate

from services.common.errors import Cancelled

JOB_ID_KEY = "dubstage-job-id"
SHOT_ID_KEY = "dubstage-shot-id"


@dataclass(slots=True)
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
    ended: threading.Event = field(default_factory=threading.Event)
    """Set when the call is over, however it ended: work that still runs for it is in vain."""


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
