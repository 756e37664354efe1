"""The teacher of speech without pictures: a linear filter from phones and energies to landmark coefficients, in closed form.

Heterogeneous sources are the point of Xie et al. 2021 (Sec. 1): the landmark generator also learns from data without good pictures.
Speech alone has no landmarks, so a filter names them: a ridge regression from the audio stage's posteriorgram and band energies,
over the training clips with a face. Narrow corpora have a filter of their own beside the shared filter
(services.motion.train.ridge), and only the shared filter teaches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from services.common.array_types import Float32
from services.motion.basis import LandmarkBasis
from services.motion.features import NUM_CONTENT
from services.motion.style import measure_mouth
from services.motion.train.clips import Clips, TrainingClip
from services.motion.train.ridge import Filter, RidgeSums, distance_penalty
from services.motion.train.sampling import frame_weights
from services.motion.types import ROWS_PER_FRAME


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherConfig:
    """Settings of the teacher.

    Attributes:
        past: frames before a frame that the filter hears.
        ahead: frames after the frame.
        strength: strength of the ridge at the frames that count most, in units of the mean variance of an input.
        speaker_exponent: a speaker with m frames counts m to this power.
    """

    past: int = 7
    ahead: int = 4
    strength: float = 0.06
    speaker_exponent: float = 0.45


@dataclass(frozen=True, slots=True)
class Teacher:
    """Fitted teacher.

    Attributes:
        shared: filter of all footage, from [T, 176 (past + 1 + ahead)] to [T, K] in units of the person's spread.
        apart: by narrow corpus, the filter to add, see RidgeSums.
        config: settings.
    """

    shared: Filter
    apart: Mapping[str, Filter]
    config: TeacherConfig

    def answer(self, content: Float32) -> Float32:
        """Return what the teacher expects of content rows [T, 4, 44]: coefficients float32 [T, K] in units of the spread."""
        return self.shared(_neighbours(content, self.config))

    def alone(self, clip: TrainingClip) -> Float32:
        """Return the coefficients of a clip that hold in its narrow corpus alone, float32 [T, K]: 0 outside of narrow corpora."""
        found = self.apart.get(clip.apart)
        return (
            np.zeros((len(clip), len(self.shared.bias)), np.float32)
            if found is None
            else found(_neighbours(clip.content, self.config))
        )


def fit_teacher(clips: Clips, basis: LandmarkBasis, config: TeacherConfig) -> Teacher:
    """Fit the teacher to clips with a face. All clips are read."""
    width, channels = config.past + 1 + config.ahead, NUM_CONTENT * ROWS_PER_FRAME
    sums = RidgeSums(channels * width, len(basis.typical_spread))
    for clip, weight in zip(clips, frame_weights(clips.rows, config.speaker_exponent), strict=True):
        mouths = clip.mouth_landmarks[clip.usable]
        mouth = measure_mouth(mouths, basis)
        targets = basis.project(mouths - mouth.rest_mouth) / mouth.spread
        sums.add(_neighbours(clip.content, config)[clip.usable], targets, float(weight), clip.apart)
    penalty = distance_penalty(width, config.past, config.strength * sums.input_variance())
    fitted = sums.solve(np.repeat(penalty, channels))
    return Teacher(fitted.shared, fitted.apart, config)


def _neighbours(content: Float32, config: TeacherConfig) -> Float32:
    """Return the content rows around each frame: float32 [T, 176 (past + 1 + ahead)]."""
    rows = content.reshape(len(content), -1)
    padded = np.pad(rows, ((config.past, config.ahead), (0, 0)), mode="edge")
    width = config.past + 1 + config.ahead
    return np.concatenate([padded[step : step + len(rows)] for step in range(width)], axis=1)
