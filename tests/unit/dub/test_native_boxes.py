"""The lower face at the footage's own resolution, from footage and its face records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gateway.dub.native_boxes import native_boxes, native_luma, scale_of
from gateway.dub.records import FACE_RECORD, RecordFile, pose_of
from gateway.media.pixels import deinterlaced_luma
from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_rgb
from services.common.face.crops import HeadPose
from services.common.face.mouth_detail import grey
from tests.unit.media.made_footage import Clip, make_clip


@pytest.fixture
def faces(tmp_path: Path) -> Iterator[RecordFile]:
    with RecordFile(tmp_path / "faces.bin", FACE_RECORD) as file:
        yield file


def record(frame: int, scale: float) -> np.ndarray:
    made = np.zeros(1, FACE_RECORD)
    made["frame"], made["scale"], made["rotation"], made["translation"] = frame, scale, np.eye(3), (60.0, 30.0, 0.0)
    return made


def test_the_scale_is_that_of_most_frames(faces: RecordFile) -> None:
    for frame, scale in enumerate([2.0, 2.1, 9.0, 1.9, 2.0]):
        faces.append(record(frame, scale))
    assert scale_of(faces, range(5)) == 2
    assert scale_of(faces, [2]) == 4
    assert scale_of(faces, []) == 1


def test_box_of_own_frame(faces: RecordFile, tmp_path: Path) -> None:
    """Each record gets the box of its own frame."""
    info = probe(make_clip(tmp_path / "clip.mp4", Clip()))
    chosen = [1, 2, 5]
    for frame in chosen:
        faces.append(record(frame, 0.4))
    with VideoReader(info) as reader:
        found = list(native_boxes(reader, faces, range(3), 2))
    with VideoReader(info) as reader:
        shown = {frame.index: deinterlaced_luma(grey(to_rgb(frame))) for frame in reader}
    assert [box.shape for box in found] == [(320, 320)] * 3
    for box, frame, row in zip(found, chosen, range(3), strict=True):
        np.testing.assert_array_equal(box, native_luma(shown[frame], pose_of(faces.read(row, row + 1)[0]), 2))


def test_a_pixel_of_the_footage_keeps_its_sharpness() -> None:
    picture = np.zeros((1000, 1000), np.uint8)
    picture[::2] = 255  # the finest stripes that footage can have
    pose = HeadPose(3.0, np.eye(3), np.array([500.0, 400.0, 0.0]))
    assert native_luma(picture, pose, 3).std() > 100
    assert native_luma(picture, pose, 1).std() < 10
