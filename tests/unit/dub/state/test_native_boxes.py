"""The lower face at the footage's own resolution, from footage and its face records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dubstage.face.v1 import face_pb2
from gateway.dub.analyse.footage import TrackedFrame
from gateway.dub.state.native_boxes import KeptLuma, native_boxes, native_luma, scale_of
from gateway.dub.state.records import FACE_RECORD, RecordFile, pose_of
from gateway.media.combs import deinterlaced_luma
from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.types import MediaInfo
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
    assert [scale_of(faces, [2], reduction) for reduction in (2, 9)] == [4, 1]


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


def large_face(frame: int, scale: float = 2.6) -> np.ndarray:
    roll = np.radians(9.0)
    made = record(frame, scale)
    made["rotation"] = [[np.cos(roll), -np.sin(roll), 0.0], [np.sin(roll), np.cos(roll), 0.0], [0.0, 0.0, 1.0]]
    made["translation"] = (640.3 + 7.1 * frame, 480.7, 0.0)
    return made


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> MediaInfo:
    return probe(make_clip(tmp_path_factory.mktemp("large") / "clip.mp4", Clip(size=(1280, 960), pts=range(0, 2048, 512))))


def keep(luma: KeptLuma, info: MediaInfo, records: dict[int, np.ndarray], *, whole: bool) -> None:
    with VideoReader(info) as reader:
        for frame in reader:
            if frame.index in records:
                tracked = TrackedFrame(frame.index, face_pb2.FrameFaces(), to_rgb(frame) if whole else frame, 1.0)
                tracked.cut_box(pose_of(records[frame.index][0]), luma)


@pytest.mark.parametrize("whole", [True, False])
def test_kept_luma_equals_luma_decoded_again(large: MediaInfo, faces: RecordFile, tmp_path: Path, whole: bool) -> None:
    """Boxes of any of the records are the same, whether tracking saw whole pictures or only the faces of large frames."""
    records = {frame: large_face(frame) for frame in (0, 1, 3)}
    for made in records.values():
        faces.append(made)
    luma = KeptLuma(tmp_path)
    luma.begin(large.video)
    keep(luma, large, records, whole=whole)
    for rows in ([0, 1, 2], [1], [0, 2]):
        kept = luma.boxes(large.video, faces, rows, 3)
        assert kept is not None
        with VideoReader(large) as reader:
            for found, expected in zip(kept, native_boxes(reader, faces, rows, 3), strict=True):
                np.testing.assert_array_equal(found, expected)
    luma.close()
    assert luma.boxes(large.video, faces, [1], 3) is None
    assert [path.name for path in tmp_path.iterdir()] == ["faces.bin"]


def test_luma_is_not_kept_where_it_is_of_no_use(
    large: MediaInfo, faces: RecordFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small faces, long footage, and footage whose faces are too large for the file are decoded again."""
    records = {0: large_face(0), 1: large_face(1, scale=1.1)}
    for made in records.values():
        faces.append(made)
    luma = KeptLuma(tmp_path)
    luma.begin(large.video)
    keep(luma, large, {0: records[0]}, whole=True)
    assert luma.boxes(large.video, faces, [0], 3) is None, "a record came that was not kept"
    keep(luma, large, {1: records[1]}, whole=True)
    assert luma.boxes(large.video, faces, [0], 3) is not None
    assert luma.boxes(large.video, faces, [0, 1], 3) is None
    for bound, value in (("MOST_FRAMES", 3), ("MOST_BYTES", 200_000)):
        with monkeypatch.context() as small:
            small.setattr(KeptLuma, bound, value)
            luma.begin(large.video)
            keep(luma, large, records, whole=True)
            assert luma.boxes(large.video, faces, [0], 3) is None
    luma.close()
