"""Speech around the frames of a training set's clips: rows of the posteriorgram, as serving cuts them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from services.common.array_types import Float32
from services.common.face.mouth_bank import SPEECH_SHAPE
from services.render.train.people import Stretch
from services.training.trainset.reader import TrainSet

_REACH = 2


def read_speech(data: TrainSet, parts: Sequence[Stretch]) -> Float32:
    """Return the speech around the frames that `services.render.train.people.read_bank` reads: float32 [F, 20, 40].

    The lag of a clip's sound is taken out. Rows outside the sound are zeros.

    Args:
        data: the training set.
        parts: parts of clips of one person.

    Raises:
        InvalidRequest: a file is missing or damaged.
    """
    found = []
    for part in parts:
        usable = np.flatnonzero(data.arrays(part.row, "track", ("usable",))["usable"])[part.first : part.last]
        rows = data.arrays(part.row, "speech", ("posteriorgram",))["posteriorgram"]
        frames = usable[:, None] + part.row.lag_frames + np.arange(-_REACH, _REACH + 1)
        inside = (frames >= 0) & (frames < len(rows))
        around = np.where(inside[..., None, None], rows[np.clip(frames, 0, len(rows) - 1)], np.float32(0.0))
        found.append(around.reshape(len(usable), *SPEECH_SHAPE))
    return np.concatenate(found).astype(np.float32)
