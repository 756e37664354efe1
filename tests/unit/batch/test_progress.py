"""Progress of a batch: counts, speed and time left, computed from the records alone."""

from __future__ import annotations

from gateway.batch.progress import progress_of
from gateway.batch.types import ShotRecord, ShotState


def done(shot_id: str, begun: str, ended: str, frames: int = 100, **more: tuple[str, ...]) -> ShotRecord:
    times = {"begun_at": f"2026-11-21T{begun}.000Z", "ended_at": f"2026-11-21T{ended}.000Z"}
    return ShotRecord.model_validate({"id": shot_id, "state": "done", "frames": frames, **times, **more})


def test_shots_are_counted_by_state() -> None:
    states = [ShotState.WAITING, ShotState.WAITING, ShotState.RUNNING, ShotState.FAILED, ShotState.CANCELLED]
    records = [ShotRecord(id=f"s{number}", state=state) for number, state in enumerate(states)]
    records.append(done("d", "20:00:00", "20:00:10", look=("r is low",)))
    progress = progress_of(records)
    assert (progress.total, progress.waiting, progress.running, progress.failed, progress.cancelled) == (6, 2, 1, 1, 1)
    assert (progress.done, progress.look, progress.left, progress.ended) == (1, 1, 3, False)
    assert progress_of(records[3:]).ended


def test_before_the_first_shot_is_done_there_is_no_speed() -> None:
    progress = progress_of([ShotRecord(id="a"), ShotRecord(id="b", state=ShotState.FAILED, seconds=3)])
    assert (progress.frames_per_second, progress.seconds_left, progress.frames) == (None, None, 0)
    assert progress_of([]).ended


def test_shots_at_the_same_time_share_the_time() -> None:
    records = [done("a", "20:00:00", "20:00:20"), done("b", "20:00:10", "20:00:30"), *(ShotRecord(id=f"w{n}") for n in range(4))]
    progress = progress_of(records)
    assert progress.frames_per_second == 200 / 30
    assert progress.seconds_left == 4 * 30 / 2


def test_the_night_between_two_submissions_does_not_count() -> None:
    records = [done("a", "08:00:00", "08:00:10"), done("b", "20:00:00", "20:00:10"), ShotRecord(id="c")]
    progress = progress_of(records)
    assert (progress.frames_per_second, progress.seconds_left) == (10.0, 10.0)


def test_a_record_without_times_counts_as_done_without_a_speed() -> None:
    progress = progress_of([ShotRecord(id="a", state=ShotState.DONE, frames=10, begun_at="yesterday")])
    assert (progress.done, progress.frames, progress.frames_per_second) == (1, 10, None)


def test_films_without_a_dubbed_frame_are_counted_apart_and_have_ended() -> None:
    bare = done("a", "20:00:00", "20:00:10", look=("none of the 100 frames is dubbed",)).model_copy(
        update={"state": ShotState.UNDUBBED}
    )
    progress = progress_of([bare, done("b", "20:00:10", "20:00:20"), ShotRecord(id="c")])
    assert (progress.done, progress.undubbed, progress.look, progress.left) == (1, 1, 0, 1)
    assert (progress.frames, progress.frames_per_second, progress.seconds_left) == (200, 10.0, 10.0)
