"""The second of ID-removed speech that the network of `everybody` hears for a frame.

Everybody's Talkin', Sec. 3.2.2: the window reaches from 0.8 s before a frame's time to 0.2 s after that time, which is 20 grid
frames before the frame, the frame itself, and four frames after. Each row holds ID-removed cepstra and, beyond the paper, band
energies relative to the speech just heard: the jaw opens by loudness, and ID-removed cepstra have no loudness left.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from services.common.array_types import Float32
from services.common.errors import InvalidRequest
from services.motion.features import BANDS, content_before, content_rows, silence
from services.motion.types import EXTRA_FEATURES, NUM_PHONES, ROWS_PER_FRAME, SpeechFeatures

FEATURE: Final = "identity_removed"
"""Tensor of AudioFeatureBlock that this predictor needs: cepstra of the global speaker."""
NUM_CEPSTRA: Final = EXTRA_FEATURES[FEATURE][-1]
WINDOW_PAST: Final = 20
"""Frames before the predicted frame: 0.8 s."""
WINDOW_AHEAD: Final = 4
"""Frames after the predicted frame: 0.2 s after the frame's time, 160 ms of features after the frame's own."""
WINDOW: Final = WINDOW_PAST + 1 + WINDOW_AHEAD
NUM_HEARD: Final = NUM_CEPSTRA + len(BANDS)
"""Channels of a row of the window: ID-removed cepstra, then relative band energies."""
ENERGY_SCALE: Final = 0.5
"""Scale of the energies beside the cepstra. On validation clips .5 was better than 1 and better than 0."""


def identity_removed(features: SpeechFeatures) -> Float32:
    """Return the ID-removed cepstra, float32 [T, 4, 20].

    Raises:
        InvalidRequest: the features have no ID-removed cepstra.
    """
    found = features.extra.get(FEATURE)
    if found is None:
        raise InvalidRequest(f"features.{FEATURE}: missing; `everybody` needs this tensor", field=f"features.{FEATURE}")
    return found


def heard_rows(removed: Float32, content: Float32) -> Float32:
    """Return network inputs, float32 [T, 4, 24].

    Args:
        removed: float32 [T, 4, 20], ID-removed cepstra.
        content: float32 [T, 4, 44], content rows, of which the energies are heard.
    """
    return np.concatenate([removed, np.float32(ENERGY_SCALE) * content[..., NUM_PHONES:]], axis=-1)


def heard_silence(num_frames: int, row: Float32) -> Float32:
    """Return network inputs of the silence before a stream, float32 [T, 4, 24]; `row` [20] is the ID-removed row of silence."""
    removed = np.broadcast_to(row, (num_frames, ROWS_PER_FRAME, len(row))).astype(np.float32)
    return heard_rows(removed, content_before(num_frames))


def silent_speech(num_frames: int, row: Float32) -> SpeechFeatures:
    """Return features of digital silence with the ID-removed row [20] of silence."""
    rows = np.broadcast_to(row, (num_frames, ROWS_PER_FRAME, len(row))).astype(np.float32)
    return replace(silence(num_frames), extra={FEATURE: rows})


def heard_clip(features: SpeechFeatures, row: Float32) -> Float32:
    """Return network inputs of a whole clip of T frames with the silence around the clip: float32 [20 + T + 4, 4, 24].

    Raises:
        InvalidRequest: the features have no ID-removed cepstra.
    """
    rows = SpeechFeatures.joined([features, silent_speech(WINDOW_AHEAD, row)])
    return np.concatenate([heard_silence(WINDOW_PAST, row), heard_rows(identity_removed(rows), content_rows(rows))])
