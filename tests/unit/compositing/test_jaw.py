from __future__ import annotations

import cv2
import numpy as np
import pytest

from gateway.compositing.blend import blend_box
from gateway.compositing.jaw import jaw_shift, move_jaw, warp_footage
from services.common.array_types import Bool, Float32, UInt8
from services.common.face.crops import BOX_SIZE
from services.common.face.landmarks import JAW, NUM_LIPS, NUM_MOUTH_AREA

CENTRE, WIDTH, CHIN = 80, 56.0, 112.0
"""Column of the chin, half the width of the jaw, and row of the chin of a shut mouth, box pixels."""
LIPS = 26
"""Half the width of the lips, box pixels."""
SKIN, NECK = np.array([200.0, 150.0, 130.0]), np.array([120.0, 80.0, 70.0])
LINE_PX = 3
COLLAR, RIM_PX = 140, 2


def _jaw(drop: float) -> Float32:
    """Mouth-area landmarks, float32 [59, 2], whose jaw hangs `drop` pixels below the shut mouth's."""
    points = np.zeros((NUM_MOUTH_AREA, 2), np.float32)
    around = 4 * np.pi * np.arange(NUM_LIPS) / NUM_LIPS  # outer and inner lips, both from the right corner
    points[:NUM_LIPS] = np.stack([CENTRE - LIPS * np.cos(around), 80 - 8 * np.sin(around)], axis=1)
    angles = np.linspace(0, np.pi, len(JAW) - 2)
    contour = points[NUM_LIPS : NUM_LIPS + len(angles)]
    contour[:, 0] = CENTRE - WIDTH * np.cos(angles)
    contour[:, 1] = 70 + (CHIN - 70 + drop) * np.sin(angles)
    return points


def _face(drop: float) -> UInt8:
    """A box with skin above the jaw, a dark neck below, and a darker line along the lower edge of the chin."""
    outline = np.round(np.concatenate([_jaw(drop)[NUM_LIPS : NUM_LIPS + len(JAW) - 2], [[140, 0], [20, 0]]])).astype(np.int32)
    box = np.full((BOX_SIZE, BOX_SIZE, 3), NECK, np.uint8)
    cv2.fillPoly(box, [outline], SKIN.tolist())
    cv2.polylines(box, [outline[: len(JAW) - 2]], False, (40, 20, 20), LINE_PX)
    return np.asarray(cv2.GaussianBlur(box, (0, 0), 1.0), np.uint8)


def _mask() -> UInt8:
    """The lower-face mask of a person whose jaw drops 14 pixels."""
    hard = np.zeros((BOX_SIZE, BOX_SIZE), np.uint8)
    cv2.fillConvexPoly(hard, cv2.convexHull(np.round(_jaw(14)[NUM_LIPS : NUM_LIPS + len(JAW) - 2]).astype(np.int32)), 255)
    cv2.rectangle(hard, (24, 30), (136, 70), 255, -1)
    return np.asarray(np.clip(cv2.distanceTransform(hard, cv2.DIST_L2, 5) / 7 * 255, 0, 255), np.uint8)


def _dark_lines(box: UInt8) -> int:
    """How many dark lines a walk down the middle column crosses."""
    dark = box[60:, CENTRE - 2 : CENTRE + 3].mean(axis=(1, 2)) < 70
    return int((dark[1:] & ~dark[:-1]).sum())


def test_matching_jaw_keeps_footage() -> None:
    """The footage rests where the filmed jaw is the target jaw."""
    box = np.random.default_rng(0).integers(0, 256, (BOX_SIZE, BOX_SIZE, 3)).astype(np.uint8)
    shift = jaw_shift(_jaw(5), _jaw(5), _mask())
    assert not shift.any()
    np.testing.assert_array_equal(warp_footage(box, shift), box)


@pytest.mark.parametrize(("filmed", "target"), [(14.0, 0.0), (6.0, 0.0), (0.0, 12.0)])
def test_the_filmed_chin_comes_to_the_wanted_chin(filmed: float, target: float) -> None:
    box = warp_footage(_face(filmed), jaw_shift(_jaw(filmed), _jaw(target), _mask()))
    chin = box[:, CENTRE].sum(axis=1, dtype=int)[90:].argmin() + 90
    assert abs(int(chin) - (CHIN + target)) <= 2


def test_high_over_low_chin() -> None:
    """A high chin over a low one gives one chin."""
    mask, low, high = _mask(), _face(14), _face(0)
    shift = jaw_shift(_jaw(14), _jaw(0), mask)
    assert _dark_lines(blend_box(high, low, mask)) == 2, "without the move both chins are to be seen"
    assert _dark_lines(blend_box(high, warp_footage(low, shift), mask)) == 1


def test_only_lower_face_moves() -> None:
    """Only the lower face and what is below it moves."""
    mask = _mask()
    below = np.maximum.accumulate(mask, axis=0) > 0
    shift = jaw_shift(_jaw(14), _jaw(0), mask)
    assert shift[below].any()
    assert not shift[~below].any()
    assert not shift[-1].any()


