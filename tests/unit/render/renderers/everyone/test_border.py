from __future__ import annotations

import numpy as np

from services.render.renderers.everyone.border import with_filmed_border

COVERED = np.zeros((160, 160), np.bool_)
COVERED[:100] = True


def test_where_both_pictures_show_background_the_filmed_pixel_stays() -> None:
    rng = np.random.default_rng(0)
    background = rng.integers(90, 110, (160, 160, 3), dtype=np.uint8)
    drawn = np.full_like(background, 100)
    made = with_filmed_border(drawn, background, COVERED)
    assert np.array_equal(made[:100], drawn[:100])
    assert np.array_equal(made[115:], background[115:])


def test_a_filmed_chin_below_the_drawn_jaw_is_replaced() -> None:
    background, drawn = np.full((160, 160, 3), 200, np.uint8), np.full((160, 160, 3), 90, np.uint8)
    assert np.array_equal(with_filmed_border(drawn, background, COVERED), drawn)


def test_a_face_that_fills_the_box_stays() -> None:
    background, drawn = np.full((160, 160, 3), 100, np.uint8), np.full((160, 160, 3), 101, np.uint8)
    assert with_filmed_border(drawn, background, np.ones((160, 160), np.bool_)) is drawn
