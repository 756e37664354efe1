"""What an evaluation says of a method's cost."""

from __future__ import annotations

import math

import numpy as np

from gateway.evaluation.cost import CostMeter
from gateway.evaluation.types import COSTS


def test_time_is_shared_among_enrolments_and_frames() -> None:
    meter = CostMeter()
    for _ in range(2):
        with meter.enrolling():
            np.linalg.svd(np.random.default_rng(0).random((200, 200)))
        meter.learned(3 << 20)
    with meter.rendering(4):
        np.linalg.svd(np.random.default_rng(0).random((200, 200)))
    with meter.rendering(0):
        np.linalg.svd(np.random.default_rng(0).random((900, 900)))
    found = meter.figures()
    assert tuple(found) == COSTS
    assert all(value > 0.0 for value in found.values())
    assert found["actor_mib"] == 3.0
    # Four frames took what one enrolment took; what was rendered for another variant does not count.
    assert found["cpu_ms_per_frame"] < 1000.0 * found["personalize_cpu_s"]


def test_the_peak_is_that_of_what_was_measured() -> None:
    block = np.ones(1 << 27, np.uint8)
    del block
    meter = CostMeter()
    with meter.enrolling():
        pass
    before = meter.figures()["peak_memory_mib"]
    with meter.rendering(1):
        np.ones(1 << 26, np.uint8).sum()
    assert meter.figures()["peak_memory_mib"] > before + 48.0


def test_what_was_not_measured_is_nan() -> None:
    assert all(math.isnan(value) for value in CostMeter().figures().values())
