"""Unbroken runs in arrays of flags."""

from __future__ import annotations

import numpy as np

from services.common.array_types import Bool


def runs(flags: Bool, *, first: int = 0) -> list[range]:
    """Return the positions of each unbroken run of set flags, in order.

    Args:
        flags: bool [T].
        first: index of the first flag.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8))) + first
    return [range(begin, end) for begin, end in edges.reshape(-1, 2).tolist()]
