"""Tracks of long videos, in pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from dubstage.common.v1 import common_pb2
from gateway.dub.state.records import FACE_RECORD, RecordFile
from research.trainset import clip as video_module
from research.trainset.clip import LargestFace, face_width, on_grid, tracked
from services.common.errors import StorageFullError
from tests.file_limit import files_of_at_most

RATE = 30


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


def test_flagged_frames_kept_unusable() -> None:
    """Frames with a reason are kept but not usable."""
    seconds = np.arange(10) / 25
    rows = records(list(range(10)), seconds)
    rows["reason"][4] = common_pb2.FRAME_REASON_OCCLUDED_MOUTH
    track = on_grid(rows, seconds, 10)
    assert np.flatnonzero(~track.usable).tolist() == [4]
    assert track.boxes[4].any()


def test_face_width_in_footage_pixels() -> None:
    """The width of a face is that of the mean head in pixels of the footage."""
    seconds = np.arange(3) / 25
    track = on_grid(records([0, 1, 2], seconds), seconds, 3)
    assert face_width(track) == pytest.approx(185.0 * 1.04, abs=0.1)


@pytest.fixture
def faces(tmp_path: Path) -> Iterator[RecordFile]:
    """Records of 5 s at 30 frames/s, of a face that grows, and is away from 2 s to 4 s."""
    frames = [frame for frame in range(5 * RATE) if not 2 * RATE <= frame < 4 * RATE]
    rows = np.zeros(len(frames), FACE_RECORD)
    rows["frame"], rows["reason"] = frames, common_pb2.FRAME_REASON_DUBBED
    rows["scale"], rows["rotation"] = 1.0 + rows["frame"] / RATE, np.eye(3)
    with RecordFile(tmp_path / "faces", FACE_RECORD) as file:
        file.append(rows)
        yield file


def video_of(faces: RecordFile) -> LargestFace:
    rows = np.full(5 * RATE, -1, np.int64)
    rows[faces.read(0, faces.num_rows)["frame"]] = np.arange(faces.num_rows)
    return LargestFace(faces, rows, np.arange(5 * RATE) / RATE, 125)


def test_pieces_join_to_the_whole_track(faces: RecordFile) -> None:
    video = video_of(faces)
    whole = on_grid(faces.read(0, faces.num_rows), np.arange(5 * RATE) / RATE, 125)
    parts = [video.track(first, 25) for first in range(0, 125, 25)]
    assert [part is None for part in parts] == [False, False, False, False, False]
    for name in ("scale", "rotation", "usable", "landmarks"):
        np.testing.assert_array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(whole, name))


def test_a_piece_without_a_face_has_no_track(faces: RecordFile) -> None:
    assert video_of(faces).track(60, 30) is None


def test_videos_cut_into_minutes(faces: RecordFile) -> None:
    """Videos are cut into minutes without a short rest."""

    def pieces(num_frames: int) -> list[tuple[int, int]]:
        return list(LargestFace(faces, np.zeros(0, np.int64), np.zeros(0), num_frames).pieces())

    assert pieces(3) == [(0, 3)]
    assert pieces(1500) == [(0, 1500)]
    assert pieces(1520) == [(0, 1500)]
    assert pieces(3100) == [(0, 1500), (1500, 1500), (3000, 100)]


def test_full_disk_names_the_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk under the records of a video names the set."""

    async def analyse(_stages: object, _info: object, faces: RecordFile, **_: object) -> list[int]:
        faces.append(np.zeros(1, FACE_RECORD))
        faces.sync()
        return []

    async def track() -> None:
        async with tracked(cast("Any", None), cast("Any", None), tmp_path / "set" / "1.faces"):
            pytest.fail("the records are not on the disk")

    monkeypatch.setattr(video_module, "analyse_footage", analyse)
    (tmp_path / "set").mkdir()
    with (
        files_of_at_most(1000),
        pytest.raises(StorageFullError, match=r"no space left in .*/set"),
    ):
        asyncio.run(track())
    assert list((tmp_path / "set").iterdir()) == []
