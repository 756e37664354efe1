"""The windows that the phonetic posteriorgram network sees, and their bounded cepstral mean normalisation.

Block k answers rows 4 k to 4 k + 3 and sees rows 4 k - 49 to 4 k + 8: five rows of look-ahead. An analysis window
exceeds its row by 7.5 ms, and the resampler adds less than 2.5 ms: the network hears at most 60 ms beyond the answered rows.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from services.audio.types import NUM_MELS, ROWS_PER_VIDEO_FRAME
from services.common.array_types import Float32

PAST_ROWS: Final = 49
LOOK_AHEAD_ROWS: Final = 5
WINDOW_ROWS: Final = PAST_ROWS + ROWS_PER_VIDEO_FRAME + LOOK_AHEAD_ROWS
MEAN_CONTEXT_ROWS: Final = 300
"""Rows up to the window's last one from which the cepstral mean is taken: three seconds."""

_PRIOR_ROWS: Final = 50.0
"""Weight of the prior mean, so that a stream's first syllables are not normalised by themselves."""
_PRIOR_MEAN: Final = np.array(
    [
        0.0,
        12.1,
        1.0,
        3.5,
        -2.1,
        -1.5,
        -1.7,
        -1.2,
        -0.4,
        -0.9,
        -0.3,
        -0.9,
        -0.3,
        -0.7,
        -1.0,
        -0.6,
        -0.4,
        -0.2,
        -0.3,
        -0.1,
    ]
)
"""Mean of the cepstra of speech rows over the training set, rounded; C0 is not normalised."""
_GATE: Final = 5.0
"""Nats of mean log-mel below the context's loudest row (about 22 dB) down to which rows count as speech."""
_QUIETEST: Final = -11.0
"""Mean log-mel below which a row never counts: nearly digital silence."""


def normalise(context: Float32, window_rows: int = WINDOW_ROWS) -> Float32:
    """Return cepstra of the window at the end of `context`, minus the mean of the context's loud rows.

    C0 keeps its absolute level, which says whether a person speaks. Subtracting the means of C1 to C19 removes the microphone's
    colour. Only the last 300 rows count, so the result does not depend on the cut of a stream.

    Args:
        context: [300, 20] float32, the rows up to the window's last row. Rows before the stream are silence.
        window_rows: rows to give back.

    Returns:
        [window_rows, 20] float32.
    """
    level = context[:, 0] / np.sqrt(float(NUM_MELS))
    loud = (level > max(float(level.max()) - _GATE, _QUIETEST)).astype(np.float64)
    # An elementwise product and a sum over rows: the order of additions in a matrix product could vary.
    total = (context.astype(np.float64) * loud[:, None]).sum(axis=0) + _PRIOR_ROWS * _PRIOR_MEAN
    mean = total / (loud.sum() + _PRIOR_ROWS)
    mean[0] = 0.0
    return np.asarray(context[-window_rows:] - mean, dtype=np.float32)
