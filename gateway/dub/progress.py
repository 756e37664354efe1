"""Types of the functions that work calls to report its progress."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[str, int, int], None]
"""Called with the name of the pass, the number of finished frames or steps, and the number of all of them."""

OnFootage = Callable[[int, float], None]
"""Called with the number of frames of the footage, and the million pixels of a frame, before the frames are read."""


def no_footage(frames: int, megapixels: float) -> None:
    """Do nothing: the `OnFootage` of callers that do not ask."""
