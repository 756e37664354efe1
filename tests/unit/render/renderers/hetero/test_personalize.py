from __future__ import annotations

import numpy as np

from services.common.face.mouth_bank import MouthBank
from services.render.pairs import NO_NOISE, LandmarkNoise
from services.render.renderers.hetero.personalize import CompositeView, composite_pair, rows_around


def test_nearest_frame_stands_in() -> None:
    """The nearest frame stands in at ends and gaps."""
    index = np.array([0, 1, 2, 3, 7, 8], np.int64)
    expected = {0: (0, 0, 0, 1, 2), 1: (0, 0, 1, 2, 3), 3: (1, 2, 3, 3, 3), 4: (4, 4, 4, 5, 5), 5: (4, 4, 5, 5, 5)}
    assert {row: rows_around(index, row) for row in expected} == expected


def test_a_pair_asks_for_the_middle_frame(bank: MouthBank) -> None:
    rows = rows_around(bank.frame_index, 6)
    view = CompositeView(rows, bank.boxes[list(rows)], bank.boxes[30])
    pair = composite_pair(bank, view, NO_NOISE, 0)
    assert np.array_equal(pair.target, bank.boxes[6])
    noisy = [composite_pair(bank, view, LandmarkNoise(), seed).picture for seed in (1, 1, 2)]
    assert np.array_equal(noisy[0], noisy[1])
    assert not np.array_equal(noisy[0], noisy[2])
