"""Errors of estimates against measured dubs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from research.bench.estimates import ClipResult, errors_of

TRUE = ClipResult(
    clip="a.mp4",
    estimated_frames=75,
    frames=75,
    estimated_s=10.0,
    processor_s=20.0,
    estimated_bytes=100,
    memory_bytes=100,
    estimated_disk_bytes=100,
    disk_bytes=100,
)


def test_other_dubs_correct_each_estimate() -> None:
    """Where all dubs take twice the estimated time, the other dubs correct each estimate."""
    found = errors_of([TRUE, TRUE, replace(TRUE, processor_s=25.0, memory_bytes=80)])
    assert found["processor time, by the figures alone"] == pytest.approx([-0.5, -0.5, -0.6])
    assert found["processor time, corrected by the other dubs"] == pytest.approx([0.125, 0.125, -0.2])
    assert found["memory"] == pytest.approx([0.0, 0.0, 0.25])
    assert found["frames"] == found["disk"] == [0.0, 0.0, 0.0]
