"""The face of a reference picture, moved into the shape of another person."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gateway.dub.learn.reference import ReferenceFace, reference_face
from gateway.dub.state.records import FACE_RECORD
from services.common.array_types import Float32, UInt8
from services.common.face.actor_geometry import ANCHORS, ActorGeometry, measure_geometry
from services.common.face.crops import HeadPose, head_template, head_to_box, to_frame
from services.common.face.landmarks import (
    LIP_CORNERS,
    MOUTH_AREA,
    NOSE_BASE,
    NUM_LANDMARKS,
    lip_gaps,
    mouth_area_positions,
    part_lips,
)
from services.common.face.mouth_bank import target_points
from services.common.geometry.rotations import matrix_from_euler

UPRIGHT = HeadPose(1.0, np.eye(3), np.zeros(3))
INNER_MIDDLES = mouth_area_positions((13, 14))


def mean_head(opening: float) -> Float32:
    """The mean head with an open mouth, float32 [478, 3], head space."""
    head = np.zeros((NUM_LANDMARKS, 3), np.float32)
    head[:468] = head_template()
    mouth = head[list(MOUTH_AREA)]
    shut = part_lips(mouth, -lip_gaps(mouth))
    head[list(MOUTH_AREA)] = part_lips(shut, np.tile(np.float32([0.0, opening, 0.0]), (9, 1)))
    return head


def face(opening: float = 6.0, yaw: float = 0.0) -> ReferenceFace:
    """A picture of the mean head, in a frame of any scale and place."""
    pose = HeadPose(1.7, np.asarray(matrix_from_euler(np.radians([0.0, yaw, 10.0]))), np.array([400.0, 300.0, 0.0]))
    (record,) = np.zeros(1, FACE_RECORD)
    record["scale"], record["rotation"], record["translation"] = pose.scale, pose.rotation, pose.translation
    record["landmarks"] = to_frame(mean_head(opening), pose)
    record["mouth"] = mean_head(opening)[list(MOUTH_AREA)]
    return reference_face(record)


@pytest.fixture(scope="module")
def person() -> ActorGeometry:
    """Somebody with a wider and lower mouth, a longer nose and a broader jaw, who is filmed with shut lips."""
    shape = np.array([1.15, 1.1, 1.0], np.float32)
    mouth, anchors = (mean_head(0.0)[list(points)] * shape + np.float32([2.0, 4.0, 0.0]) for points in (MOUTH_AREA, ANCHORS))
    return measure_geometry(mouth[None], anchors[None])


def shown_at(reference: ReferenceFace, point: int, geometry: ActorGeometry, pose: HeadPose) -> Float32:
    """Return the place of one control point in the warped picture, float32 [2], box pixels."""
    rows, columns = np.mgrid[:160, :160]
    x, y = reference.points[point]
    dot: UInt8 = np.rint(255.0 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18.0)).astype(np.uint8)
    moved = replace(reference, box=np.dstack([dot] * 3)).in_shape_of(geometry, pose)[..., 0].astype(np.float64)
    return np.array([(moved * columns).sum(), (moved * rows).sum()], np.float32) / np.float32(moved.sum())


def test_mouth_corners_and_nose_align(person: ActorGeometry) -> None:
    """Mouth corners and nose come to where the person has them."""
    reference = face()
    turned = HeadPose(1.0, np.asarray(matrix_from_euler(np.radians([-8.0, 6.0, 0.0]))), np.zeros(3))
    for pose in (UPRIGHT, turned):
        wanted = target_points(person.closed_mouth, person, pose)
        corners = mouth_area_positions(LIP_CORNERS)
        nose = len(MOUTH_AREA) + np.array([ANCHORS.index(point) for point in (NOSE_BASE[0], NOSE_BASE[-1])])
        points = np.concatenate([corners, nose])
        assert np.linalg.norm(reference.points[points] - wanted[points], axis=1).mean() > 3.0
        for point in points:
            assert np.abs(shown_at(reference, int(point), person, pose) - wanted[point]).max() < 1.5


@pytest.mark.parametrize(("opening", "shown"), [(0.0, 0.0), (6.0, 6.0), (25.0, 12.0)])
def test_lip_distance_kept_unless_wide(opening: float, shown: float, person: ActorGeometry) -> None:
    """Lips stay as far apart unless they are wide open."""
    upper, lower = (shown_at(face(opening), int(point), person, UPRIGHT) for point in INNER_MIDDLES)
    assert lower[1] - upper[1] == pytest.approx(shown, abs=2.0)


def test_chin_aligns_with_wide_mouth() -> None:
    """The chin comes to where the person has it with a wide mouth."""
    heads = np.stack([mean_head(0.0)] * 9 + [mean_head(30.0)])
    person = measure_geometry(heads[:, list(MOUTH_AREA)], heads[:, list(ANCHORS)])
    (chin,) = mouth_area_positions((152,))
    lowest = head_to_box(heads[-1, list(MOUTH_AREA)], UPRIGHT)[chin, 1]
    assert lowest - face(0.0).points[chin, 1] > 15.0
    assert shown_at(face(0.0), int(chin), person, UPRIGHT)[1] == pytest.approx(lowest, abs=5.0)


def test_the_persons_own_picture_hardly_moves() -> None:
    head = mean_head(0.0)
    own = measure_geometry(head[None, list(MOUTH_AREA)], head[None, list(ANCHORS)])
    reference = replace(face(0.0), box=np.random.default_rng(0).integers(90, 110, (160, 160, 3)).astype(np.uint8))
    moved = reference.in_shape_of(own, UPRIGHT).astype(int)
    assert np.abs(moved - reference.box)[4:-4, 4:-4].mean() < 1.5


def test_a_speaking_mouth_from_the_front_costs_least() -> None:
    best = face(opening=10.0).cost
    assert best < 1e-3
    assert best < face(opening=10.0, yaw=10.0).cost < face(opening=10.0, yaw=20.0).cost
    assert best < face(opening=5.0).cost < face(opening=0.0).cost
    assert best < face(opening=30.0).cost
