"""Fine detail of a bank frame, warped."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from services.common.face.actor_geometry import ANCHORS, ActorGeometry
from services.common.face.crops import BOX_SIZE
from services.common.face.landmarks import JAW, LIPS_OUTER, NUM_LIPS, NUM_MOUTH_AREA
from services.common.face.mouth_bank import MouthBank, make_bank
from services.common.face.mouth_detail import (
    DETAIL_SIGMA_PX,
    FINE_SIGMA_PX,
    NO_DETAIL,
    at_scale,
    detail_of,
    luma_of,
    middle_of,
    on_box_grid,
    warped_detail,
    with_fitting_edges,
    with_fitting_interior,
    without_hidden_inside,
)
from services.common.face.mouth_inside import InsideMap
from services.common.face.native_pictures import encoded, packed

REST = np.stack(np.meshgrid(np.arange(BOX_SIZE), np.arange(BOX_SIZE)), -1).astype(np.float32)
UNMOVED = InsideMap(REST, np.zeros((BOX_SIZE, BOX_SIZE), np.float32))


def stripes(scale: int, period: float) -> np.ndarray:
    """Return upright stripes, `period` box pixels wide, uint8 [160 scale, 160 scale]."""
    place = (np.arange(BOX_SIZE * scale) + 0.5) / scale
    return np.tile(np.rint(128 + 60 * np.sin(2 * np.pi * place / period)), (BOX_SIZE * scale, 1)).astype(np.uint8)


def bank(scale: int, period: float) -> MouthBank:
    geometry = ActorGeometry(*(np.zeros((n, 3), np.float32) for n in (NUM_MOUTH_AREA, NUM_MOUTH_AREA, len(JAW), len(ANCHORS))))
    native = stripes(4, period)
    box = cv2.resize(native, (BOX_SIZE, BOX_SIZE), interpolation=cv2.INTER_AREA)
    made = make_bank(
        np.repeat(box[None, ..., None], 3, axis=-1), np.zeros((1, 59, 3), np.float32), np.eye(3)[None], np.arange(1), geometry
    )
    return made if scale == 1 else replace(made, native=packed([encoded(stripes(scale, period))]))


def energy(detail: np.ndarray) -> float:
    inside = detail[20:-20, 20:-20].astype(np.float64) - NO_DETAIL
    return float(np.square(inside).mean())


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_a_detail_has_the_wanted_size(scale: int) -> None:
    detail = warped_detail(bank(2, 3.0), 0, UNMOVED, scale)
    assert detail.dtype == np.uint8
    assert detail.shape == (160 * scale, 160 * scale)


def test_native_pictures_show_what_a_box_cannot_hold() -> None:
    fine = 1.5  # box pixels: below two, so a box of 160 pixels cannot show the stripes
    assert energy(warped_detail(bank(3, fine), 0, UNMOVED, 3)) > 5 * energy(warped_detail(bank(1, fine), 0, UNMOVED, 3))


def test_coarse_structures_are_left_to_the_renderer() -> None:
    assert energy(warped_detail(bank(2, 40.0), 0, UNMOVED, 2)) < 0.01 * energy(warped_detail(bank(2, 2.5), 0, UNMOVED, 2))


def test_detail_has_exposure_of_bank() -> None:
    """A shot that is filmed darker gives detail as strong as the rest of the bank."""
    even = bank(2, 3.0)
    brightened = replace(even, boxes=np.asarray(1.3 * even.boxes.astype(np.float32), np.uint8))
    plain, strong = (energy(warped_detail(each, 0, UNMOVED, 2)) for each in (even, brightened))
    assert strong == pytest.approx(1.3**2 * plain, rel=0.05)


def test_a_gap_between_teeth_has_no_detail() -> None:
    gap = np.zeros((BOX_SIZE, BOX_SIZE), np.float32)
    gap[60:100, 60:100] = 1.0
    detail = warped_detail(bank(2, 3.0), 0, InsideMap(REST, gap), 2)
    assert (detail[124:196, 124:196] == NO_DETAIL).all()
    np.testing.assert_array_equal(detail[:110], warped_detail(bank(2, 3.0), 0, UNMOVED, 2)[:110])


def test_the_detail_follows_the_map() -> None:
    there = warped_detail(bank(3, 5.0), 0, UNMOVED, 3)
    moved = warped_detail(bank(3, 5.0), 0, UNMOVED._replace(backward=REST + np.array([2.0, 0.0], np.float32)), 3)
    np.testing.assert_allclose(moved[60:-60, 60:-60].astype(int), there[60:-60, 66:-54].astype(int), atol=2)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_a_detail_lacks_what_a_gaussian_leaves(scale: int) -> None:
    luma = stripes(scale, 6.0).astype(np.float32)
    coarse = cv2.GaussianBlur(luma, (0, 0), DETAIL_SIGMA_PX * scale, borderType=cv2.BORDER_REPLICATE)
    inside = slice(10 * scale, -10 * scale)
    np.testing.assert_allclose((luma - detail_of(luma, scale))[inside, inside], coarse[inside, inside], atol=1.0)


@pytest.mark.parametrize(("period", "in_the_fine_band"), [(2.5, 0.95), (12.0, 0.3)])
def test_fine_structures_are_in_the_fine_band(period: float, in_the_fine_band: float) -> None:
    assert FINE_SIGMA_PX < DETAIL_SIGMA_PX
    detail = detail_of(stripes(2, period).astype(np.float32), 2)
    middle = middle_of(on_box_grid(detail))
    assert middle.shape == (160, 160)
    share = float(np.abs(detail - at_scale(middle, 2)).mean() / np.abs(detail).mean())
    assert share > in_the_fine_band if period < 4 else share < in_the_fine_band


def test_the_luma_of_grey_is_grey() -> None:
    assert np.unique(luma_of(np.full((4, 4, 3), 77, np.uint8))).tolist() == [77.0]


def open_mouth() -> np.ndarray:
    """Return landmarks whose inner lips are an ellipse about (80, 70), float32 [59, 2], box pixels."""
    landmarks = np.zeros((NUM_MOUTH_AREA, 2), np.float32)
    turn = np.linspace(0, 2 * np.pi, NUM_LIPS - len(LIPS_OUTER), endpoint=False)
    landmarks[len(LIPS_OUTER) : NUM_LIPS] = np.stack([80 + 30 * np.cos(turn), 70 + 20 * np.sin(turn)], 1)
    return landmarks


@pytest.mark.parametrize("scale", [1, 2])
def test_lip_detail_that_fits_stays(scale: int) -> None:
    """Between the lips, a detail that fits the box stays."""
    detail = warped_detail(bank(2, 6.0), 0, UNMOVED, scale)
    box = np.repeat(cv2.resize(stripes(2, 6.0), (160, 160), interpolation=cv2.INTER_AREA)[..., None], 3, axis=-1)
    np.testing.assert_allclose(with_fitting_interior(detail, box, open_mouth()).astype(int), detail, atol=1)


@pytest.mark.parametrize("scale", [1, 2])
def test_lip_detail_that_differs_fades(scale: int) -> None:
    """Between the lips, other structures than the box's give way to its middle band."""
    detail = warped_detail(bank(2, 6.0), 0, UNMOVED, scale)
    other = np.ascontiguousarray(stripes(1, 6.0).T)  # the stripes of the box lie flat
    found = with_fitting_interior(detail, np.repeat(other[..., None], 3, axis=-1), open_mouth())
    own = at_scale(middle_of(detail_of(other.astype(np.float32), 1)), scale) + NO_DETAIL
    middle = (slice(62 * scale, 78 * scale), slice(70 * scale, 90 * scale))
    np.testing.assert_allclose(found[middle].astype(float), own[middle], atol=4.0)
    assert (found[100 * scale :] == detail[100 * scale :]).all()
    assert (found[:, : 40 * scale] == detail[:, : 40 * scale]).all()


