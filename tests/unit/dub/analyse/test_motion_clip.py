"""Tests of the choice of frames for the texture bank and for enrolment, of motion on the motion grid, and of lags.

A lag is applied only if the voice is shown to be the person's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from dubstage.client import motion
from dubstage.client.audio import feature_block
from dubstage.common.v1 import common_pb2
from dubstage.motion.v1 import motion_pb2
from gateway.dub.analyse.motion_clip import (
    ENROLMENT_SECONDS,
    ENROLMENT_SPAN_S,
    FEW_SECONDS,
    MIN_ENROLMENT_FRAMES,
    MOST_FRAMES,
    STRETCH_FRAMES,
    BankRows,
    MotionClip,
    SoundLag,
    bank_rows,
    clip_of,
    credible_lag,
    enrolment_rows,
    moved_later,
    on_motion_grid,
    tracked_motion,
    tracked_motion_of,
)
from gateway.dub.learn.enrol import ClipWithSound, personalize_motion
from gateway.dub.state.records import FACE_RECORD, FEATURE_RECORD, RecordFile
from gateway.settings import GatewaySettings
from gateway.stages.interface import Stages
from services.common.errors import NoUsableFootageError
from services.common.face.landmarks import NUM_MOUTH_AREA, NUM_UPPER
from services.common.methods import method_named
from services.common.server.settings import load_settings
from services.common.wire.convert import from_tensor


def face_rows(reasons: list[int]) -> np.ndarray:
    made = np.zeros(len(reasons), FACE_RECORD)
    made["frame"] = np.arange(len(reasons))
    made["reason"] = reasons
    made["mouth"] = np.arange(len(reasons), dtype=np.float32)[:, None, None]
    made["scale"], made["rotation"], made["translation"] = 2.0, np.eye(3), (10.0, 20.0, 0.0)
    made["landmarks"] = np.arange(len(reasons), dtype=np.float32)[:, None, None]
    return made


DUBBED, PROFILE = common_pb2.FRAME_REASON_DUBBED, common_pb2.FRAME_REASON_PROFILE_VIEW


def usable_rows(
    reasons: list[int], seconds: np.ndarray | None = None, frames: range | None = None, most_s: float = ENROLMENT_SECONDS
) -> list[int]:
    """Rows of footage whose frames show a face with these reasons, at 25 frames per second if no seconds are given."""
    count = len(reasons)
    times = np.arange(count) / 25.0 if seconds is None else seconds
    return enrolment_rows(np.arange(count), np.array(reasons, np.int32), times, frames, most_s=most_s)


def test_usable_frames_are_taken_and_the_others_skipped() -> None:
    reasons: list[int] = [DUBBED] * 400
    reasons[3] = PROFILE
    rows, few = usable_rows(reasons), usable_rows(reasons, most_s=FEW_SECONDS)
    assert 3 not in rows
    assert len(rows) == 399
    assert rows == sorted(rows)
    assert few == rows[:250]


def test_five_minutes_of_usable_frames_are_enough() -> None:
    assert usable_rows([DUBBED] * 320, np.arange(320) * 1.0) == list(range(300))


def test_far_frames_count_ten_seconds() -> None:
    """One message holds the motion of all of the enrolment, with its gaps."""
    reasons = [*[DUBBED] * 100, *[PROFILE] * 400, *[DUBBED] * 400]
    near, far = (usable_rows(reasons, np.cumsum(np.repeat([0.04, step, 0.04], [100, 400, 400]))) for step in (0.5, 1.0))
    assert len(near) == 500
    assert 200 < len(far) <= 251


def test_long_motion_without_pictures(tmp_path: Path) -> None:
    """The motion of long footage is read without its pictures."""
    made = face_rows([common_pb2.FRAME_REASON_DUBBED] * 600)
    with RecordFile(tmp_path / "faces.bin", FACE_RECORD) as faces:
        faces.append(made)
        records = tracked_motion(faces, list(range(5, 600)))
    assert records.nbytes < 0.03 * made.nbytes
    np.testing.assert_array_equal(records["frame"], np.arange(5, 600))
    np.testing.assert_array_equal(records["mouth"], made["mouth"][5:])


def test_too_few_frames_counted() -> None:
    """Too few usable frames are an error that says how many."""
    with pytest.raises(NoUsableFootageError, match="only 5 frames"):
        usable_rows([DUBBED] * 5)


def test_50_fps_to_motion_grid() -> None:
    """Footage at fifty frames a second is brought to the motion grid."""
    records = tracked_motion_of(face_rows([common_pb2.FRAME_REASON_DUBBED] * 21))
    clip = on_motion_grid(records, np.arange(21) / 50.0, 0.0)
    assert len(clip.mouth) == 11
    np.testing.assert_allclose(clip.mouth[:, 0, 0], np.arange(0, 21, 2), atol=1e-4)
    assert clip.usable.all()


def test_upper_landmarks_in_head_space() -> None:
    """Landmarks of the upper face are in head space on the same frames."""
    clip = on_motion_grid(tracked_motion_of(face_rows([common_pb2.FRAME_REASON_DUBBED] * 21)), np.arange(21) / 50.0, 0.0)
    assert clip.upper is not None
    assert clip.upper.shape == (11, NUM_UPPER, 3)
    np.testing.assert_allclose(clip.upper[3, 0], (np.array([6.0, 6.0, 6.0]) - (10.0, 20.0, 0.0)) / 2.0, atol=1e-4)


def test_grid_frames_inside_a_gap_are_not_usable() -> None:
    records = tracked_motion_of(face_rows([common_pb2.FRAME_REASON_DUBBED] * 20))
    seconds = np.concatenate([np.arange(10), np.arange(20, 30)]) / 25.0
    clip = on_motion_grid(records, seconds, 0.0)
    assert clip.usable[:10].all()
    assert not clip.usable[10:20].any()


def test_frames_outside_the_wanted_part_are_not_used() -> None:
    assert usable_rows([DUBBED] * 100, frames=range(40, 200)) == list(range(40, 100))


def test_longest_enrolment_fits_message() -> None:
    """The longest span of an enrolment fits into one message to the motion stage."""
    count = 25 * ENROLMENT_SPAN_S
    features = {"mel": (4, 80), "posteriorgram": (4, 40), "identity_removed": (4, 20)}
    request = motion.personalize.request(
        method="portrait",
        style=common_pb2.ArtefactRef(uri="file:///style", sha256="ab" * 32, size_bytes=9),
        features=feature_block({name: np.zeros((count, *shape), np.float32) for name, shape in features.items()}, np.zeros(count)),
        mouth_landmarks=np.zeros((count, 59, 3)),
        usable=np.ones(count, np.bool_),
        head_poses=np.zeros((count, 6)),
    )
    assert request.ByteSize() <= load_settings(GatewaySettings).client_config("motion").max_message_bytes


def test_distant_seconds_with_surroundings(tmp_path: Path) -> None:
    """Seconds that lie far apart are brought together with their surroundings."""
    made = face_rows([common_pb2.FRAME_REASON_DUBBED] * 250)
    made["frame"][125:] += 100_000
    seconds = np.arange(made["frame"][-1] + 1) / 25.0
    with RecordFile(tmp_path / "faces.bin", FACE_RECORD) as faces:
        faces.append(made)
        clip, frames = clip_of(faces, list(range(250)), seconds)
    # The first frame after a gap is not usable.
    assert frames == [*range(225), *range(100_026, 100_250)]
    assert len(clip.mouth) == len(clip.usable) == len(clip.poses) == len(frames)
    assert np.flatnonzero(clip.usable).tolist() == [*range(125), *range(325, 449)]
    np.testing.assert_allclose(clip.mouth[clip.usable], np.delete(made["mouth"], 125, axis=0), atol=1e-3)


def test_short_clip_keeps_all_frames(tmp_path: Path) -> None:
    """A clip that one message holds keeps all frames."""
    made = face_rows([common_pb2.FRAME_REASON_DUBBED] * 250)
    made["frame"] += 50
    made["frame"][125:] += 25 * (ENROLMENT_SPAN_S - 10)
    with RecordFile(tmp_path / "faces.bin", FACE_RECORD) as faces:
        faces.append(made)
        _, frames = clip_of(faces, list(range(250)), np.arange(made["frame"][-1] + 1) / 25.0)
    assert frames == list(range(50, int(made["frame"][-1]) + 1))


def lag(frames: int, confidence: float, num_frames: int = 250, *, at_end: bool = False) -> SoundLag:
    return SoundLag(frames, confidence, 1.1, num_frames, at_end)


@pytest.mark.parametrize(("confidence", "num_frames"), [(0.25, 7500), (0.25, 250), (0.39, 60), (0.55, 30)])
def test_a_confident_lag_is_applied(confidence: float, num_frames: int) -> None:
    found = lag(-3, confidence, num_frames)
    assert credible_lag(found, {}) is found


@pytest.mark.parametrize(("confidence", "num_frames", "least"), [(0.24, 7500, "0.25"), (0.38, 60, "0.39"), (0.5, 30, "0.55")])
def test_short_clip_lag_needs_confidence(confidence: float, num_frames: int, least: str) -> None:
    """The shorter the clip the more confidence a lag needs."""
    found = credible_lag(lag(-3, confidence, num_frames), {})
    assert found.frames is None
    assert found.confidence == confidence
    assert found.doubt == (
        f"the confidence is {confidence:.2f}, and {num_frames} frames need {least}; the lag that fits best, -3 frames of 40 ms, "
        "is not applied"
    )


def test_border_lag_not_applied() -> None:
    """A lag at the end of the search is not applied."""
    assert "larger lags were not searched" in credible_lag(lag(15, 0.5, at_end=True), {}).doubt


def test_voice_belongs_to_better_face() -> None:
    """The voice belongs to the face that it fits better on the shared frames."""
    listener, speaker = lag(-14, 0.3, 120), lag(1, 0.5, 120)
    assert credible_lag(listener, {4: speaker}).doubt.startswith("the mouth of face 4 fits the sound better")
    assert credible_lag(speaker, {0: listener}) is speaker


def test_interviewer_frames_do_not_outweigh() -> None:
    """A few frames with an interviewer do not outweigh minutes of the person's own speech."""
    own, interviewer = lag(1, 0.35, 7500), lag(0, 0.5, 250)
    assert credible_lag(own, {2: interviewer}) is own


