"""The window of speech that `ugc` hears for a frame, and the pooled speech that a person's correction hears."""

from __future__ import annotations

from typing import Final

import numpy as np

from services.common.array_types import Float32
from services.motion.features import content_before, content_rows, silence
from services.motion.pooled_speech import pooled_speech
from services.motion.types import SpeechFeatures

WINDOW_PAST: Final = 32
"""Frames of features before the predicted frame."""
WINDOW_AHEAD: Final = 2
"""Frames of features after the predicted frame: 80 ms of look-ahead."""
WINDOW: Final = WINDOW_PAST + 1 + WINDOW_AHEAD
_POOLED_PAST: Final = 6
"""Frames before the predicted frame that a person's correction hears."""


def heard_clip(features: SpeechFeatures) -> Float32:
    """Return content rows of a whole clip of T frames with the silence around the clip: float32 [32 + T + 2, 4, 44]."""
    content = content_rows(SpeechFeatures.joined([features, silence(WINDOW_AHEAD)]))
    return np.concatenate([content_before(WINDOW_PAST), content])


def pooled_content(window: Float32) -> Float32:
    """Return the pooled speech of a window of content rows [35, 4, 44]: float32 [126], the last number 1."""
    return pooled_speech(window[WINDOW_PAST - _POOLED_PAST :], _POOLED_PAST)
