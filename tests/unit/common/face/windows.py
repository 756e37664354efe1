"""Windows of landmark sequences, as a stream of wanted frames gives them to the bank."""

from __future__ import annotations

import numpy as np

from services.common.array_types import Float32
from services.common.face.mouth_bank import WINDOW


def causal_windows(target: Float32, context: int = 0) -> Float32:
    """Windows t - 5 .. t of a landmark sequence: float32 [T - context, 6, 59, 3].

    Args:
        wanted: float32 [T, 59, 3], head space.
        context: how many frames at the beginning are past context and get no window of their own. Where the past is
            shorter than five frames the first frame is repeated before the first frame.
    """
    ends = np.arange(context, len(target))
    return np.asarray(target[np.maximum(ends[:, None] + np.arange(1 - WINDOW, 1), 0)], dtype=np.float32)
