"""Luma of the render box at the footage's own resolution."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from services.common.errors import InvalidRequestError
from services.common.face.crops import HeadPose, apply_affine, box_from_frame
from services.common.face.native_pictures import (
    MAX_SCALE,
    NativePictures,
    encoded,
    native_affine,
    native_arrays,
    native_from_arrays,
    native_scale,
    packed,
)
from services.common.store.tensor_bytes import NamedArrays


def pictures(scale: int, count: int = 3) -> list[np.ndarray]:
    random = np.random.default_rng(scale)
    return [cv2.GaussianBlur(random.integers(0, 256, (160 * scale,) * 2).astype(np.uint8), (0, 0), 1.5) for _ in range(count)]


@pytest.mark.parametrize(
    ("footage", "expected"), [(0.4, 1), (1.0, 1), (1.2, 1), (1.3, 2), (2.2, 2), (2.3, 3), (4.1, 4), (9.0, MAX_SCALE)]
)
def test_the_scale_holds_the_pixels_of_the_footage(footage: float, expected: int) -> None:
    assert native_scale(footage) == expected


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_pixels_of_both_sizes_cover_the_same_skin(scale: int) -> None:
    pose = HeadPose(2.3, np.eye(3), np.array([400.0, 300.0, 0.0]))
    box = box_from_frame(pose)
    corner = np.array([[333.0, 250.0]])
    # The left edge of pixel 0 is at -0.5 in both.
    edges = apply_affine(box, corner) + 0.5
    np.testing.assert_allclose(apply_affine(native_affine(box, scale), corner) + 0.5, edges * scale, rtol=1e-5)


def test_pictures_come_back_nearly_as_they_were() -> None:
    shown = pictures(2)
    kept = packed([encoded(each) for each in shown])
    for row, each in enumerate(shown):
        assert kept.luma(row).shape == each.shape
        assert np.abs(kept.luma(row).astype(float) - each).mean() < 1.0


def test_an_artefact_holds_the_pictures() -> None:
    kept = packed([encoded(each) for each in pictures(3)])
    read = native_from_arrays(NamedArrays(native_arrays(kept)), 3)
    assert read is not None
    assert read.scale == 3
    np.testing.assert_array_equal(read.luma(2), kept.luma(2))
    assert native_arrays(None) == {}
    assert native_from_arrays(NamedArrays({}), 3) is None


@pytest.mark.parametrize(
    "damage",
    [
        {"native_ends": None},
        {"native_ends": np.array([10, 5, 20])},
        {"native_ends": np.array([10, 20])},
        {"native_scale": np.array([9])},
        {"native_scale": np.array([1])},
        {"native_files": np.zeros(7, np.uint8)},
        {"native_files": np.zeros((2, 7), np.uint8)},
    ],
)
def test_damaged_arrays_are_refused(damage: dict[str, np.ndarray | None]) -> None:
    arrays = {**native_arrays(packed([encoded(each) for each in pictures(2)])), **damage}
    with pytest.raises(InvalidRequestError, match="damaged"):
        native_from_arrays(NamedArrays({name: array for name, array in arrays.items() if array is not None}), 3)


def test_a_damaged_file_is_refused() -> None:
    kept = packed([encoded(each) for each in pictures(2)])
    broken = kept.files.copy()
    broken[: int(kept.ends[0])] = 7
    damaged: NativePictures = replace(kept, files=broken)
    with pytest.raises(InvalidRequestError, match="native picture 0 is damaged"):
        damaged.luma(0)
    damaged.luma(1)
