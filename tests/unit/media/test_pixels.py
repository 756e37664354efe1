"""Combs of interlaced video, and HDR footage in standard range."""

from __future__ import annotations

import tracemalloc
from typing import Any

import cv2
import numpy as np
import pytest

from gateway.media.pixels import ColourTags, HdrCurve, colour_model, deinterlaced_luma, in_srgb, pixel_format, planar_name
from gateway.media.probe import probe
from gateway.media.reader import VideoReader
from services.common.array_types import UInt8

PQ, HLG = ColourTags(9, 1, 9, 16), ColourTags(9, 1, 9, 18)
WHITE = {PQ: 0.581, HLG: 0.75}
"""Signal of reference white, 203 cd/m2 (ITU-R BT.2408)."""
SKIN = {PQ: 0.44, HLG: 0.497}
"""Signal of grey at 50 cd/m2 on a display of 1000 cd/m2."""


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


def curve(tags: ColourTags) -> HdrCurve:
    found = colour_model(pixel_format("yuv420p10le"), tags, 1280, 720).hdr
    assert found is not None
    return found


def grey(level: float) -> UInt8:
    return np.full((4, 4, 3), round(255 * level), np.uint8)


@pytest.mark.parametrize("tags", [PQ, HLG])
def test_hdr_is_shown_in_standard_range(tags: ColourTags) -> None:
    """Reference white is shown a little below white, a face as bright as in other footage, and no level darker than a lower one."""
    hdr = curve(tags)
    assert 220 <= hdr.shown(grey(WHITE[tags])).min() <= hdr.shown(grey(WHITE[tags])).max() <= 228
    assert 112 <= hdr.shown(grey(SKIN[tags])).mean() <= 128
    assert hdr.shown(grey(0.0)).max() == 0
    assert hdr.shown(grey(1.0)).min() == 255
    assert (np.diff(hdr.levels) >= 0).all()


@pytest.mark.parametrize("tags", [PQ, HLG])
def test_hdr_colours_come_back(tags: ColourTags) -> None:
    """Colours up to the peak come back within a level of eight bits."""
    rng = np.random.default_rng(3)
    bright = rng.integers(70, 150, (40, 40, 1)) + rng.integers(-8, 9, (40, 40, 3))
    picture = bright.astype(np.uint8)
    hdr = curve(tags)
    assert np.abs(hdr.coded(hdr.shown(picture).astype(np.float32)) - picture).max() <= 1.0


def test_other_footage_has_no_curve() -> None:
    for tags in (ColourTags(), ColourTags(1, 1, 1, 1), ColourTags(9, 1, 9, 14)):
        assert colour_model(pixel_format("yuv420p"), tags, 1280, 720).hdr is None


@pytest.mark.parametrize("tags", [ColourTags(0, 2, 12, 13), PQ], ids=["Display P3", "PQ"])
def test_colours_changed_in_little_memory(tags: ColourTags) -> None:
    """Pictures of 36 megapixels and more fit into the memory of the process that inspects them."""
    levels = np.full((4096, 512, 3), 128, np.uint8)
    tracemalloc.start()
    try:
        shown = in_srgb(levels, tags)
        assert tracemalloc.get_traced_memory()[1] < 3 * levels.nbytes
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(shown, np.broadcast_to(in_srgb(levels[:1, :1], tags), levels.shape))


def test_planar_rgb_of_other_byte_order_rearranged() -> None:
    assert [planar_name(name) for name in ("gbrp16be", "gbrap12be", "rgb48be")] == ["gbrp16le", "gbrap12le", "rgb48be"]
