"""The teacher of speech without pictures: a linear filter from speech to landmark coefficients, in closed form.

Heterogeneous sources are the point of Xie et al. 2021 (Sec. 1): the landmark generator also learns from data without good pictures.
Speech alone has no landmarks, so a filter names them: a ridge regression over the training clips with a face, from the states of
the speech encoder, or from the audio stage's posteriorgram and band energies if the generator hears the paper's spectrogram.
Narrow corpora have a filter of their own beside the shared filter (services.motion.train.ridge), and only the shared filter
teaches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from services.common.array_types import Float32
from services.motion.basis import LandmarkBasis
from services.motion.features import NUM_CONTENT
from services.motion.predictors.hetero.inputs import Heard
from services.motion.predictors.hetero.network import FILTER_REACH
from services.motion.speech_states import neighbours, states_of
from services.motion.train.clips import Clips, TrainingClip
from services.motion.train.ridge import Filter, RidgeSums, distance_penalty
from services.motion.train.sampling import frame_weights
from services.motion.train.states_filter import fit_states_filter, mouth_target
from services.motion.types import ROWS_PER_FRAME, SpeechFeatures


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherConfig:
    """Settings of the teacher that hears phones and energies. The teacher that hears states has those of states_filter.

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
        shared: filter of all footage, from [T, I] to [T, K] in units of the person's spread.
        apart: by narrow corpus, the filter to add, see RidgeSums.
        config: settings.
        heard: input of the generator.
    """

    shared: Filter
    apart: Mapping[str, Filter]
    config: TeacherConfig
    heard: Heard

    def answer(self, features: SpeechFeatures, content: Float32) -> Float32:
        """Return what the teacher expects of speech: coefficients float32 [T, K] in units of the spread.

        Args:
            features: of T frames.
            content: float32 [T, 4, 44], content rows of the features.
        """
        return self.shared(self._inputs(features, content))

    def alone(self, clip: TrainingClip) -> Float32:
        """Return the coefficients of a clip that hold in its narrow corpus alone, float32 [T, K]: 0 outside of narrow corpora."""
        found = self.apart.get(clip.apart)
        if found is None:
            return np.zeros((len(clip), len(self.shared.bias)), np.float32)
        return found(self._inputs(clip.features, clip.content))

    def _inputs(self, features: SpeechFeatures, content: Float32) -> Float32:
        if self.heard == "paper":
            return _neighbours(content, self.config)
        return neighbours(states_of(features), FILTER_REACH, FILTER_REACH).reshape(len(features), -1)


def fit_teacher(clips: Clips, basis: LandmarkBasis, config: TeacherConfig, heard: Heard) -> Teacher:
    """Fit the teacher to clips with a face. All clips are read."""
    num_coefficients = len(basis.typical_spread)
    if heard != "paper":
        fitted = fit_states_filter(
            clips, partial(mouth_target, basis=basis), num_coefficients, past=FILTER_REACH, ahead=FILTER_REACH
        )
        return Teacher(fitted.shared, fitted.apart, config, heard)
    width, channels = config.past + 1 + config.ahead, NUM_CONTENT * ROWS_PER_FRAME
    sums = RidgeSums(channels * width, num_coefficients)
    for clip, weight in zip(clips, frame_weights(clips.rows, config.speaker_exponent), strict=True):
        sums.add(_neighbours(clip.content, config)[clip.usable], mouth_target(clip, basis)[clip.usable], float(weight), clip.apart)
    penalty = distance_penalty(width, config.past, config.strength * sums.input_variance())
    fitted = sums.solve(np.repeat(penalty, channels))
    return Teacher(fitted.shared, fitted.apart, config, heard)


def _neighbours(content: Float32, config: TeacherConfig) -> Float32:
    """Return the content rows around each frame: float32 [T, 176 (past + 1 + ahead)]."""
    rows = content.reshape(len(content), -1)
    padded = np.pad(rows, ((config.past, config.ahead), (0, 0)), mode="edge")
    width = config.past + 1 + config.ahead
    return np.concatenate([padded[step : step + len(rows)] for step in range(width)], axis=1)
