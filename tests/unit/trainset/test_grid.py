from __future__ import annotations

import numpy as np
import pytest

from dubstage.common.v1alpha1 import common_pb2
from gateway.pipeline.records import FACE_RECORD
from gateway.trainset.grid import face_width, on_grid


def records(frames: list[int], seconds: np.ndarray) -> np.ndarray:
    """A face whose scale, place and mouth are linear in time and which turns at 10 degrees a second."""
    rows = np.zeros(len(frames), FACE_RECORD)
    for row, frame in zip(rows, frames, strict=True):
        time = seconds[frame]
        angle = np.radians(10.0 * time)
        row["frame"], row["reason"] = frame, common_pb2.FRAME_REASON_DUBBED
        row["scale"], row["translation"] = 1.0 + time, [100 * time, 0, 0]
        row["rotation"] = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
        row["mouth"], row["landmarks"], row["pixels"] = time, 2 * time, frame
    return rows


def test_at_25_frames_a_second_nothing_changes() -> None:
    seconds = np.arange(20) / 25
    rows = records(list(range(20)), seconds)
    track = on_grid(rows, seconds, 20)
    np.testing.assert_array_equal(track.landmarks, rows["landmarks"])
    np.testing.assert_array_equal(track.rotation, rows["rotation"])
    np.testing.assert_array_equal(track.boxes, rows["pixels"])
    assert track.usable.all()


def test_other_rates_are_interpolated_in_time() -> None:
    seconds = np.arange(36) / 29.97
    track = on_grid(records(list(range(36)), seconds), seconds, 29)
    grid = np.arange(29) / 25
    np.testing.assert_allclose(track.scale, 1.0 + grid, atol=1e-9)
    np.testing.assert_allclose(track.mouth_landmarks[:, 0, 0], grid, atol=1e-6)
    np.testing.assert_allclose(np.degrees(np.arctan2(track.rotation[:, 1, 0], track.rotation[:, 0, 0])), 10 * grid, atol=1e-6)
    np.testing.assert_array_equal(track.boxes[:, 0, 0, 0], np.round(grid * 29.97))


def test_gaps_are_not_filled() -> None:
    seconds = np.arange(30) / 25
    seen = [*range(5, 12), *range(20, 28)]
    track = on_grid(records(seen, seconds), seconds, 30)
    assert np.flatnonzero(track.usable).tolist() == seen
    absent = ~track.usable
    assert (track.scale[absent] == 1.0).all()
    assert not track.boxes[absent].any()
    np.testing.assert_array_equal(track.rotation[absent], np.broadcast_to(np.eye(3), (absent.sum(), 3, 3)))


def test_frames_with_a_reason_are_kept_but_not_usable() -> None:
    seconds = np.arange(10) / 25
    rows = records(list(range(10)), seconds)
    rows["reason"][4] = common_pb2.FRAME_REASON_OCCLUDED_MOUTH
    track = on_grid(rows, seconds, 10)
    assert np.flatnonzero(~track.usable).tolist() == [4]
    assert track.boxes[4].any()


def test_the_width_of_a_face_is_that_of_the_mean_head_in_pixels_of_the_footage() -> None:
    seconds = np.arange(3) / 25
    track = on_grid(records([0, 1, 2], seconds), seconds, 3)
    assert face_width(track) == pytest.approx(185.0 * 1.04, abs=0.1)
