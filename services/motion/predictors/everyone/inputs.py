"""The window of speech that `everyone` hears for a frame, and the pooled speech that a person's correction hears.

The method dubs files, not live streams. So a frame hears 400 ms of speech after the frame, beside a second before the frame.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from services.common.array_types import Float32
from services.motion.features import content_before, content_rows, silence
from services.motion.pooled_speech import pooled_speech
from services.motion.types import SpeechFeatures

WINDOW_PAST: Final = 25
"""Frames of features before the predicted frame: 1 s."""
WINDOW_AHEAD: Final = 10
"""Frames of features after the predicted frame: 400 ms of look-ahead."""
WINDOW: Final = WINDOW_PAST + 1 + WINDOW_AHEAD
POOLED_PAST: Final = 6
"""Frames before the predicted frame that a person's correction hears."""
POOLED_AHEAD: Final = 2
"""Frames after the predicted frame that a person's correction hears. A further mean 4 frames ahead did not help."""


def heard_clip(features: SpeechFeatures) -> Float32:
    """Return content rows of a whole clip of T frames with the silence around the clip: float32 [25 + T + 10, 4, 44]."""
    content = content_rows(SpeechFeatures.joined([features, silence(WINDOW_AHEAD)]))
    return np.concatenate([content_before(WINDOW_PAST), content])


def pooled_content(window: Float32) -> Float32:
    """Return the pooled speech of a window of content rows [36, 4, 44]: float32 [126], the last number 1."""
    return pooled_speech(window[WINDOW_PAST - POOLED_PAST : WINDOW_PAST + 1 + POOLED_AHEAD], POOLED_PAST)
