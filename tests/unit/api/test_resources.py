"""Tests of times and durations of messages."""

from __future__ import annotations

import pytest

from gateway.api.resources import duration_message, optional_duration, seconds_of


@pytest.mark.parametrize(
    ("seconds", "whole", "nanos"),
    [(0.0, 0, 0), (1.5, 1, 500_000_000), (-3.0000014, -3, -1000), (-0.25, 0, -250_000_000), (9e9, 9 * 10**9, 0)],
)
def test_durations_count_microseconds(seconds: float, whole: int, nanos: int) -> None:
    message = duration_message(seconds)
    assert (message.seconds, message.nanos) == (whole, nanos)
    assert seconds_of(message) == pytest.approx(seconds, abs=1e-6)
    assert optional_duration(seconds) == message
    assert optional_duration(None) is None
