"""Unbroken runs in arrays of flags."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from services.common.array_types import Bool


def runs(flags: Bool, *, first: int = 0, cuts: Collection[int] = ()) -> list[range]:
    """Return the positions of each unbroken run of set flags, in order.

    Args:
        flags: bool [T].
        first: index of the first flag.
        cuts: indices, each once, before which a run ends even if the flags on both sides are set.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8))) + first
    inside = [cut for cut in cuts if first < cut < first + len(flags) and flags[cut - first - 1 : cut - first + 1].all()]
    # A cut ends one run and begins the next.
    edges = np.sort(np.concatenate([edges, inside, inside])).astype(np.int64)
    return [range(begin, end) for begin, end in edges.reshape(-1, 2).tolist()]
