"""Progress of a batch: counts, speed and time left, computed from the records alone."""

from __future__ import annotations

import dataclasses
import errno
import tempfile
from pathlib import Path

import pytest

from gateway.batch import records
from gateway.batch.records import Failure, VideoMetrics, failure_of, unix_time
from gateway.batch.types import MAX_ATTEMPTS, ShotRecord, ShotState
from gateway.batch.worker import exit_code_of
from services.common.errors import BackendUnavailableError, InvalidRequestError, StorageFullError
from tests.unit.batch.rows import progress_of

NOW = "2026-05-01T10:00:00.000Z"
LATER = "2026-05-01T10:01:00.000Z"
AGAIN = Failure("the stage does not answer", 20, retryable=True)
MADE = VideoMetrics(
    frames=30,
    frames_by_reason={"DUBBED": 20, "SILENT": 10},
    frames_dubbed=30,
    output_sha256="ab" * 32,
    method="dubstage",
    r_opening=0.9,
    warnings=("short",),
    thumbnail=b"jpeg",
)


def told(error: Exception) -> Failure:
    try:
        raise error
    except type(error) as raised:
        return failure_of(raised)


@pytest.fixture
def details(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_our_errors_keep_message_and_exit_code(details: Path) -> None:
    assert told(InvalidRequestError("no method 'x'")) == Failure("no method 'x'", 10)
    assert told(BackendUnavailableError("away")) == Failure("away", 20, retryable=True)
    assert list(details.iterdir()) == []


def test_bug_traceback_lies_in_file(details: Path) -> None:
    """A bug is reported without its traceback, which lies in a file."""
    failure = told(KeyError("secret"))
    (file,) = details.iterdir()
    assert (failure.exit_code, failure.retryable) == (12, False)
    assert str(file) in failure.message
    assert "secret" not in failure.message
    assert "KeyError: 'secret'" in file.read_text()


def test_a_fault_of_the_machine_is_named(details: Path) -> None:
    failure = told(OSError(errno.EROFS, "Read-only file system", "/videos/a.mp4"))
    assert (failure.exit_code, failure.retryable) == (11, False)
    assert failure.message.startswith("/videos/a.mp4: Read-only file system; ")


def test_full_disk_is_retryable(details: Path) -> None:
    """Another attempt may find room on a disk that was full."""
    assert told(StorageFullError("no space left")) == Failure("no space left", 20, retryable=True)
    failure = told(OSError(errno.ENOSPC, "No space left on device", "/videos/a.mp4"))
    assert (failure.exit_code, failure.retryable) == (20, True)
    assert failure.message.startswith("/videos/a.mp4: No space left on device; ")


def begun_again(record: ShotRecord) -> ShotRecord:
    return records.begun(record, "host:1", "/videos/a.mp4", NOW)


def test_retryable_shot_waits_until_exhausted() -> None:
    """A shot that may succeed later waits until its attempts are used up."""
    record = ShotRecord(id="a")
    for attempt in range(1, MAX_ATTEMPTS + 1):
        record = begun_again(record)
        assert (record.state, record.attempts, record.worker, record.begun_at, record.ended_at) == (
            ShotState.RUNNING,
            attempt,
            "host:1",
            NOW,
            "",
        )
        record = records.failed(record, AGAIN, 1.23456, LATER)
        assert (record.exit_code, record.error, record.seconds, record.ended_at) == (20, AGAIN.message, 1.235, LATER)
        assert record.state is (ShotState.FAILED if attempt == MAX_ATTEMPTS else ShotState.WAITING)


def test_permanent_error_fails_at_once() -> None:
    """An error that a person must mend fails at once."""
    record = records.failed(begun_again(ShotRecord(id="a")), Failure("no such actor", 11), 0.5, LATER)
    assert (record.state, record.exit_code) == (ShotState.FAILED, 11)


def test_done_shot_forgets_error() -> None:
    """A shot that is done forgets the error before."""
    waited = records.failed(begun_again(ShotRecord(id="a")), AGAIN, 1.0, NOW)
    record = records.done(begun_again(waited), MADE, 2.0, LATER)
    assert record == ShotRecord(
        id="a",
        state=ShotState.DONE,
        attempts=2,
        worker="host:1",
        begun_at=NOW,
        ended_at=LATER,
        seconds=2.0,
        frames=30,
        frames_dubbed=30,
        frames_by_reason={"DUBBED": 20, "SILENT": 10},
        output="/videos/a.mp4",
        output_sha256="ab" * 32,
        method="dubstage",
        r_opening=0.9,
        warnings=("short",),
        exit_code=0,
        has_thumbnail=True,
    )


def test_new_attempt_forgets_old_video() -> None:
    """Nothing of an older video stays when a shot begins anew."""
    record = begun_again(records.done(begun_again(ShotRecord(id="a")), MADE, 2.0, NOW))
    assert record == ShotRecord(
        id="a",
        state=ShotState.RUNNING,
        attempts=2,
        worker="host:1",
        begun_at=NOW,
        output="/videos/a.mp4",
        exit_code=0,
    )


def test_an_interrupted_attempt_does_not_count() -> None:
    record = records.interrupted(begun_again(ShotRecord(id="a", attempts=1)))
    assert (record.state, record.attempts, record.worker, record.begun_at) == (ShotState.WAITING, 1, "", "")


def test_a_cancelled_shot_says_so() -> None:
    record = records.cancelled(begun_again(ShotRecord(id="a")), LATER)
    assert (record.state, record.exit_code, record.ended_at) == (ShotState.CANCELLED, 130, LATER)


def test_dying_workers_fail_the_shot() -> None:
    """A shot whose workers die fails in the end and says what to do."""
    record = ShotRecord(id="a")
    for _ in range(MAX_ATTEMPTS):
        record = records.died(begun_again(record), "signal 9", LATER)
    assert (record.state, record.exit_code, record.attempts) == (ShotState.FAILED, 11, MAX_ATTEMPTS)
    assert "the worker died in attempt 3 of 3 (signal 9)" in record.error
    assert "memory" in record.error
    first = records.died(begun_again(ShotRecord(id="a")), "signal 9", LATER)
    assert (first.state, first.exit_code) == (ShotState.WAITING, 20)


def test_exit_20_while_attempts_remain() -> None:
    """A worker ends with 20 only while another attempt is left."""
    first = records.failed(begun_again(ShotRecord(id="a")), AGAIN, 1.0, LATER)
    last = records.failed(begun_again(ShotRecord(id="a", attempts=MAX_ATTEMPTS - 1)), AGAIN, 1.0, LATER)
    assert (exit_code_of(first), exit_code_of(last)) == (20, 11)
    assert exit_code_of(records.failed(begun_again(ShotRecord(id="a")), Failure("wrong", 10), 1.0, LATER)) == 10
    assert exit_code_of(records.cancelled(begun_again(ShotRecord(id="a")), LATER)) == 0
    assert exit_code_of(records.done(begun_again(ShotRecord(id="a")), MADE, 1.0, LATER)) == 0


def test_undubbed_video_state_and_reason() -> None:
    """A video without a dubbed frame has a state an exit code and a reason to look."""
    bare = dataclasses.replace(MADE, frames_dubbed=0, frames_by_reason={"NO_FACE": 30}, undubbed="none of the 30 frames is dubbed")
    record = records.done(begun_again(ShotRecord(id="a")), bare, 2.0, LATER)
    assert (record.state, record.exit_code, record.error) == (ShotState.UNDUBBED, 13, "")
    assert record.look == ("none of the 30 frames is dubbed",)
    assert record.output_sha256 == MADE.output_sha256
    assert exit_code_of(record) == 13


def ended_shot(shot_id: str, begun: str, ended: str, frames: int = 100, **more: tuple[str, ...]) -> ShotRecord:
    times = {"begun_at": f"2026-11-21T{begun}.000Z", "ended_at": f"2026-11-21T{ended}.000Z"}
    return ShotRecord.model_validate({"id": shot_id, "state": "done", "frames": frames, **times, **more})


def test_shots_are_counted_by_state() -> None:
    states = [ShotState.WAITING, ShotState.WAITING, ShotState.RUNNING, ShotState.FAILED, ShotState.CANCELLED]
    records = [ShotRecord(id=f"s{number}", state=state) for number, state in enumerate(states)]
    records.append(ended_shot("d", "20:00:00", "20:00:10", look=("r is low",)))
    progress = progress_of(records)
    assert (progress.total, progress.waiting, progress.running, progress.failed, progress.cancelled) == (6, 2, 1, 1, 1)
    assert (progress.done, progress.look, progress.left, progress.ended) == (1, 1, 3, False)
    assert progress_of(records[3:]).ended


def test_no_speed_before_first_shot() -> None:
    """Before the first shot is done, there is no speed."""
    progress = progress_of([ShotRecord(id="a"), ShotRecord(id="b", state=ShotState.FAILED, seconds=3)])
    assert (progress.frames_per_second, progress.seconds_left, progress.frames) == (None, None, 0)
    assert progress_of([]).ended


def test_shots_at_the_same_time_share_the_time() -> None:
    records = [
        ended_shot("a", "20:00:00", "20:00:20"),
        ended_shot("b", "20:00:10", "20:00:30"),
        *(ShotRecord(id=f"w{n}") for n in range(4)),
    ]
    progress = progress_of(records)
    assert progress.frames_per_second == 200 / 30
    assert progress.seconds_left == 4 * 30 / 2


def test_the_night_between_two_submissions_does_not_count() -> None:
    records = [ended_shot("a", "08:00:00", "08:00:10"), ended_shot("b", "20:00:00", "20:00:10"), ShotRecord(id="c")]
    progress = progress_of(records)
    assert (progress.frames_per_second, progress.seconds_left) == (10.0, 10.0)


def test_running_shots_count_by_time() -> None:
    records = [
        ended_shot("a", "20:00:00", "20:00:20"),
        ShotRecord(id="b", state=ShotState.RUNNING, begun_at="2026-11-21T20:00:20.000Z"),
        ShotRecord(id="c"),
    ]
    begun_s = unix_time("2026-11-21T20:00:20.000Z")
    assert progress_of(records, now_s=begun_s).seconds_left == 40.0
    assert progress_of(records, now_s=begun_s + 5).seconds_left == 35.0


def test_dead_worker_keeps_share() -> None:
    """A tenth of a running shot stays, however long ago it was begun: its worker may be dead."""
    records = [
        ended_shot("a", "20:00:00", "20:00:20"),
        ShotRecord(id="b", state=ShotState.RUNNING, begun_at="2026-11-21T20:00:20.000Z"),
    ]
    assert progress_of(records, now_s=unix_time("2026-11-22T20:00:00.000Z")).seconds_left == pytest.approx(2.0)


def test_record_without_times_counts_done() -> None:
    """A record without times counts as done without a speed."""
    progress = progress_of([ShotRecord(id="a", state=ShotState.DONE, frames=10, begun_at="yesterday")])
    assert (progress.done, progress.frames, progress.frames_per_second) == (1, 10, None)


def test_undubbed_videos_counted_apart() -> None:
    """Videos without a dubbed frame are counted apart and have ended."""
    bare = ended_shot("a", "20:00:00", "20:00:10", look=("none of the 100 frames is dubbed",)).model_copy(
        update={"state": ShotState.UNDUBBED}
    )
    progress = progress_of([bare, ended_shot("b", "20:00:10", "20:00:20"), ShotRecord(id="c")])
    assert (progress.done, progress.undubbed, progress.look, progress.left) == (1, 1, 0, 1)
    assert (progress.frames, progress.frames_per_second, progress.seconds_left) == (200, 10.0, 10.0)
