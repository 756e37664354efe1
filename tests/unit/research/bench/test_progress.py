"""Estimates of the time left against the time that was left."""

from __future__ import annotations

import pytest

from research.bench.progress import compared


def test_worst_estimate_and_share() -> None:
    """The first and the last tenth do not count, and a missing estimate is as wrong as one that says nothing is left."""
    looks = [(5.0, 900.0), (20.0, 80.0), (50.0, 60.0), (80.0, 30.0), (95.0, 50.0)]
    worst, within = compared(looks, 100.0)
    assert worst == pytest.approx(0.5)
    assert within == pytest.approx(2 / 3)
    assert compared([(20.0, None)], 100.0) == (1.0, 0.0)
