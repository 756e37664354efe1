from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from services.render.key_pictures import NUM_KEYS
from services.render.renderers.everybody.renderer import (
    KEYS_AFTER,
    KEYS_BEFORE,
    WINDOW_CHANNELS,
    WINDOW_FRAMES,
    frame_channels,
    hidden_by_noise,
    landmark_heatmap,
    window_picture,
)
from services.render.types import RenderFrame


def test_the_heatmap_peaks_at_the_landmarks() -> None:
    heat = landmark_heatmap(np.array([[40.0, 30.0], [100.0, 120.0]], np.float32))
    assert heat[30, 40] == heat[120, 100] == 255
    # One standard deviation of 1.8 px away: exp(-1 / 2), between two pixels.
    assert 0.53 < heat[32, 40] / 255 < 0.55
    assert heat[60, 60] == 0


def test_the_heatmap_moves_with_fractions_of_pixels() -> None:
    heat = landmark_heatmap(np.array([[40.25, 30.0]], np.float32)).astype(np.float64)
    columns = np.arange(160)
    assert (heat * columns).sum() / heat.sum() == pytest.approx(40.25, abs=0.02)


def test_landmarks_outside_the_box_leave_no_trace() -> None:
    assert not landmark_heatmap(np.array([[-500.0, 30.0], [1e6, 1e6]], np.float32)).any()


def test_noise_depends_on_the_frame_alone(frames: list[RenderFrame]) -> None:
    frame = frames[0]
    first, again, other = (hidden_by_noise(frame.background, frame.mask, index) for index in (7, 7, 8))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_nothing_under_the_mask_is_shown(frames: list[RenderFrame], mask: npt.NDArray[np.uint8]) -> None:
    other = np.where(mask[..., None] > 0, np.uint8(255) - frames[0].background, frames[0].background)
    pictures = [frame_channels(picture, mask, frames[0].box_landmarks, 3) for picture in (frames[0].background, other)]
    assert np.array_equal(*pictures)
    outside = mask == 0
    assert np.array_equal(pictures[0][outside][:, :3], frames[0].background[outside])


def test_window_newest_frame_first(mask: npt.NDArray[np.uint8]) -> None:
    """A window is laid out with the newest frame first."""
    window = [np.full((160, 160, 4), 10 * place, np.uint8) for place in range(WINDOW_FRAMES)]
    keys = np.stack([np.full((160, 160, 3), 100 + place, np.uint8) for place in range(NUM_KEYS)])
    picture = window_picture(window, mask, keys)
    assert picture.shape == (160, 160, WINDOW_CHANNELS)
    assert (picture[..., :3] == 60).all()
    assert (picture[..., KEYS_BEFORE] == 100).all()
    assert np.array_equal(picture[..., 6], mask)
    assert (picture[..., 7] == 60).all()
    assert picture[0, 0, 8:32].tolist() == [value for value in (50, 40, 30, 20, 10, 0) for _ in range(4)]
    assert picture[0, 0, KEYS_AFTER].tolist() == [101] * 3 + [102] * 3
    with pytest.raises(ValueError, match="7 frames and 3 key pictures expected, 6 and 3 given"):
        window_picture(window[1:], mask, keys)


def test_larger_box_scales_heatmap() -> None:
    """In a larger box, the heatmap is larger by the same factor."""
    points = np.array([[80.0, 40.0], [20.5, 100.25]], np.float32)
    small, large = landmark_heatmap(points), landmark_heatmap(2.0 * points + np.float32(0.5), 320)
    halved = large.reshape(160, 2, 160, 2).astype(float).mean(axis=(1, 3))
    assert np.abs(halved - small).max() < 12.0
