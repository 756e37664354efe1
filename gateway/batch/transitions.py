"""What becomes of a shot's record at each step of the shot's life. All functions are pure."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Final

from gateway.batch.failures import Failure
from gateway.batch.types import MAX_ATTEMPTS, ShotMotion, ShotRecord, ShotState
from services.common.errors import UNDUBBED_EXIT_CODE, BackendUnavailable, Cancelled, StorageRefused

CANCELLED: Final = "cancelled"
"""Message of a shot that was cancelled."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """Figures of a film that is written.

    Attributes:
        frames: frames of the film.
        frames_by_reason: number of frames by what happened to them.
        frames_dubbed: frames with a new mouth.
        output_sha256: digest of the film.
        method: method that dubbed the shot.
        r_opening: correlation of wanted and shown opening; None: not measured.
        motion: motion compared with the person's own; None: not measured.
        warnings: warnings of the dub.
        undubbed: why no frame is dubbed, and what to do; empty: a frame is dubbed.
        thumbnail: picture of the film as JPEG; empty: there is none.
    """

    frames: int
    frames_by_reason: dict[str, int]
    frames_dubbed: int
    output_sha256: str
    method: str
    r_opening: float | None
    warnings: tuple[str, ...]
    thumbnail: bytes
    undubbed: str = ""
    motion: ShotMotion | None = None


def present_time() -> str:
    """Return the present time, RFC 3339, UTC, with milliseconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def begun(record: ShotRecord, worker: str, output: str, now: str) -> ShotRecord:
    """Return the record of a shot that a worker begins. Only the error of the attempt before stays."""
    return ShotRecord(
        id=record.id,
        state=ShotState.RUNNING,
        attempts=record.attempts + 1,
        worker=worker,
        begun_at=now,
        output=output,
        exit_code=record.exit_code,
        error=record.error,
    )


def done(record: ShotRecord, made: Made, seconds: float, now: str) -> ShotRecord:
    """Return the record of a shot whose film is written, before the quality gate."""
    return record.model_copy(
        update={
            "state": ShotState.UNDUBBED if made.undubbed else ShotState.DONE,
            "ended_at": now,
            "seconds": round(seconds, 3),
            "frames": made.frames,
            "frames_by_reason": made.frames_by_reason,
            "frames_dubbed": made.frames_dubbed,
            "output_sha256": made.output_sha256,
            "method": made.method,
            "r_opening": made.r_opening,
            "motion": made.motion,
            "warnings": made.warnings,
            "has_thumbnail": bool(made.thumbnail),
            "look": (made.undubbed,) if made.undubbed else (),
            "exit_code": UNDUBBED_EXIT_CODE if made.undubbed else 0,
            "error": "",
        }
    )


def failed(record: ShotRecord, failure: Failure, seconds: float, now: str) -> ShotRecord:
    """Return the record of a shot whose attempt failed: it waits if another attempt may succeed and is left."""
    again = failure.retryable and record.attempts < MAX_ATTEMPTS
    return record.model_copy(
        update={
            "state": ShotState.WAITING if again else ShotState.FAILED,
            "worker": "" if again else record.worker,
            "ended_at": now,
            "seconds": round(seconds, 3),
            "exit_code": failure.exit_code,
            "error": failure.message,
        }
    )


def cancelled(record: ShotRecord, now: str) -> ShotRecord:
    """Return the record of a shot that a person cancelled."""
    return record.model_copy(
        update={"state": ShotState.CANCELLED, "ended_at": now, "exit_code": Cancelled.exit_code, "error": CANCELLED}
    )


def interrupted(record: ShotRecord) -> ShotRecord:
    """Return the record of a shot whose worker was told to end. The attempt does not count."""
    return record.model_copy(
        update={"state": ShotState.WAITING, "attempts": max(0, record.attempts - 1), "worker": "", "begun_at": ""}
    )


def died(record: ShotRecord, how: str, now: str) -> ShotRecord:
    """Return the record of a shot whose worker died in the middle of the shot.

    Args:
        record: the record, in which the attempt is counted.
        how: how the worker died, such as `signal 9`.
        now: the present time.
    """
    tries = f"attempt {record.attempts} of {MAX_ATTEMPTS}"
    if record.attempts < MAX_ATTEMPTS:
        failure = Failure(f"the worker died in {tries} ({how})", BackendUnavailable.exit_code, retryable=True)
    else:
        failure = Failure(
            f"the worker died in {tries} ({how}): the memory of the machine is too small, or the footage is damaged in a way that "
            "ends the decoder. Run fewer workers, or look at the footage; then retry the shot",
            StorageRefused.exit_code,
        )
    return failed(record, failure, 0.0, now)