def test_flat_box_between_lips_stays_flat() -> None:
    """Between the lips of a flat box, nothing is scratched."""
    flat = np.full((160, 160, 3), 40, np.uint8)
    found = with_fitting_interior(warped_detail(bank(2, 3.0), 0, UNMOVED, 2), flat, open_mouth())
    assert np.abs(found[130:150, 140:180].astype(int) - NO_DETAIL).max() <= 1


def shadow(border: int, bright: int = 200) -> np.ndarray:
    """Return a luma with the border of a shadow at a column, uint8 [320, 320]."""
    luma = np.full((320, 320), 60, np.uint8)
    luma[:, border:] = bright
    return luma


def rgb_of(luma: np.ndarray) -> np.ndarray:
    return np.repeat(cv2.resize(luma, (160, 160), interpolation=cv2.INTER_AREA)[..., None], 3, axis=-1)


def stored_detail(luma: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(detail_of(luma.astype(np.float32), 2) + NO_DETAIL), 0, 255).astype(np.uint8)


def test_shadow_border_elsewhere_is_left_out() -> None:
    """A border of the bank's frame that the box has elsewhere would be a scratch."""
    found = with_fitting_edges(stored_detail(shadow(120)), rgb_of(shadow(220)))
    assert np.abs(found[:, 110:130].astype(int) - NO_DETAIL).max() <= 4


def test_shadow_border_of_the_box_stays() -> None:
    detail = stored_detail(shadow(160))
    np.testing.assert_allclose(with_fitting_edges(detail, rgb_of(shadow(160))).astype(int), detail, atol=1)


def test_pores_need_not_fit_the_box() -> None:
    pores = np.random.default_rng(0).normal(128, 4, (320, 320)).clip(0, 255).astype(np.uint8)
    detail = stored_detail(pores)
    np.testing.assert_array_equal(with_fitting_edges(detail, np.full((160, 160, 3), 128, np.uint8)), detail)


def opened(share: float) -> np.ndarray:
    """Return the landmarks of `open_mouth` with the inner lips opened to a share, float32 [59, 2]."""
    landmarks = open_mouth()
    inner = landmarks[len(LIPS_OUTER) : NUM_LIPS]
    inner[:, 1] = 70 + share * (inner[:, 1] - 70)
    return landmarks


@pytest.mark.parametrize("scale", [1, 2])
def test_shut_lips_hide_inside_detail(scale: int) -> None:
    """Behind shut lips, no detail of the inside is left."""
    detail = warped_detail(bank(2, 3.0), 0, UNMOVED, scale)
    found = without_hidden_inside(detail, open_mouth(), opened(0.1), REST)
    inside = (slice(60 * scale, 80 * scale), slice(60 * scale, 100 * scale))
    assert np.abs(found[inside].astype(int) - NO_DETAIL).max() <= 1
    assert np.abs(detail[inside].astype(int) - NO_DETAIL).max() > 10
    assert (found[100 * scale :] == detail[100 * scale :]).all()


def test_equal_opening_keeps_detail() -> None:
    """A mouth as open as the frames keeps its detail."""
    detail = warped_detail(bank(2, 3.0), 0, UNMOVED, 2)
    assert without_hidden_inside(detail, open_mouth(), opened(0.9), REST) is detail
    half = without_hidden_inside(detail, open_mouth(), opened(0.65), REST)
    assert energy(without_hidden_inside(detail, open_mouth(), opened(0.1), REST)) < energy(half) < energy(detail)
