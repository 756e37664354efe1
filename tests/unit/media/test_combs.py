"""Tests of the removal of the combs of interlaced video."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from gateway.media.combs import deinterlaced_luma
from gateway.media.probe import probe
from gateway.media.reader import VideoReader


def picture(offset: int) -> np.ndarray:
    made = np.full((200, 300), 60, np.uint8)
    cv2.circle(made, (120 + offset, 100), 50, 190, -1)
    return cv2.GaussianBlur(made, (0, 0), 1.5)


def test_two_fields_of_different_moments_are_smoothed() -> None:
    woven = picture(0)
    woven[1::2] = picture(12)[1::2]
    result = deinterlaced_luma(woven)
    jumps = [np.abs(np.diff(each.astype(int), axis=0)).max() for each in (woven, result)]
    assert jumps[0] > 80
    assert jumps[1] < 0.6 * jumps[0]
    still = np.abs(picture(0).astype(int) - picture(12)) < 2
    still = cv2.erode(still.astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
    np.testing.assert_array_equal(result[still], woven[still])


def test_a_whole_picture_does_not_change() -> None:
    np.testing.assert_array_equal(deinterlaced_luma(picture(0)), picture(0))
    lines = np.full((60, 60), 90, np.uint8)
    lines[20] = 200  # a thin line is no comb
    np.testing.assert_array_equal(deinterlaced_luma(lines), lines)
    np.testing.assert_array_equal(deinterlaced_luma(lines[:3]), lines[:3])


@pytest.mark.parametrize("name", ["video/vr_face5.mp4", "people/dev_7.mp4"])
def test_video_without_fields_keeps_its_samples(clips: Any, name: str) -> None:
    with VideoReader(probe(clips.path(name))) as reader:
        luma = np.asarray(next(iter(reader)).planes[0], np.uint8)
    np.testing.assert_array_equal(deinterlaced_luma(luma), luma)