@pytest.mark.parametrize(("filmed", "target"), [(16.0, 0.0), (0.0, 16.0)])
def test_the_neck_does_not_fold(filmed: float, target: float) -> None:
    source = np.arange(BOX_SIZE)[:, None] + jaw_shift(_jaw(filmed), _jaw(target), _mask())[..., 1]
    assert np.diff(source[100:], axis=0).min() > 0.0


def test_the_room_beside_the_jaw_rests() -> None:
    shift = jaw_shift(_jaw(14), _jaw(0), np.full((BOX_SIZE, BOX_SIZE), 255, np.uint8))
    assert np.abs(shift[105, CENTRE, 1]) > 8
    beside = int(CENTRE - WIDTH - 16)
    assert np.abs(shift[:, :beside]).max() < 1.0


def _skin(collar: int = COLLAR) -> Bool:
    """What may move: the face and the neck down to a collar."""
    movable = np.zeros((BOX_SIZE, BOX_SIZE), np.bool_)
    movable[:collar, 24:136] = True
    return movable


def test_all_skin_moves_as_before() -> None:
    move = move_jaw(_jaw(14), _jaw(0), _mask(), np.ones((BOX_SIZE, BOX_SIZE), np.bool_))
    np.testing.assert_array_equal(move.shift, jaw_shift(_jaw(14), _jaw(0), _mask()))
    around_lips = slice(CENTRE - LIPS - 16, CENTRE + LIPS + 17)
    np.testing.assert_array_equal(move.mask[:, around_lips], _mask()[:, around_lips])


def test_cheeks_far_from_lips_are_filmed() -> None:
    wide = np.full((BOX_SIZE, BOX_SIZE), 255, np.uint8)
    mask = move_jaw(_jaw(0), _jaw(0), wide, np.ones((BOX_SIZE, BOX_SIZE), np.bool_)).mask
    assert not mask[:, : CENTRE - LIPS - 32].any()
    assert not mask[:, CENTRE + LIPS + 33 :].any()
    row = mask[80, CENTRE + LIPS :].astype(int)
    assert (np.diff(row) <= 0).all(), "the box fades away from the lips"
    assert np.abs(np.diff(row)).max() < 40


def test_far_side_fades_sooner() -> None:
    """Beside the far half of turned lips, less of the cheek is drawn."""
    turned = _jaw(0)
    far = turned[:NUM_LIPS, 0] < CENTRE
    turned[:NUM_LIPS, 0] = np.where(far, CENTRE + 0.4 * (turned[:NUM_LIPS, 0] - CENTRE), turned[:NUM_LIPS, 0])
    wide = np.full((BOX_SIZE, BOX_SIZE), 255, np.uint8)
    shown = np.flatnonzero(move_jaw(turned, turned, wide, np.ones((BOX_SIZE, BOX_SIZE), np.bool_)).mask[80])
    assert CENTRE - shown[0] < 0.55 * (shown[-1] - CENTRE)


@pytest.mark.parametrize(("filmed", "target"), [(12.0, 0.0), (0.0, 6.0)])
def test_clothing_rests(filmed: float, target: float) -> None:
    """Clothing below the face keeps its samples, and nothing of it is drawn into the neck."""
    move = move_jaw(_jaw(filmed), _jaw(target), _mask(), _skin())
    assert not move.shift[COLLAR + RIM_PX :].any()
    assert not move.mask[COLLAR:].any()
    assert np.abs(move.shift[: int(CHIN)]).max() > 3, "the chin moves"
    rows = np.arange(BOX_SIZE)[:, None] + move.shift[..., 1]
    assert rows[:COLLAR, 40:120].max() < COLLAR
    assert np.diff(rows[: COLLAR - 8, CENTRE]).min() > 0.0, "the neck does not fold"


def test_chin_moves_over_clothing() -> None:
    """A chin that comes down covers a turtleneck, and where a chin goes up, the turtleneck continues upwards."""
    collar = int(CHIN) + 1
    down = move_jaw(_jaw(0), _jaw(10), _mask(), _skin(collar))
    assert down.shift[collar + 6, CENTRE, 1] < -5
    assert not down.shift[collar + 18 :].any()
    low = int(CHIN) + 14
    up = move_jaw(_jaw(14), _jaw(0), _mask(), _skin(low))
    assert up.shift[low - 3, CENTRE, 1] > 8
    assert not up.shift[low + 4 :].any()


def test_box_shows_on_face_alone() -> None:
    """The rendered box is shown neither on clothing nor on what lies beside the face."""
    wide = np.full((BOX_SIZE, BOX_SIZE), 255, np.uint8)
    move = move_jaw(_jaw(0), _jaw(0), wide, _skin())
    assert not move.mask[COLLAR:].any()
    assert not move.mask[90:, :20].any()
    assert (move.mask[60:100, 60:100] == 255).all()
