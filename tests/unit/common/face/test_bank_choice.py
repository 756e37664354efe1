"""Which frames a mouth bank is made from."""

from __future__ import annotations

import numpy as np

from services.common.array_types import Float32
from services.common.face.bank_choice import choose_frames
from services.common.face.crops import head_template
from services.common.face.landmarks import MOUTH_AREA, mouth_opening


def talking(count: int) -> Float32:
    """A mouth that opens and shuts, never twice the same: float32 [count, 59, 3]."""
    still = head_template()[list(MOUTH_AREA)]
    frames = np.arange(count)
    opening = 6.0 + 5.0 * np.sin(0.7 * frames) * np.cos(0.13 * frames)
    mouth = np.repeat(still[None], count, axis=0)
    mouth[:, still[:, 1] > 0, 1] += opening[:, None]
    return mouth.astype(np.float32)


def runs(kept: np.ndarray) -> list[np.ndarray]:
    return np.split(kept, np.flatnonzero(np.diff(kept) > 1) + 1)


def test_a_long_clip_is_thinned_to_windows_that_keep_the_rare_mouth() -> None:
    mouth = talking(400)
    mouth[200, :, 1] += np.where(mouth[200, :, 1] > 0, 25.0, 0.0)
    kept = choose_frames(mouth, np.arange(400), 60)
    assert 50 <= len(kept) <= 60
    assert 200 in kept
    assert min(len(run) for run in runs(kept)) >= 6
    opening = mouth_opening(mouth)
    usual = np.delete(opening, 200)
    assert opening[kept].min() < usual.min() + 0.5
    assert np.delete(opening[kept], np.flatnonzero(kept == 200)).max() > usual.max() - 0.5


def test_a_rare_mouth_is_kept_with_the_second_before_it() -> None:
    mouth = talking(400)
    mouth[200, :, 1] += np.where(mouth[200, :, 1] > 0, 25.0, 0.0)
    kept = choose_frames(mouth, np.arange(400), 100, length=25)
    assert 75 <= len(kept) <= 100
    assert set(range(176, 201)) <= set(kept.tolist())
    assert min(len(run) for run in runs(kept)) >= 25


def test_a_short_clip_is_kept_whole() -> None:
    assert choose_frames(talking(40), np.arange(40), 60).tolist() == list(range(40))


def test_footage_without_neighbours_is_thinned_frame_by_frame() -> None:
    kept = choose_frames(talking(50), np.arange(50) * 3, 12)
    assert len(kept) == 12
    assert (np.diff(kept) > 0).all()


def test_no_frame_is_chosen_twice_where_all_mouths_are_the_same() -> None:
    same = np.repeat(talking(1), 50, axis=0)
    assert len(choose_frames(same, np.arange(50) * 2, 12)) == 1
    assert len(choose_frames(same, np.arange(50), 3)) == 1
