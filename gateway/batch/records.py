"""Records of shots: their next state at each step of a shot's life, their errors, and the progress of a batch. Pure."""

from __future__ import annotations

import datetime
import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.batch.reviews import ReviewState
from gateway.batch.types import MAX_ATTEMPTS, WRITTEN, ShotAppearance, ShotFinish, ShotMotion, ShotRecord, ShotState
from gateway.crash_report import machine_fault, write_traceback
from gateway.dub.request.spec_text import ROWS
from services.common.errors import (
    UNDUBBED_EXIT_CODE,
    BackendUnavailableError,
    DubstageError,
    StorageFullError,
    StorageRefusedError,
    UnexpectedError,
    WorkCancelledError,
)
from services.common.files import FULL_DISK

CANCELLED: Final = "cancelled"
"""Message of a shot that was cancelled."""
_RUNNING_SHARE: Final = 0.9
"""Largest share of a running shot that counts as done: its end is not known, and its worker may be dead."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error of a shot, as its record tells it.

    Attributes:
        message: what is wrong, in one or more sentences for a person. Never a traceback.
        exit_code: exit code of the error (services/common/errors.py).
        retryable: whether another attempt may succeed without a change by a person.
    """

    message: str
    exit_code: int
    retryable: bool = False


def failure_of(error: Exception) -> Failure:
    """Return what a record says of the error that is being handled.

    The traceback of an error of an unknown kind goes to a temporary file and to the log. The message names the file.
    """
    if isinstance(error, StorageFullError):
        return _full(error.in_words(ROWS))
    if isinstance(error, DubstageError):
        return Failure(error.in_words(ROWS), error.exit_code, error.retryable)
    fault = machine_fault(error)
    # Imported here: commands that show a batch log nothing.
    import structlog

    file, text = write_traceback()
    structlog.stdlib.get_logger("dubstage.batch").error("shot_failed", error=type(error).__name__, details=file, traceback=text)
    where = f"the details are in {file} on {socket.gethostname()}" if file else "the details are in the log of the worker"
    if fault is not None:
        message, full = f"{fault}; {where}", isinstance(error, OSError) and error.errno in FULL_DISK
        return _full(message) if full else Failure(message, StorageRefusedError.exit_code)
    return Failure(f"this should not happen, please report it; {where}", UnexpectedError.exit_code)


