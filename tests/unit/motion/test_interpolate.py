from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from services.motion.interpolate import catmull_rom, grid_position


@pytest.mark.parametrize(
    ("seconds", "index", "fraction"), [("0", 0, "0"), ("1/30", 0, "5/6"), ("7/25", 7, "0"), ("-1/50", -1, "1/2")]
)
def test_position_on_the_grid_is_exact(seconds: str, index: int, fraction: str) -> None:
    at = grid_position(Fraction(seconds))
    assert (at.index, at.fraction) == (index, Fraction(fraction))


def test_times_on_the_grid_need_no_frame_ahead() -> None:
    assert grid_position(Fraction(3, 25)).last_needed == 3
    assert grid_position(Fraction(7, 50)).last_needed == 5


def test_catmull_rom_keeps_straight_lines_and_its_knots() -> None:
    def curve(before: float, left: float, right: float, after: float, fraction: float) -> float:
        points = [np.array([value], np.float32) for value in (before, left, right, after)]
        return float(catmull_rom(points[0], points[1], points[2], points[3], fraction)[0])

    assert curve(1.0, 2.0, 3.0, 4.0, 0.25) == pytest.approx(2.25)
    assert curve(0.0, 5.0, -3.0, 8.0, 0.0) == pytest.approx(5.0)
    assert curve(0.0, 5.0, -3.0, 8.0, 1.0) == pytest.approx(-3.0)
