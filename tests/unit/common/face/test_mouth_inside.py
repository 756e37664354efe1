"""Tests of the map that moves teeth with skull and jaw."""

from __future__ import annotations

import numpy as np
import pytest

from services.common.array_types import Float32, UInt8
from services.common.face.crops import BOX_SIZE, HeadPose, head_template, head_to_box
from services.common.face.landmarks import LIPS_INNER, LIPS_OUTER, MOUTH_AREA, NUM_LIPS, part_lips, shut_lips
from services.common.face.mouth_inside import MouthView, inside_map, shaded
from services.common.face.thin_plate_spline import warp

IDENTITY = np.dstack(np.meshgrid(np.arange(BOX_SIZE), np.arange(BOX_SIZE))).astype(np.float32)
SHADE, TOOTH = 30, 220


def mouth(opening: float) -> MouthView:
    """A mouth whose lips are so many pixels apart; the jaw follows."""
    landmarks = part_lips(
        shut_lips(head_template()[list(MOUTH_AREA)]), np.repeat(np.array([[0.0, opening, 0.0]], np.float32), 9, axis=0)
    )
    return MouthView(landmarks, np.eye(3), head_to_box(landmarks, HeadPose(1.0, np.eye(3), np.zeros(3))))


def middle(view: MouthView) -> tuple[int, float, float]:
    """Column of the middle of the mouth, with the rows of the upper and of the lower lip there."""
    inner = view.landmarks[len(LIPS_OUTER) : NUM_LIPS]
    half = len(LIPS_INNER) // 2
    upper, lower = inner[half // 2], inner[half + half // 2]
    return round(float(upper[0])), float(upper[1]), float(lower[1])


def with_teeth(view: MouthView, height: int) -> UInt8:
    """A picture of the mouth: a dark inside, with a row of teeth of so many pixels above the lower lip."""
    picture = np.full((BOX_SIZE, BOX_SIZE, 3), SHADE, np.uint8)
    bottom = round(middle(view)[2])
    picture[bottom - height : bottom] = TOOTH
    return picture


def column_of(moved: Float32, picture: UInt8, view: MouthView) -> UInt8:
    """The inside of the mouth in its middle column, from lip to lip."""
    x, top, bottom = middle(view)
    return warp(picture, moved)[round(top) : round(bottom) + 1, x, 0]


def stretched(source: MouthView, target: MouthView) -> Float32:
    """A map that stretches the source's inside to the target's, as a spline through the lips does."""
    (_, top, bottom), (_, source_top, source_bottom) = middle(target), middle(source)
    backward = IDENTITY.copy()
    backward[..., 1] = source_top + (IDENTITY[..., 1] - top) * (source_bottom - source_top) / (bottom - top)
    return backward


def test_same_mouth_unchanged() -> None:
    view = mouth(12.0)
    np.testing.assert_allclose(inside_map(IDENTITY, with_teeth(view, 5), view, view).backward, IDENTITY, atol=1e-3)


@pytest.mark.parametrize("opening", [8.0, 20.0])
def test_teeth_keep_their_height(opening: float) -> None:
    """A mouth that opens or shuts moves the lower teeth and does not stretch them; the dark of the mouth fills the rest."""
    source, target = mouth(14.0), mouth(opening)
    picture, spline = with_teeth(source, 6), stretched(source, target)
    rigid, bent = (
        column_of(backward, picture, target) for backward in (inside_map(spline, picture, source, target).backward, spline)
    )
    assert abs(int((rigid > 125).sum()) - 6) <= 1
    assert abs(int((bent > 125).sum()) - 6) >= 2
    assert (rigid[: len(rigid) - 9] < SHADE + 5).all()


@pytest.mark.parametrize("error", [-5.0, 5.0])
def test_wrong_pose_hides_no_teeth(error: float) -> None:
    """A head that is fitted some pixels too high or too low shows the same mouth."""
    source = mouth(14.0)
    landmarks = source.mouth + np.array([0.0, error, 0.0], np.float32)
    target = MouthView(landmarks, np.eye(3), head_to_box(landmarks, HeadPose(1.0, np.eye(3), np.zeros(3))))
    picture, top = np.full((BOX_SIZE, BOX_SIZE, 3), SHADE, np.uint8), round(middle(source)[1])
    picture[top : top + 7] = TOOTH
    shown = column_of(inside_map(stretched(source, target), picture, source, target).backward, picture, target)
    assert abs(int((shown > 125).sum()) - 7) <= 2


@pytest.mark.parametrize("opening", [6.0, 11.0, 16.0, 24.0])
def test_no_row_is_shown_twice(opening: float) -> None:
    source, target = mouth(13.0), mouth(opening)
    x, top, bottom = middle(target)
    moved = inside_map(stretched(source, target), with_teeth(source, 5), source, target).backward
    shown = moved[round(top) : round(bottom) + 1, x, 1]
    assert (np.diff(shown) > -0.05).all()


def test_skin_does_not_move() -> None:
    """Only the inside of the target mouth changes, and lips that touch have none."""
    source, target = mouth(13.0), mouth(18.0)
    spline = stretched(source, target)
    moved = inside_map(spline, with_teeth(source, 5), source, target).backward
    changed = np.abs(moved - spline).max(axis=2) > 0
    rows, columns = np.nonzero(changed)
    inner = target.landmarks[len(LIPS_OUTER) : NUM_LIPS]
    assert (inner.min(axis=0) <= (columns.min(), rows.min())).all()
    assert ((columns.max(), rows.max()) <= inner.max(axis=0)).all()
    shut = mouth(0.0)
    shut.landmarks[len(LIPS_OUTER) : NUM_LIPS, 1] = 80.0
    np.testing.assert_array_equal(inside_map(spline, with_teeth(source, 5), source, shut).backward, spline)


def test_gap_between_teeth_that_touched_is_dark() -> None:
    """Teeth that touch have no dark row between them: what a wider mouth uncovers takes the dark of the person's wide mouths."""
    source, target = mouth(8.0), mouth(22.0)
    x, top, bottom = middle(target)
    teeth = np.full((BOX_SIZE, BOX_SIZE, 3), TOOTH, np.uint8)
    backward, gap = inside_map(stretched(source, target), teeth, source, target)
    shown = shaded(warp(teeth, backward).astype(np.float32), gap, np.full(3, SHADE, np.float32))[
        round(top) : round(bottom) + 1, x, 0
    ]
    assert shown.min() < SHADE + 1
    assert (shown[[2, -3]] > TOOTH - 20).all()
    assert (np.abs(np.diff(shown)) < 0.9 * (TOOTH - SHADE)).all()


def test_the_gap_follows_the_edges_of_the_teeth() -> None:
    """Dark rows between teeth that touch nearly are no straight line. A wider mouth parts the teeth along them and cuts none."""
    source, target = mouth(13.0), mouth(20.0)
    (x, top, bottom), (_, wide_top, wide_bottom) = middle(source), middle(target)
    picture = np.full((BOX_SIZE, BOX_SIZE, 3), TOOTH, np.uint8)
    for column in range(BOX_SIZE):
        edge = round((top + bottom) / 2 + np.clip((column - x) / 4, -2, 2))
        picture[edge - 1 : edge + 1, column] = SHADE
    backward, gap = inside_map(stretched(source, target), picture, source, target)
    shown = shaded(warp(picture, backward).astype(np.float32), gap, np.full(3, SHADE, np.float32))
    uppers = []
    for column in (x - 8, x, x + 8):
        inside = shown[round(wide_top) + 1 : round(wide_bottom), column, 0]
        (dark,) = np.nonzero(inside < (TOOTH + SHADE) / 2)
        assert (np.diff(dark) == 1).all(), "one gap, without pieces of teeth in it"
        uppers.append(int(dark[0]))
    assert uppers[0] < uppers[1] < uppers[2]


def test_a_gap_has_one_colour() -> None:
    """The rows at a gap differ in colour from column to column: repeated over the gap, they are streaks."""
    picture = np.full((BOX_SIZE, BOX_SIZE, 3), (25, 40, 30), np.float32)
    picture[:, ::2] = (70, 5, 5)
    gap = np.zeros((BOX_SIZE, BOX_SIZE), np.float32)
    gap[60:80, 40:120] = 1.0
    shown = shaded(picture, gap, np.array([20, 15, 10], np.float32))
    np.testing.assert_allclose(shown[60:80, 40:120], np.broadcast_to([20, 15, 10], (20, 80, 3)), atol=1e-3)
    np.testing.assert_array_equal(shown[:60], picture[:60])


def test_no_gap_in_a_mouth_that_closes() -> None:
    source, target = mouth(18.0), mouth(10.0)
    assert not inside_map(stretched(source, target), with_teeth(source, 5), source, target).gap.any()


def test_shade_never_lightens() -> None:
    night = np.full((BOX_SIZE, BOX_SIZE, 3), 5.0, np.float32)
    np.testing.assert_array_equal(shaded(night, np.ones((BOX_SIZE, BOX_SIZE), np.float32), np.full(3, 30, np.float32)), night)
