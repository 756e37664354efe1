from __future__ import annotations

import numpy as np

from services.common.face.mouth_bank import MouthBank
from services.render.key_pictures import KeyPictures
from services.render.pairs import NEAREST_FRAMES, NO_NOISE, LandmarkNoise, keyed_windows, perturbed, spread_rows, window_rows


def test_noise_moves_lips_little(bank: MouthBank) -> None:
    """Noise moves lips a little and no noise moves nothing."""
    rng = np.random.default_rng(0)
    moved = perturbed(bank.mouth[3], LandmarkNoise(), rng)
    assert 0.02 < np.abs(moved - bank.mouth[3]).mean() < 1.5
    assert np.allclose(perturbed(bank.mouth[3], NO_NOISE, rng), bank.mouth[3], atol=1e-5)


def test_windows_end_at_gaps() -> None:
    index = np.array([0, 1, 2, 3, 10, 11, 12, 13, 14, 15, 16, 17])
    assert [window_rows(index, row, 3) for row in (0, 1, 3, 4, 5, 6)] == [
        (0, 0, 0),
        (0, 0, 1),
        (1, 2, 3),
        (4, 4, 4),
        (4, 4, 5),
        (4, 5, 6),
    ]
    assert window_rows(index, 2, 7) == (0, 0, 0, 0, 0, 1, 2)
    assert window_rows(index, 5, 7) == (4, 4, 4, 4, 4, 4, 5)
    assert window_rows(index, 11, 7) == (5, 6, 7, 8, 9, 10, 11)


def test_rows_are_spread_and_never_repeated() -> None:
    rows = np.arange(10, 20)
    assert spread_rows(rows, 4).tolist() == [10, 13, 16, 19]
    assert spread_rows(rows, 40).tolist() == rows.tolist()


def test_windows_have_key_pictures_of_other_moments_only(bank: MouthBank) -> None:
    rows = (1, 2, 24, 25, 46, 47)
    keys = KeyPictures(bank.boxes[list(rows)], bank.box_landmarks[list(rows)], rows)
    windows = list(keyed_windows(bank, keys, length=3, fewest_keys=4, count=100, seed=0))
    for window in windows:
        far = [row for row in rows if abs(row - window.rows[-1]) > NEAREST_FRAMES]
        assert len(far) >= 4
        assert np.array_equal(window.keys.pictures, bank.boxes[far])
    # With fewer than four key pictures far enough away, a frame is left out.
    assert {window.rows[-1] for window in windows} == {
        row for row in range(48) if sum(abs(row - key) > NEAREST_FRAMES for key in rows) >= 4
    }
    assert list(keyed_windows(bank, keys, length=3, fewest_keys=7, count=100, seed=0)) == []
