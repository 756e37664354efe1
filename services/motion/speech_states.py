"""States of the speech encoder (audio stage): 192 numbers a frame, of which a filter about a frame tells most of the mouth.

Components 0 to 95 are of the encoder's block 2, components 96 to 191 of block 3. The audio stage measures states from those of
digital silence, so silence is 0. A person's correction (correction.py) takes the first 48 components of block 3, as a Gaussian mean
over time:

    c' = c + C p,     p = .25 sum_d w_d s_{n + d},  d = -2 .. 2,  and 1
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal

import numpy as np

from services.common.array_types import Float32, Floating
from services.common.errors import InvalidRequestError
from services.motion.features import silence
from services.motion.types import EXTRA_FEATURES, SpeechFeatures

STATES: Final = "speech_states"
"""Tensor of AudioFeatureBlock with the states of speech in files."""
NUM_STATES: Final = EXTRA_FEATURES[STATES][0]
STATES_PAST, STATES_AHEAD = 2, 4
"""Frames before and after a frame whose states tell most of the mouth in files: the mouth moves some 40 ms before the sound. Of
windows of 6 to 9 frames, this one is as good as any (docs/models/speech_map.md)."""
BLOCKS: Final = (slice(0, NUM_STATES // 2), slice(NUM_STATES // 2, NUM_STATES))
"""Components of the encoder's block 2 and of block 3."""
SpeechInput = Literal["phones", "states", "both"]
"""Input of a network: phone probabilities and band energies, states of the speech encoder, or both."""
_POOLED: Final = slice(96, 144)
"""Components that a correction takes."""
_REACH: Final = 2
_WIDTH: Final = 0.7
"""Frames before and after the predicted frame in a correction's window, and standard deviation of their weights, frames."""
_SCALE: Final = np.float32(0.25)
NUM_POOLED_STATES: Final = _POOLED.stop - _POOLED.start + 1


def states_of(features: SpeechFeatures, feature: str = STATES) -> Float32:
    """Return the states of the speech encoder, float32 [T, 192].

    Raises:
        InvalidRequestError: the features have no such states.
    """
    states = features.extra.get(feature)
    if states is None:
        raise InvalidRequestError(f"features.{feature}: missing; the predictor needs this tensor", field=f"features.{feature}")
    return states


def silent_states(num_frames: int) -> Float32:
    """Return the states of digital silence, float32 [T, 192]."""
    return np.zeros((num_frames, NUM_STATES), np.float32)


def silence_with_states(num_frames: int, feature: str = STATES) -> SpeechFeatures:
    """Return features of digital silence that hold the silent states."""
    quiet = silence(num_frames)
    return replace(quiet, extra={**quiet.extra, feature: silent_states(num_frames)})


def beside_states(rows: Float32, states: Float32) -> Float32:
    """Return inputs of a network, [T, ...], and after them the states, [T, 192], as one array float32 [T, C + 192]."""
    return np.concatenate([rows.reshape(len(rows), -1), states], axis=1)


def neighbours(rows: Floating, past: int, ahead: int) -> Float32:
    """Return the rows about each row of a whole clip, float32 [T, past + 1 + ahead, N]. Zeros surround the clip: silent states.

    Args:
        rows: states or other numbers of each frame, [T, N].
        past: rows before a row.
        ahead: rows after a row.
    """
    padded = np.pad(rows, ((past, ahead), (0, 0))).astype(np.float32)
    return np.stack([padded[step : step + len(rows)] for step in range(past + 1 + ahead)], axis=1)


def pooled_states(window: Float32, past: int) -> Float32:
    """Return the features of a window of states that a correction takes: float32 [W, 192] -> float32 [49], the last number 1.

    The components are a Gaussian mean over time, so one correction serves files and live speech.

    Args:
        window: states; at least two frames lie before the predicted frame. Of the two frames after, those that are there count.
        past: frames before the predicted frame.
    """
    distance = np.arange(-_REACH, min(_REACH, len(window) - 1 - past) + 1)
    weights = np.exp(-0.5 * (distance / _WIDTH) ** 2)
    near = window[past - _REACH : past + _REACH + 1, _POOLED]
    mean = (near * (weights / weights.sum())[:, None].astype(np.float32)).sum(axis=0)
    return np.append(_SCALE * mean, np.float32(1.0)).astype(np.float32)
