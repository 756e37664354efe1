"""Tests of the texture of a mouth: splines, alignment of the frames, blend, and the inside of the mouth."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from services.common.array_types import Float32
from services.common.face.crops import BOX_SIZE, HeadPose, head_to_box
from services.common.face.landmarks import LIPS_OUTER, MOUTH_AREA, NUM_LIPS, shut_lips
from services.common.face.mouth_bank import Retrieved, retrieve, target_points, window_costs
from services.common.face.mouth_inside import MouthView
from services.common.face.mouth_texture import aligned, blend, fit_retrieved, inside_weight, teeth_weight, warp_retrieved
from services.common.face.thin_plate_spline import evaluate_grid, warp
from tests.unit.common.face.banks import AMOUNTS, MOUTH, bank_of, causal_windows, opened

STILL = HeadPose(1.0, np.eye(3), np.zeros(3))
LIPS = head_to_box(MOUTH, STILL)
AS_IT_IS: Float32 = np.stack(np.meshgrid(np.arange(BOX_SIZE), np.arange(BOX_SIZE)), axis=-1).astype(np.float32)


def test_blend_of_flat_is_mean() -> None:
    """A blend of flat pictures is their weighted mean."""
    pictures = np.stack([np.full((160, 160, 3), value, np.uint8) for value in (100, 140, 200)])
    mixed = blend(pictures, np.array([0.5, 0.25, 0.25], np.float32))
    assert np.unique(mixed).tolist() == [135]


def test_blend_keeps_best_detail() -> None:
    """A blend keeps the detail of the best picture."""
    stripes = (np.arange(160) % 2 * 80 + 80).astype(np.uint8)
    best = np.broadcast_to(stripes[None, :, None], (160, 160, 3)).copy()
    flat = np.full_like(best, 120)
    mixed = blend(np.stack([best, flat, flat]), np.array([0.6, 0.2, 0.2], np.float32)).astype(float)
    assert mixed[:, 20:-20].std() > 0.9 * best.std()
    plain = 0.6 * best.astype(float) + 0.4 * 120
    assert plain.std() < 0.7 * best.std()


def test_frame_in_bank_unchanged() -> None:
    """A target frame that equals a frame in the bank comes back unchanged."""
    bank = bank_of(opened(AMOUNTS))
    found = retrieve(bank, window_costs(bank, causal_windows(bank.mouth)[30], np.eye(3)), 1)
    points = target_points(bank.mouth[30], bank.geometry, HeadPose(1.0, np.eye(3), np.zeros(3)))
    grids = evaluate_grid(fit_retrieved(bank, found, points))
    np.testing.assert_array_equal(warp_retrieved(bank, found, grids, bank.view(30)).texture, bank.boxes[30])


def test_inside_of_one_frame() -> None:
    """Between the lips, the texture is the warped picture of the frame that the inside is taken from, and of no other."""
    bank = bank_of(opened(AMOUNTS))
    costs = window_costs(bank, causal_windows(bank.mouth)[30], np.eye(3))
    mouth = bank.mouth[30] + np.float32(1.0)
    points = target_points(mouth, bank.geometry, HeadPose(1.0, np.eye(3), np.zeros(3)))
    view = MouthView(mouth, np.eye(3), points[: len(MOUTH_AREA)])
    inside = retrieve(bank, costs, 3, inside=44)
    alone = Retrieved(np.full((1, 6), 44), np.ones(1, np.float32), 44)
    grids = [evaluate_grid(fit_retrieved(bank, found, points)) for found in (inside, alone)]
    pictures = [warp_retrieved(bank, found, grid, view).texture for found, grid in zip((inside, alone), grids, strict=True)]
    weight = inside_weight(view)
    between = weight == 1.0
    assert between.sum() > 50
    np.testing.assert_array_equal(pictures[0][between], pictures[1][between])
    assert (pictures[0][weight == 0.0] != pictures[1][weight == 0.0]).any()
    assert inside.sources.tolist() == [*inside.rows[:, -1], 44]


def tracked_above_the_teeth(teeth: tuple[int, int, int] | None) -> tuple[np.ndarray, MouthView]:
    """A picture of red lips whose lower teeth begin at the tracked inner lip and reach three pixels below it, and the mouth."""
    mouth = opened(np.array([6.0]))[0]
    view = MouthView(mouth, np.eye(3), head_to_box(mouth, STILL))
    picture = np.full((BOX_SIZE, BOX_SIZE, 3), (190, 150, 130), np.uint8)
    outer, inner = np.split(np.rint(view.landmarks[:NUM_LIPS]).astype(np.int32), [len(LIPS_OUTER)])
    if teeth is None:
        cv2.fillPoly(picture, [outer], (170, 80, 80))
    else:
        cv2.fillPoly(picture, [inner + np.int32([0, 3])], teeth)
        below = picture.copy()
        cv2.fillPoly(picture, [outer], (170, 80, 80))
        shown = (below == teeth).all(axis=-1)
        picture[shown] = teeth
    cv2.fillPoly(picture, [inner], (40, 20, 20))
    return picture, view


@pytest.mark.parametrize("teeth", [(225, 215, 200), (225, 180, 178)])
def test_teeth_beyond_the_tracked_lips_are_found(teeth: tuple[int, int, int]) -> None:
    picture, view = tracked_above_the_teeth(teeth)
    weight = teeth_weight(picture, view.landmarks)
    shown = (picture == teeth).all(axis=-1)
    assert shown.sum() > 50
    assert weight[shown].mean() > 150
    assert weight[cv2.dilate(shown.astype(np.uint8), np.ones((9, 9), np.uint8)) == 0].max() < 20


def test_lips_and_skin_are_no_teeth() -> None:
    picture, view = tracked_above_the_teeth(None)
    assert not teeth_weight(picture, view.landmarks).any()
    assert not teeth_weight(np.full_like(picture, 128), view.landmarks).any()
    away = view.landmarks + np.float32(400.0)
    assert not teeth_weight(picture, away).any(), "a bad track puts the mouth outside the box"


def test_teeth_beyond_the_tracked_lips_come_from_one_frame() -> None:
    """Teeth below the tracked inner lip come from the frame that shows the inside. Lips that close cover the teeth."""
    picture, view = tracked_above_the_teeth((225, 215, 200))
    plain, _ = tracked_above_the_teeth(None)
    bank = bank_of(np.repeat(view.mouth[None], 12, axis=0))
    bank.boxes[:] = plain
    bank.boxes[9] = picture
    found = Retrieved(np.array([[0] * 6, [1] * 6, [2] * 6]), np.full(3, 1 / 3, np.float32), 9)
    teeth = (picture == (225, 215, 200)).all(axis=-1)

    def shown(target: np.ndarray) -> np.ndarray:
        points = target_points(target, bank.geometry, STILL)
        grids = evaluate_grid(fit_retrieved(bank, found, points))
        return warp_retrieved(bank, found, grids, MouthView(target, np.eye(3), points[: len(MOUTH_AREA)])).texture

    parted, shut = shown(view.mouth), shown(shut_lips(view.mouth))
    assert np.abs(parted[teeth].astype(float) - picture[teeth]).mean() < 25
    light, few = (int((np.abs(each.astype(float) - (225, 215, 200)).max(axis=-1) < 60).sum()) for each in (parted, shut))
    assert few < 0.4 * light


def lips_at(shift: float) -> np.ndarray:
    """A picture of two lips with a dark line between them, so many pixels below the landmarks: uint8 [160, 160, 3]."""
    picture = np.full((BOX_SIZE, BOX_SIZE, 3), (190, 150, 130), np.uint8)
    x, y = LIPS[:NUM_LIPS].mean(axis=0)
    for width, height, colour in ((22, 9, (170, 80, 80)), (18, 2, (40, 20, 20))):
        centre, axes = (round(16 * x), round(16 * (y + shift))), (16 * width, 16 * height)
        cv2.ellipse(picture, centre, axes, 0, 0, 360, colour, -1, cv2.LINE_AA, 4)
    return cv2.GaussianBlur(picture, (0, 0), 1.0)


def test_lips_beside_their_landmarks_are_moved_to_their_mean_place() -> None:
    """Frames whose lips lie beside their landmarks show the lips at the same pixels, the weighted mean of all places."""
    boxes, weights = np.stack([lips_at(shift) for shift in (0.0, 2.0, -1.0)]), np.array([0.5, 0.25, 0.25], np.float32)
    seen = [warp(box, backward) for box, backward in zip(boxes, aligned([AS_IT_IS] * 3, boxes, weights, LIPS), strict=True)]
    mean_place = lips_at(0.25).astype(float)
    before, after = ([float(np.abs(picture - mean_place).mean()) for picture in pictures] for pictures in (boxes, seen))
    assert max(after) < 0.4 * max(before)
    blurred, sharp = (np.tensordot(weights, np.stack(pictures).astype(float), 1) for pictures in (boxes, seen))
    assert np.abs(sharp - mean_place).mean() < 0.6 * np.abs(blurred - mean_place).mean()


def test_only_the_lips_are_aligned() -> None:
    """Away from the lips, maps stay as the splines made them; one map stays as it is everywhere."""
    boxes, weights = np.stack([lips_at(0.0), lips_at(2.0)]), np.array([0.6, 0.4], np.float32)
    for found in aligned([AS_IT_IS] * 2, boxes, weights, LIPS):
        changed = np.argwhere((found != AS_IT_IS).any(axis=-1))[:, ::-1]
        assert len(changed)
        assert (changed.min(axis=0) >= LIPS[:NUM_LIPS].min(axis=0) - 13).all()
        assert (changed.max(axis=0) <= LIPS[:NUM_LIPS].max(axis=0) + 13).all()
    np.testing.assert_array_equal(aligned([AS_IT_IS], boxes[:1], weights[:1], LIPS)[0], AS_IT_IS)


@pytest.mark.parametrize("shift", [(300.0, 0.0), (0.0, -300.0), (75.0, 0.0)])
def test_a_mouth_outside_the_box_is_not_aligned(shift: tuple[float, float]) -> None:
    """Landmarks outside the box, as bad tracks give them, leave the maps as they are."""
    boxes = np.stack([lips_at(0.0), lips_at(2.0)])
    landmarks = LIPS + np.float32(shift)
    for found in aligned([AS_IT_IS] * 2, boxes, np.array([0.6, 0.4], np.float32), landmarks):
        np.testing.assert_array_equal(found, AS_IT_IS)


def test_alignment_is_the_same_for_any_number_of_threads() -> None:
    """The number of OpenCV's threads does not change the aligned maps."""
    boxes, weights = np.stack([lips_at(shift) for shift in (0.0, 1.5, -1.0)]), np.array([0.5, 0.3, 0.2], np.float32)
    threads = cv2.getNumThreads()
    try:
        found = []
        for number in (1, 4):
            cv2.setNumThreads(number)
            found.append(np.stack(aligned([AS_IT_IS] * 3, boxes, weights, LIPS)))
    finally:
        cv2.setNumThreads(threads)
    np.testing.assert_array_equal(found[0], found[1])