def _full(message: str) -> Failure:
    """Return the failure of a shot whose disk is full. For a single dub, a person has to make room. In a batch, another attempt may
    succeed: shots that end beside this one give their room back, and another worker may have more.
    """
    return Failure(message, BackendUnavailableError.exit_code, retryable=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoMetrics:
    """Figures of a video that is written.

    Attributes:
        frames: frames of the video.
        frames_by_reason: number of frames by what happened to them.
        frames_dubbed: frames with a new mouth.
        output_sha256: digest of the video.
        method: method that dubbed the shot.
        r_opening: correlation of target and drawn opening; None: not measured.
        motion: motion compared with the person's own; None: not measured.
        appearance: what eyes see of the dub; None: not measured.
        warnings: warnings of the dub.
        undubbed: why no frame is dubbed, and what to do; empty: a frame is dubbed.
        thumbnail: picture of the video as JPEG; empty: there is none.
        finish: the finished video compared with its own sound and with the footage; None: not measured.
        frame_rate: frames per second of the video, NUM/DEN.
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
    appearance: ShotAppearance | None = None
    finish: ShotFinish | None = None
    frame_rate: str = ""


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


def done(record: ShotRecord, metrics: VideoMetrics, seconds: float, now: str) -> ShotRecord:
    """Return the record of a shot whose video is written, before the quality gate."""
    return record.model_copy(
        update={
            "state": ShotState.UNDUBBED if metrics.undubbed else ShotState.DONE,
            "ended_at": now,
            "seconds": round(seconds, 3),
            "frames": metrics.frames,
            "frames_by_reason": metrics.frames_by_reason,
            "frames_dubbed": metrics.frames_dubbed,
            "output_sha256": metrics.output_sha256,
            "method": metrics.method,
            "r_opening": metrics.r_opening,
            "motion": metrics.motion,
            "appearance": metrics.appearance,
            "finish": metrics.finish,
            "frame_rate": metrics.frame_rate,
            "warnings": metrics.warnings,
            "has_thumbnail": bool(metrics.thumbnail),
            "look": (metrics.undubbed,) if metrics.undubbed else (),
            "exit_code": UNDUBBED_EXIT_CODE if metrics.undubbed else 0,
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
        update={"state": ShotState.CANCELLED, "ended_at": now, "exit_code": WorkCancelledError.exit_code, "error": CANCELLED}
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
        failure = Failure(f"the worker died in {tries} ({how})", BackendUnavailableError.exit_code, retryable=True)
    else:
        failure = Failure(
            f"the worker died in {tries} ({how}): the memory of the machine is too small, or the footage is damaged in a way that "
            "ends the decoder. Run fewer workers, or look at the footage; then retry the shot",
            StorageRefusedError.exit_code,
        )
    return failed(record, failure, 0.0, now)


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Progress of a batch.

    Attributes:
        total: number of shots.
        waiting, running, done, undubbed, failed, cancelled: number of shots in each state.
        look: shots that are done and that the quality gate wants a person to look at.
        frames: frames of the videos that are written.
        frames_per_second: frames of all workers together, in the time in which a shot was worked on; None: no video is written.
        seconds_left: time that the shots left take at the present pace, less the past of running shots; None: no video is written.
    """

    total: int
    waiting: int
    running: int
    done: int
    undubbed: int
    failed: int
    cancelled: int
    look: int
    frames: int
    frames_per_second: float | None
    seconds_left: float | None

    @property
    def left(self) -> int:
        """Number of shots that have not ended."""
        return self.waiting + self.running

    @property
    def ended(self) -> bool:
        """Whether all shots have ended."""
        return not self.left

    @property
    def ended_share(self) -> float:
        """Share of the shots that have ended, 0 to 1; 0: there are no shots."""
        return (self.total - self.left) / self.total if self.total else 0.0


class ShotWork(NamedTuple):
    """Work on a shot until now, and what people say about its video.

    Attributes:
        state: state of the shot.
        look: whether the quality gate marked the shot.
        frames: frames of the video.
        begun_s, ended_s: begin and end of the last attempt, Unix time; 0: not known.
        review: state of the review.
    """

    state: ShotState
    look: bool
    frames: int
    begun_s: float
    ended_s: float
    review: ReviewState = ReviewState.UNDECIDED


def progress_from(shots: Sequence[ShotWork], *, now_s: float | None = None) -> Progress:
    """Return the progress of a batch from the work on all its shots.

    The pace counts the time in which at least one of the shots whose videos are written was worked on. The nights between two
    submissions of a batch do not count.

    Args:
        shots: work on the shots.
        now_s: present time, Unix time: of a running shot the share of the mean time of a shot that has passed counts as done, at
            most _RUNNING_SHARE. None: running shots count as not begun.
    """
    states = Counter(shot.state for shot in shots)
    written = [shot for shot in shots if shot.state in WRITTEN]
    frames = sum(shot.frames for shot in written)
    spent = covered_s((shot.begun_s, shot.ended_s) for shot in written)
    left = float(states[ShotState.WAITING] + states[ShotState.RUNNING])
    times = [shot.ended_s - shot.begun_s for shot in written if 0 < shot.begun_s < shot.ended_s]
    if now_s is not None and times:
        mean_s = sum(times) / len(times)
        begun = [shot.begun_s for shot in shots if shot.state is ShotState.RUNNING and shot.begun_s]
        left -= sum(min(_RUNNING_SHARE, max(0.0, now_s - begun_s) / mean_s) for begun_s in begun)
    return Progress(
        total=len(shots),
        waiting=states[ShotState.WAITING],
        running=states[ShotState.RUNNING],
        done=states[ShotState.DONE],
        undubbed=states[ShotState.UNDUBBED],
        failed=states[ShotState.FAILED],
        cancelled=states[ShotState.CANCELLED],
        look=sum(shot.look for shot in shots if shot.state is ShotState.DONE),
        frames=frames,
        frames_per_second=frames / spent if spent else None,
        seconds_left=left * spent / len(written) if spent else None,
    )


def unix_time(text: str) -> float:
    """Return the Unix time of an RFC 3339 time, seconds; 0: the text is empty or no time."""
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def covered_s(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of spans, seconds.

    Args:
        spans: begin and end of each span, Unix time. Spans whose begin or end is 0 do not count.
    """
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(span for span in spans if all(span)):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total
