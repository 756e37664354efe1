from __future__ import annotations

import dataclasses
import datetime

from gateway.batch import transitions
from gateway.batch.failures import Failure
from gateway.batch.transitions import Made
from gateway.batch.types import MAX_ATTEMPTS, ShotRecord, ShotState
from gateway.batch.worker import exit_code_of

NOW = "2026-05-01T10:00:00.000Z"
LATER = "2026-05-01T10:01:00.000Z"
AGAIN = Failure("the stage does not answer", 20, retryable=True)
MADE = Made(
    frames=30,
    frames_by_reason={"DUBBED": 20, "SILENT": 10},
    frames_dubbed=30,
    output_sha256="ab" * 32,
    method="ugc",
    r_opening=0.9,
    warnings=("short",),
    thumbnail=b"jpeg",
)


def begun(record: ShotRecord) -> ShotRecord:
    return transitions.begun(record, "host:1", "/films/a.mp4", NOW)


def test_the_present_time_is_utc() -> None:
    told = datetime.datetime.fromisoformat(transitions.present_time())
    assert abs((datetime.datetime.now(datetime.UTC) - told).total_seconds()) < 60


def test_a_shot_that_may_succeed_later_waits_until_its_attempts_are_used_up() -> None:
    record = ShotRecord(id="a")
    for attempt in range(1, MAX_ATTEMPTS + 1):
        record = begun(record)
        assert (record.state, record.attempts, record.worker, record.begun_at, record.ended_at) == (
            ShotState.RUNNING,
            attempt,
            "host:1",
            NOW,
            "",
        )
        record = transitions.failed(record, AGAIN, 1.23456, LATER)
        assert (record.exit_code, record.error, record.seconds, record.ended_at) == (20, AGAIN.message, 1.235, LATER)
        assert record.state is (ShotState.FAILED if attempt == MAX_ATTEMPTS else ShotState.WAITING)


def test_an_error_that_a_person_must_mend_fails_at_once() -> None:
    record = transitions.failed(begun(ShotRecord(id="a")), Failure("no such actor", 11), 0.5, LATER)
    assert (record.state, record.exit_code) == (ShotState.FAILED, 11)


def test_a_shot_that_is_done_forgets_the_error_before() -> None:
    waited = transitions.failed(begun(ShotRecord(id="a")), AGAIN, 1.0, NOW)
    record = transitions.done(begun(waited), MADE, 2.0, LATER)
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
        output="/films/a.mp4",
        output_sha256="ab" * 32,
        method="ugc",
        r_opening=0.9,
        warnings=("short",),
        exit_code=0,
        has_thumbnail=True,
    )


def test_nothing_of_an_older_film_stays_when_a_shot_begins_anew() -> None:
    record = begun(transitions.done(begun(ShotRecord(id="a")), MADE, 2.0, NOW))
    assert record == ShotRecord(
        id="a",
        state=ShotState.RUNNING,
        attempts=2,
        worker="host:1",
        begun_at=NOW,
        output="/films/a.mp4",
        exit_code=0,
    )


def test_an_interrupted_attempt_does_not_count() -> None:
    record = transitions.interrupted(begun(ShotRecord(id="a", attempts=1)))
    assert (record.state, record.attempts, record.worker, record.begun_at) == (ShotState.WAITING, 1, "", "")


def test_a_cancelled_shot_says_so() -> None:
    record = transitions.cancelled(begun(ShotRecord(id="a")), LATER)
    assert (record.state, record.exit_code, record.ended_at) == (ShotState.CANCELLED, 130, LATER)


def test_a_shot_whose_workers_die_fails_in_the_end_and_says_what_to_do() -> None:
    record = ShotRecord(id="a")
    for _ in range(MAX_ATTEMPTS):
        record = transitions.died(begun(record), "signal 9", LATER)
    assert (record.state, record.exit_code, record.attempts) == (ShotState.FAILED, 11, MAX_ATTEMPTS)
    assert "the worker died in attempt 3 of 3 (signal 9)" in record.error
    assert "memory" in record.error
    first = transitions.died(begun(ShotRecord(id="a")), "signal 9", LATER)
    assert (first.state, first.exit_code) == (ShotState.WAITING, 20)


def test_a_worker_ends_with_20_only_while_another_attempt_is_left() -> None:
    first = transitions.failed(begun(ShotRecord(id="a")), AGAIN, 1.0, LATER)
    last = transitions.failed(begun(ShotRecord(id="a", attempts=MAX_ATTEMPTS - 1)), AGAIN, 1.0, LATER)
    assert (exit_code_of(first), exit_code_of(last)) == (20, 11)
    assert exit_code_of(transitions.failed(begun(ShotRecord(id="a")), Failure("wrong", 10), 1.0, LATER)) == 10
    assert exit_code_of(transitions.cancelled(begun(ShotRecord(id="a")), LATER)) == 0
    assert exit_code_of(transitions.done(begun(ShotRecord(id="a")), MADE, 1.0, LATER)) == 0


def test_a_film_without_a_dubbed_frame_has_a_state_an_exit_code_and_a_reason_to_look() -> None:
    bare = dataclasses.replace(MADE, frames_dubbed=0, frames_by_reason={"NO_FACE": 30}, undubbed="none of the 30 frames is dubbed")
    record = transitions.done(begun(ShotRecord(id="a")), bare, 2.0, LATER)
    assert (record.state, record.exit_code, record.error) == (ShotState.UNDUBBED, 13, "")
    assert record.look == ("none of the 30 frames is dubbed",)
    assert record.output_sha256 == MADE.output_sha256
    assert exit_code_of(record) == 13
