"""Runs of set flags."""

from __future__ import annotations

import numpy as np
import pytest

from services.common.runs import runs


@pytest.mark.parametrize(
    ("flags", "first", "expected"),
    [
        ([], 0, []),
        ([0, 0], 5, []),
        ([1, 1], 0, [range(2)]),
        ([0, 1, 0, 1, 1], 0, [range(1, 2), range(3, 5)]),
        ([1, 0, 0, 1], 7, [range(7, 8), range(10, 11)]),
    ],
)
def test_runs_are_unbroken(flags: list[int], first: int, expected: list[range]) -> None:
    assert runs(np.array(flags, bool), first=first) == expected
