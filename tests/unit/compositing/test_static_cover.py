"""Things that rest in the picture before a moving face. Drawn faces; tests/system/test_covered_and_lost.py has real people."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from gateway.compositing.static_cover import StaticCover, find_static_cover
from gateway.dub.analyse.face_records import cut_box
from services.common.array_types import UInt8
from services.common.face.crops import HeadPose, box_from_frame, head_template, head_to_box, invert
from services.common.face.landmarks import MOUTH_AREA
from tests.unit.compositing.test_movable import SKIN, box

MOUTH = head_template()[list(MOUTH_AREA)]
SHIRT, BLACK, SIDE = (20, 40, 120), (25, 25, 30), 360
Draw = Callable[[UInt8], None]


def face() -> UInt8:
    """A face with marks of its own, which show that the face moves."""
    drawn = box(SHIRT)
    for place in np.random.default_rng(1).integers((26, 4), (134, 110), (60, 2)):
        cv2.circle(drawn, place.tolist(), 2, tuple(int(0.85 * value) for value in SKIN), cv2.FILLED)
    return drawn


def disc(picture: UInt8) -> None:
    cv2.circle(picture, (190, 235), 36, BLACK, cv2.FILLED, cv2.LINE_AA)


def nothing(_: UInt8) -> None:
    pass


def shade(picture: UInt8) -> None:
    picture[:, 170:] = np.rint(picture[:, 170:] * 0.6).astype(np.uint8)


def beard(picture: UInt8) -> None:
    cv2.ellipse(picture, (80, 100), (34, 22), 0, 0, 360, (50, 42, 40), cv2.FILLED)


def filmed(
    before: Draw = nothing, on_face: Draw = nothing, reach: float = 8.0, count: int = 32
) -> tuple[list[UInt8], list[HeadPose]]:
    """Boxes and poses of a head that moves by `reach` pixels around its place, behind what is drawn before it."""
    shown, boxes, poses = face(), [], []
    on_face(shown)
    for step in range(count):
        place = np.array([180 + reach * np.sin(step / 3), 190 + 0.7 * reach * np.sin(step / 5), 0.0])
        pose = HeadPose(1.0, np.eye(3), place)
        picture = cv2.warpAffine(shown, invert(box_from_frame(pose)), (SIDE, SIDE), borderValue=SHIRT)
        before(picture)
        boxes.append(cut_box(np.asarray(picture, np.uint8), pose))
        poses.append(pose)
    return boxes, poses


@pytest.fixture(scope="module")
def cover() -> StaticCover:
    found = find_static_cover(*filmed(disc), MOUTH)
    assert found is not None
    return found


def drawn_in(pose: HeadPose) -> UInt8:
    """1 in the disc in the box of a pose."""
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    cv2.circle(picture, (190, 235), 36, (255, 255, 255), cv2.FILLED)
    return (cut_box(picture, pose)[..., 0] > 127).astype(np.uint8)


def test_disc_is_found_where_it_is_in_each_frame(cover: StaticCover) -> None:
    for seen, pose in zip(*filmed(disc), strict=True):
        found, drawn = cover.in_box(seen, pose), drawn_in(pose)
        assert found is not None
        assert cv2.dilate(found, np.ones((7, 7), np.uint8))[drawn > 0].mean() > 0.99
        assert not found[cv2.dilate(drawn, np.ones((9, 9), np.uint8)) == 0].any()


@pytest.mark.parametrize(
    ("before", "on_face", "reach"),
    [(nothing, nothing, 8.0), (nothing, beard, 8.0), (shade, nothing, 8.0), (disc, nothing, 0.2)],
    ids=["free face", "beard", "shadow that rests", "head that rests"],
)
def test_not_a_cover(before: Draw, on_face: Draw, reach: float) -> None:
    """The edges of a beard move with the head, and a shadow has a shade of the face. A head that rests tells nothing."""
    assert find_static_cover(*filmed(before, on_face, reach), MOUTH) is None


def test_disc_over_a_beard() -> None:
    assert find_static_cover(*filmed(disc, beard), MOUTH) is not None


def test_few_frames_tell_nothing() -> None:
    assert find_static_cover(*filmed(disc, count=12), MOUTH) is None


def test_a_thing_that_has_gone_covers_nothing(cover: StaticCover) -> None:
    boxes, poses = filmed()
    assert cover.in_box(boxes[0], poses[0]) is None


def test_face_behind_the_disc(cover: StaticCover) -> None:
    """The face takes the place of the disc, in the box and in finer pictures of the box. Other pixels stay."""
    boxes, poses = filmed(disc)
    for seen, free, pose in zip(boxes, filmed()[0], poses, strict=True):
        found = cover.in_box(seen, pose)
        assert found is not None
        behind = cover.behind(found, head_to_box(MOUTH, pose))
        without = behind.over(seen)
        drawn = drawn_in(pose)
        drawn[120:] = 0
        assert np.abs(without.astype(int) - free)[drawn > 0].mean() < 12, "the disc itself differs by 100"
        np.testing.assert_array_equal(without[behind.weight == 0], seen[behind.weight == 0])
        fine = behind.over(cv2.resize(seen[..., 0], (320, 320)))
        assert fine[160:240, 160:200].min() > 60