def test_unmeasurable_lag_no_warning() -> None:
    """A lag that cannot be measured raises no doubt."""
    assert credible_lag(SoundLag(), {4: lag(1, 0.5)}) == SoundLag()


def chosen(folder: Path, count: int, rate: float, cuts: Sequence[int] = ()) -> BankRows:
    """The frames for a bank of a mouth that opens and shuts, all of whose frames are usable."""
    records = np.zeros(count, FACE_RECORD)
    records["frame"] = np.arange(count)
    records["scale"], records["rotation"] = 1.0, np.eye(3)
    records["mouth"][:, :, 1] = np.sin(0.7 * np.arange(count))[:, None] * np.arange(59)
    records["mouth"][count // 3, :, 1] += 20.0
    with RecordFile(folder / "faces.bin", FACE_RECORD) as faces:
        faces.append(records)
        return bank_rows(faces, list(range(count)), np.arange(count) / rate, cuts)


@pytest.mark.parametrize(("count", "rate"), [(25, 25.0), (250, 25.0), (600, 60.0)])
def test_ten_seconds_are_the_stage_s_own_choice(tmp_path: Path, count: int, rate: float) -> None:
    assert chosen(tmp_path, count, rate) == BankRows(list(range(count)), 0)


def test_a_bank_grows_with_the_footage(tmp_path: Path) -> None:
    half = chosen(tmp_path, 750, 25.0)
    assert half == BankRows(list(range(750)), MOST_FRAMES)


def test_longer_footage_most_different_mouths(tmp_path: Path) -> None:
    """The spans with the most different mouths of longer footage are taken."""
    long = chosen(tmp_path, 1200, 25.0)
    assert MOST_FRAMES - STRETCH_FRAMES <= len(long.rows) <= MOST_FRAMES
    assert 400 in long.rows
    runs = np.split(np.array(long.rows), np.flatnonzero(np.diff(long.rows) > 1) + 1)
    assert min(len(run) for run in runs) >= STRETCH_FRAMES


def test_stretches_end_at_cuts(tmp_path: Path) -> None:
    """The spans of a shot lie in the shot as a whole."""
    cuts = range(60, 1200, 60)
    rows = chosen(tmp_path, 1200, 25.0, cuts).rows
    lengths = [len(shot) for shot in np.split(rows, np.searchsorted(rows, cuts)) if len(shot)]
    assert min(lengths) >= STRETCH_FRAMES


def wave(frames: np.ndarray) -> np.ndarray:
    """Return mouths [T, 59, 3] that all move as one slow sine."""
    return np.broadcast_to(np.sin(frames / 4.0)[:, None, None], (len(frames), NUM_MOUTH_AREA, 3)).astype(np.float32)


@pytest.mark.parametrize("fraction", [-0.5, -0.25, 0.25, 0.5])
def test_lag_fraction_moves_picture(fraction: float) -> None:
    """A fraction of the lag moves the picture, and frames beside unusable ones are not usable."""
    frames = np.arange(40.0)
    usable = np.ones(40, np.bool_)
    usable[20] = False
    clip = MotionClip(wave(frames), usable, np.repeat(frames[:, None], 6, axis=1))
    moved = moved_later(clip, fraction)
    inner = slice(2, -2)
    np.testing.assert_allclose(moved.mouth[inner], wave(frames - fraction)[inner], atol=1e-3)
    np.testing.assert_allclose(moved.poses[inner, 0], (frames - fraction)[inner], atol=1e-9)
    outside, beside = (0, 21) if fraction > 0 else (39, 19)
    assert set(np.flatnonzero(~moved.usable)) == {outside, 20, beside}
    assert moved_later(clip, 0.0) is clip


class HeardStages:
    """Motion stage that keeps the request of a personalisation and answers a style."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    async def download(self, _: object, request: Any) -> AsyncIterator[motion_pb2.PersonalizeResponse]:
        self.requests.append(request)
        yield motion_pb2.PersonalizeResponse(step=1, num_steps=1, style=common_pb2.ArtefactRef(sha256="b" * 64))


@pytest.mark.parametrize(("num_frames", "asked"), [(MIN_ENROLMENT_FRAMES + 2, True), (MIN_ENROLMENT_FRAMES + 1, False)])
def test_personalised_at_time_of_sound(num_frames: int, *, asked: bool) -> None:
    """A second of footage is personalised, on the mouths at the time of the sound."""
    frames = np.arange(float(num_frames))
    clip = MotionClip(wave(frames), np.ones(num_frames, np.bool_), np.zeros((num_frames, 6)))
    heard = ClipWithSound(clip, np.zeros(num_frames, FEATURE_RECORD), lag_frames=2, lag_fraction=0.25)
    stages, style = HeardStages(), common_pb2.ArtefactRef(sha256="a" * 64)
    found = asyncio.run(personalize_motion(cast(Stages, stages), method_named("dubstage"), heard, style, lambda *_: None))
    assert found.sha256[0] == ("b" if asked else "a")
    assert len(stages.requests) == asked
    for request in stages.requests:
        mouths = from_tensor(
            request.mouth_landmarks, "mouth_landmarks", dtype=np.float32, shape=(num_frames - 2, NUM_MOUTH_AREA, 3)
        )
        np.testing.assert_allclose(mouths[2:], wave(frames - 0.25)[2:-2], atol=1e-3)
