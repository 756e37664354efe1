"""Looks of a face in each shot, and the records of covered mouths that can be dubbed all the same."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dubstage.common.v1 import common_pb2
from gateway.compositing.face_parts import JAW_CONTOUR
from gateway.compositing.movable import FaceColours, learn_colours
from gateway.dub.analyse import shot_looks
from gateway.dub.analyse.face_records import FaceIndex, read_index
from gateway.dub.analyse.shot_looks import ShotLooks
from gateway.dub.state.records import FACE_RECORD, RecordFile, mouth_in_box
from services.common.array_types import Array, UInt8
from services.common.face.crops import HeadPose, head_template
from services.common.face.landmarks import MOUTH_AREA
from tests.unit.compositing.test_static_cover import disc, filmed

COVERED = common_pb2.FRAME_REASON_OCCLUDED_MOUTH
BLACK = (20, 20, 25)

PALE, TANNED = (225, 175, 160), (120, 80, 55)


def face_records(count: int, cut: int) -> Array:
    """A pale face before a tanned wall, and from frame `cut` on the other way round."""
    made = np.zeros(count, FACE_RECORD)
    made["scale"], made["rotation"], made["mouth"] = 1.0, np.eye(3), head_template()[list(MOUTH_AREA)]
    for frame, record in enumerate(made):
        face, wall = (PALE, TANNED) if frame < cut else (TANNED, PALE)
        record["frame"] = frame
        record["pixels"] = wall
        contour = np.round(mouth_in_box(record)[JAW_CONTOUR]).astype(np.int32)
        cv2.fillPoly(record["pixels"], [np.concatenate([contour, [[contour[-1, 0], 0], [contour[0, 0], 0]]])], face)
    return made


def test_shots_have_their_own_colours(tmp_path: Path) -> None:
    """What may move is judged by the face's colours in the frame's own shot, in whatever order frames are asked for."""
    records = face_records(40, 25)
    with RecordFile(tmp_path / "faces.bin", FACE_RECORD) as faces:
        faces.append(records)
        rows, usable = np.arange(40), np.ones(40, np.bool_)
        found = ShotLooks(faces, rows, usable, [25]).movable(records)
        later = ShotLooks(faces, rows, usable, [25]).movable(records[30:])
    np.testing.assert_array_equal(found[30:], later)
    assert found[:, 60, 70:90].all()
    assert not found[:, 150:].any(), "the wall has the colour of the face in the other shot"


def test_threads_learn_a_shot_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows that ask at the same time get what one of them has learned."""
    learned: list[int] = []

    def counted(*arguments: Any) -> FaceColours:
        learned.append(1)
        return learn_colours(*arguments)

    monkeypatch.setattr(shot_looks, "learn_colours", counted)
    records = face_records(40, 25)
    with RecordFile(tmp_path / "faces.bin", FACE_RECORD) as faces, ThreadPoolExecutor(4) as pool:
        faces.append(records)
        looks = ShotLooks(faces, np.arange(40), np.ones(40, np.bool_), [25])
        found = list(pool.map(looks.movable, [records[:5]] * 4))
    assert len(learned) == 1
    assert all((each == found[0]).all() for each in found)


def index_of(tmp_path: Path, records: Array, cuts: list[int]) -> FaceIndex:
    tmp_path.mkdir(exist_ok=True)
    with RecordFile(tmp_path / "faces.bin", FACE_RECORD) as faces:
        faces.append(records)
        return read_index(faces, cuts, len(records))


def with_disc(records: Array, frames: range, radius: int) -> Array:
    """The same records, with a black disc from below before the face, which the face stage tells of."""
    records["reason"] = common_pb2.FRAME_REASON_DUBBED
    records["hands"] = np.nan
    for frame in frames:
        records["reason"][frame] = COVERED
        cv2.circle(records["pixels"][frame], (80, 140), radius, BLACK, cv2.FILLED)
    return records


def test_covered_mouths_that_can_be_dubbed(tmp_path: Path) -> None:
    """A cover of the chin leaves the mouth to be dubbed, a cover of the mouth does not."""
    chin = index_of(tmp_path / "chin", with_disc(face_records(60, 60), range(30, 40), 45), [])
    mouth = index_of(tmp_path / "mouth", with_disc(face_records(60, 60), range(30, 40), 90), [])
    assert chin.partly_covered.tolist() == list(range(30, 40))
    assert mouth.partly_covered.tolist() == []


def test_short_stretches_between_undubbed_frames_stay_undubbed(tmp_path: Path) -> None:
    records = with_disc(face_records(60, 60), range(30, 44), 90)
    records["pixels"][35:38] = with_disc(face_records(60, 60), range(35, 38), 45)["pixels"][35:38]
    assert index_of(tmp_path, records, []).partly_covered.tolist() == []


def test_frames_beside_a_cover_are_not_free(tmp_path: Path) -> None:
    """Something that comes before a face covers a little of the face in the frames before: nothing is learned from these."""
    index = index_of(tmp_path, with_disc(face_records(60, 60), range(30, 40), 45), [])
    free = index.free_frames(index.rows_of(0))
    assert np.flatnonzero(~free).tolist() == list(range(18, 52))


