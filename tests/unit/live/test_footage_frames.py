"""Live streams show footage of any rate at the footage's own speed."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from dubstage.common.v1alpha1 import common_pb2
from gateway.dub.records import FACE_RECORD
from gateway.live.footage_frames import MAX_FRAMES, MIN_FRAMES, at_motion_rate, pictures_of, unbroken
from gateway.media.inspection import inspect_film
from gateway.media.reader import VideoReader, to_rgb
from tests.unit.media.made_footage import VARIABLE_PTS, Clip, make_clip


def faces(num_frames: int, lost: tuple[int, ...] = ()) -> np.ndarray:
    records = np.zeros(num_frames, FACE_RECORD)
    records["frame"] = np.arange(num_frames)
    records["reason"] = common_pb2.FRAME_REASON_DUBBED
    return np.delete(records, list(lost))


def shown(folder: Path, pts: tuple[int, ...], rate: Fraction) -> list[int]:
    """Frames of footage with these times, ticks of 1/12800 s, that a live stream shows."""
    info = inspect_film(make_clip(folder / "clip.mp4", Clip(pts=pts, rate=rate)))
    (run,) = unbroken(faces(len(pts)))
    return at_motion_rate(run, info.video)["frame"].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (25, list(range(24))),
        (50, list(range(0, 24, 2))),
        (100, list(range(0, 24, 4))),
        (Fraction(25, 2), [frame // 2 for frame in range(47)]),
    ],
)
def test_frame_n_of_a_stream_is_the_footage_at_n_25ths_of_a_second(tmp_path: Path, rate: Fraction, expected: list[int]) -> None:
    step = int(12800 / rate)
    assert shown(tmp_path, tuple(range(0, 24 * step, step)), Fraction(rate)) == expected


def test_footage_of_variable_rate_keeps_its_pauses(tmp_path: Path) -> None:
    found = np.array(shown(tmp_path, VARIABLE_PTS, Fraction(25)))
    wanted = VARIABLE_PTS[0] + 512 * np.arange(len(found))
    off = np.abs(np.array(VARIABLE_PTS)[found] - wanted)
    assert (off == np.abs(np.array(VARIABLE_PTS)[:, None] - wanted).min(axis=0)).all()


def test_three_seconds_are_shown_at_most(tmp_path: Path) -> None:
    assert len(shown(tmp_path, tuple(range(0, 200 * 256, 256)), Fraction(50))) == MAX_FRAMES


def test_short_stretches_are_left_out() -> None:
    runs = unbroken(faces(20, lost=(MIN_FRAMES - 1, 12)))
    assert [(run["frame"][0], run["frame"][-1]) for run in runs] == [(5, 11), (13, 19)]


def test_every_frame_has_its_own_picture(tmp_path: Path) -> None:
    info = inspect_film(make_clip(tmp_path / "clip.mp4", Clip()))
    run = faces(12)[[3, 3, 5, 8]]
    with VideoReader(info) as reader:
        every = [to_rgb(frame) for frame in reader.frames(0, 12)]
    found = pictures_of(info, run)
    for picture, number in zip(found, (3, 3, 5, 8), strict=True):
        np.testing.assert_array_equal(picture, every[number])
    assert found[0] is found[1]
