"""Tests of pixel formats, and of HDR footage in standard range."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from gateway.media.pixels import ColourTags, HdrCurve, colour_model, in_srgb, pixel_format, planar_name
from services.common.array_types import UInt8

PQ, HLG = ColourTags(9, 1, 9, 16), ColourTags(9, 1, 9, 18)
WHITE = {PQ: 0.581, HLG: 0.75}
"""Signal of reference white, 203 cd/m2 (ITU-R BT.2408)."""
SKIN = {PQ: 0.44, HLG: 0.497}
"""Signal of grey at 50 cd/m2 on a display of 1000 cd/m2."""


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
