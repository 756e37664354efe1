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


@pytest.mark.parametrize(
    ("flags", "cuts", "expected"),
    [
        ([1, 1, 1, 1], [7, 9], [range(5, 7), range(7, 9)]),
        ([1, 0, 1, 1], [5, 6, 7, 8], [range(5, 6), range(7, 8), range(8, 9)]),
        ([1, 1], [0, 5, 7, 20], [range(5, 7)]),
        ([], [5], []),
    ],
)
def test_cuts_end_runs(flags: list[int], cuts: list[int], expected: list[range]) -> None:
    assert runs(np.array(flags, bool), first=5, cuts=cuts) == expected
