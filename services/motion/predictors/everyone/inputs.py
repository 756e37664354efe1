"""The window of speech that `everyone` hears for a frame, and the pooled speech that a person's correction hears.

The method dubs files, not live streams. So a frame hears 400 ms of speech after the frame, beside a second before the frame.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from services.common.array_types import Float32
from services.motion.features import NUM_CONTENT, content_before, content_rows
from services.motion.speech_states import NUM_STATES, Heard, silence_with_states, silent_states, states_of
from services.motion.types import ROWS_PER_FRAME, SpeechFeatures

WINDOW_PAST: Final = 25
"""Frames of features before the predicted frame: 1 s."""
WINDOW_AHEAD: Final = 10
"""Frames of features after the predicted frame: 400 ms of look-ahead."""
WINDOW: Final = WINDOW_PAST + 1 + WINDOW_AHEAD
PAPER_CHANNELS: Final = ROWS_PER_FRAME * NUM_CONTENT
"""Count of numbers in the four content rows of a frame. Content rows are the input in place of the paper's own."""
SERVED: Final[Heard] = "states"
"""Input of the network that the stage serves. The training can measure the others."""


def num_channels(heard: Heard) -> int:
    """Return H, the numbers of a frame that a network hears."""
    return {"paper": PAPER_CHANNELS, "states": NUM_STATES, "both": PAPER_CHANNELS + NUM_STATES}[heard]


def heard_frames(content: Float32, states: Float32, heard: Heard) -> Float32:
    """Return the input of a network, float32 [T, H]: content rows [T, 4, 44], then states [T, 192], as `heard` says."""
    rows = content.reshape(len(content), -1)
    return {"paper": rows, "states": states}.get(heard, np.concatenate([rows, states], axis=1))


def heard_clip(features: SpeechFeatures, heard: Heard = SERVED) -> Float32:
    """Return the input for a whole clip of T frames with the silence around the clip: float32 [25 + T + 10, H].

    Raises:
        InvalidRequest: the features have no states of the speech encoder, and `heard` asks for them.
    """
    rows = SpeechFeatures.joined([features, silence_with_states(WINDOW_AHEAD)])
    content = np.concatenate([content_before(WINDOW_PAST), content_rows(rows)])
    states = silent_states(len(rows)) if heard == "paper" else states_of(rows)
    return heard_frames(content, np.concatenate([silent_states(WINDOW_PAST), states]), heard)