def test_short_video_without_a_cover_is_free(tmp_path: Path) -> None:
    index = index_of(tmp_path, with_disc(face_records(10, 10), range(0), 45), [])
    assert index.free_frames(index.rows_of(0)).tolist() == [True] * 10


def test_looks_of_another_shot_do_not_count(tmp_path: Path) -> None:
    """A shot without enough free frames says nothing about what covers the face."""
    index = index_of(tmp_path, with_disc(face_records(60, 60), range(30, 40), 45), [29, 41])
    assert index.partly_covered.tolist() == []


def records_of(boxes: list[UInt8], poses: list[HeadPose]) -> Array:
    """Records of a face that the face stage takes for free."""
    made = np.zeros(len(boxes), FACE_RECORD)
    made["reason"], made["mouth"], made["hands"] = common_pb2.FRAME_REASON_DUBBED, head_template()[list(MOUTH_AREA)], np.nan
    for frame, (record, box, pose) in enumerate(zip(made, boxes, poses, strict=True)):
        record["frame"], record["pixels"] = frame, box
        record["scale"], record["rotation"], record["translation"] = pose.scale, pose.rotation, pose.translation
    return made


def over_the_mouth(picture: UInt8) -> None:
    cv2.circle(picture, (180, 200), 40, BLACK, cv2.FILLED)
    cv2.rectangle(picture, (165, 200), (195, 359), BLACK, cv2.FILLED)


@pytest.mark.parametrize(("share", "told"), [(0.0, common_pb2.FRAME_REASON_DUBBED), (0.2, COVERED)], ids=["overlooked", "told"])
def test_mouth_beside_a_static_thing_is_dubbed(tmp_path: Path, share: float, told: int) -> None:
    """The face stage overlooks a thing that rests before the chin, or tells of a cover: frames are dubbed around the thing."""
    records = records_of(*filmed(disc))
    records["reason"], records["covered_share"] = told, share
    index = index_of(tmp_path, records, [])
    assert (index.reason == common_pb2.FRAME_REASON_DUBBED).all()
    with RecordFile(tmp_path / "faces.bin", FACE_RECORD) as faces:
        rows = index.rows_of(0)
        looks = ShotLooks(faces, rows, index.free_frames(rows), index.shot_cuts)
        covers = looks.covers(records)
        assert all(cover is not None and cover.pixels[110, 80] and not cover.pixels[50, 80] for cover in covers)
        assert all(looks.behind(record) is not None for record in records)


def test_more_of_a_cover_than_the_static_thing(tmp_path: Path) -> None:
    """A hand that the face stage tells of, beside a static thing, does not become a free face."""
    records = records_of(*filmed(disc))
    records["reason"][10:20], records["covered_share"][10:20] = COVERED, 0.9
    assert (index_of(tmp_path, records, []).reason[10:20] == COVERED).all()


def test_mouth_behind_a_static_thing_is_not_dubbed(tmp_path: Path) -> None:
    index = index_of(tmp_path, records_of(*filmed(over_the_mouth)), [])
    assert (index.reason == COVERED).all()
    assert index.partly_covered.tolist() == []


def test_parts_of_a_shot_tell_each_other(tmp_path: Path) -> None:
    """Where the head rests nothing can be told, but what stood before the face a little later stood there before."""
    (still, still_poses), (boxes, poses) = filmed(disc, reach=0.2, count=380), filmed(disc, count=380)
    records = records_of(still + boxes, still_poses + poses)
    index_of(tmp_path, records, [])
    with RecordFile(tmp_path / "faces.bin", FACE_RECORD) as faces:
        apart = ShotLooks(faces, np.arange(760), np.ones(760, np.bool_), [380])
        together = ShotLooks(faces, np.arange(760), np.ones(760, np.bool_), [])
        assert apart.covers(records[100:101]) == [None]
        assert together.covers(records[100:101]) != [None]


def test_bank_is_made_from_whole_mouths(tmp_path: Path) -> None:
    """If a thing covers the mouth in some frames, the other frames count; without a thing, all frames count."""
    boxes, poses = filmed(disc, reach=14.0, count=200)
    records = records_of(boxes, poses)
    index_of(tmp_path, records, [])
    with RecordFile(tmp_path / "faces.bin", FACE_RECORD) as faces:
        looks = ShotLooks(faces, np.arange(200), np.ones(200, np.bool_), [])
        found = looks.clearest(list(range(200)))
        shares = np.array([cover.mouth_share for record in records if (cover := looks.behind_static(record)) is not None])
    assert len(shares) == 200
    assert found == np.flatnonzero(shares <= max(0.05, np.sort(shares)[74])).tolist()
    assert 75 <= len(found) < 200
    free = records_of(*filmed(count=40))
    index_of(tmp_path / "free", free, [])
    with RecordFile(tmp_path / "free" / "faces.bin", FACE_RECORD) as faces:
        assert ShotLooks(faces, np.arange(40), np.ones(40, np.bool_), []).clearest(list(range(40))) == list(range(40))
