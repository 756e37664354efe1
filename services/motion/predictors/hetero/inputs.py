"""The window of speech that `hetero` hears for a frame.

Xie et al. 2021, Sec. 3.2.1, hear 80 mel bands, with a step of 200 ms (20 rows of 10 ms) for each video frame. The network that is
served hears the states of the speech encoder in the place of the spectrum. Training can still take the spectrum, to measure what
each tells: the audio stage's spectrum has analysis windows of 25 ms, the paper's has 40 ms, and bands are relative to the speech of
the four seconds before. The paper does not say how its spectrum is normalised.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np

from services.common.array_types import Float32
from services.motion.features import relative_energy, silence
from services.motion.speech_states import NUM_STATES, silence_with_states, silent_states, states_of
from services.motion.types import NUM_MELS, ROWS_PER_FRAME, SpeechFeatures

Heard = Literal["paper", "states"]
"""Input of the generator: the paper's mel spectrogram, or states of the speech encoder."""
SERVED: Final[Heard] = "states"
"""Input of the generator that the stage serves."""
WINDOW_AHEAD: Final = 5
"""Frames of features after the predicted frame: 200 ms of look-ahead."""
WINDOW_PAST: Final = 13
"""Frames of features before the predicted frame: .52 s."""
WINDOW: Final = WINDOW_PAST + 1 + WINDOW_AHEAD
QUIET: Final = -1.5
"""Relative mel power of the silence before a stream: the typical value of quiet frames in speech."""


def heard_shape(heard: Heard) -> tuple[int, ...]:
    """Return the shape of a frame that the generator hears: [4, 80] or [192]."""
    return (ROWS_PER_FRAME, NUM_MELS) if heard == "paper" else (NUM_STATES,)


def relative_mel(features: SpeechFeatures) -> Float32:
    """Return relative mel power of a whole stream, float32 [T, 4, 80] within [-3, 3], see features.relative_energy."""
    return relative_energy(features.mel, features.speech_probability)


def heard_clip(features: SpeechFeatures, heard: Heard = SERVED) -> Float32:
    """Return the input for a whole clip of T frames with the silence around the clip: float32 [13 + T + 5, *heard_shape].

    Raises:
        InvalidRequest: the features have no states of the speech encoder, and `heard` asks for them.
    """
    if heard == "paper":
        whole = SpeechFeatures.joined([features, silence(WINDOW_AHEAD)])
        before = np.full((WINDOW_PAST, ROWS_PER_FRAME, NUM_MELS), QUIET, np.float32)
        return np.concatenate([before, relative_mel(whole)])
    whole = SpeechFeatures.joined([features, silence_with_states(WINDOW_AHEAD)])
    return np.concatenate([silent_states(WINDOW_PAST), states_of(whole)])
