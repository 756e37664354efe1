"""The interface of a motion predictor (its row in the table of methods, and the functions that run and personalise it), and what
the predictors share: progress, the choice of frames, prediction in blocks, and the styles of people.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from services.common.array_types import Bool, Float32, Float64, Floating
from services.common.errors import NoUsableFootageError
from services.common.face.landmarks import never_open
from services.common.methods import PredictorSpec
from services.common.server.call_context import check_not_cancelled
from services.common.wire.timeline import MOTION_RATE
from services.motion.basis import LandmarkBasis
from services.motion.constraints import ConstraintConfig
from services.motion.models import MotionModels
from services.motion.person_predictor import PersonPredictor
from services.motion.style import (
    FASTEST_STEP,
    RESTING_MOUTH,
    WIDEST_OPENING,
    Style,
    encode_style,
    fastest_step,
    resting_mouth,
    widest_opening,
)
from services.motion.types import Footage, SpeechFeatures

MAX_FRAMES: Final = 250
"""Frames that a correction is learned from: the first ten seconds of usable frames."""
MIN_FRAMES: Final = 50
"""Fewest usable frames that a personalisation takes (2 s), unless the predictor says another number."""
NUM_BLOCKS: Final = 5
Open = Callable[[MotionModels, Style, ConstraintConfig | None], PersonPredictor]
"""Function that opens a predictor for one person, see Predictor.open."""
Shape = Callable[[MotionModels], tuple[int, ...]]
"""Shape of an array of the style artefact. Takes the models, because sizes depend on the exported network."""


@dataclass(frozen=True, slots=True)
class StyleStep:
    """Progress of a personalisation.

    Attributes:
        index: number of this step, 1 to `count`.
        count: number of steps.
        loss: share of the squared error that remains; 1 until the last step.
        style: the refined style in the last step, otherwise None.
    """

    index: int
    count: int
    loss: float
    style: Style | None


class WindowPrediction(NamedTuple):
    """Coefficients of one frame in units of the person's spread, float32 [K], and the frame's pooled speech, float32 [P]."""

    coefficients: Float32
    pooled: Float32


class PredictionErrors(NamedTuple):
    """Errors of a network on footage: residual float64 [T, K] (true less predicted) and pooled speech float64 [T, P]."""

    residual: Float64
    pooled: Float64


def frames_to_learn_from(usable: Bool, max_frames: int = MAX_FRAMES, min_frames: int = MIN_FRAMES) -> npt.NDArray[np.intp]:
    """Return the indices of the first usable frames, at most `max_frames`.

    Raises:
        NoUsableFootageError: fewer than `min_frames` usable frames.
    """
    frames = np.flatnonzero(usable)[:max_frames]
    if len(frames) < min_frames:
        seconds = float(min_frames / MOTION_RATE)
        raise NoUsableFootageError(
            f"personalising motion needs {min_frames} usable frames ({seconds:g} s), the footage has {len(frames)}",
            subject="mouth_landmarks",
        )
    return frames


def true_coefficients(
    footage: Footage, frames: npt.NDArray[np.intp], style: Style, basis: LandmarkBasis, spread: Floating
) -> Float64:
    """Return the coefficients of frames of footage in units of the person's spread, float64 [T, K].

    Args:
        footage: tracked footage of the person.
        frames: indices of the T frames.
        spread: float [K], the person's spread of each coefficient.
    """
    offsets = footage.mouth_landmarks[frames] - style.rest_mouth
    return np.asarray(basis.project(offsets).astype(np.float64) / spread)


def predict_in_blocks(
    frames: npt.NDArray[np.intp], target: Float64, predict: Callable[[int], WindowPrediction]
) -> Generator[StyleStep, None, PredictionErrors]:
    """Run a network over the frames of a clip.

    Args:
        frames: indices of the T frames to learn from.
        target: float64 [T, K], true coefficients of these frames in units of the person's spread.
        predict: returns the network's answer for a frame of the clip.

    Yields:
        One step per block of frames; one more step is due after the last block.

    Returns:
        The errors of the network on these frames.
    """
    answers: list[WindowPrediction] = []
    for block in np.array_split(frames, NUM_BLOCKS):
        check_not_cancelled()
        answers += [predict(frame) for frame in block]
        yield StyleStep(len(answers), len(frames) + 1, 1.0, None)
    predicted, pooled = zip(*answers, strict=True)
    return PredictionErrors(target - np.array(predicted, np.float64), np.array(pooled, np.float64))


def encode_mouths(footage: Footage, models: MotionModels) -> Style:
    """Return the style of tracked mouths: the arrays that every style holds, and how the person rests and how far the mouth moves.

    A person who is never seen with an open mouth gets the movement of the mean training speaker.

    Raises:
        NoUsableFootageError: fewer than 25 usable frames.
    """
    style = encode_style(footage.mouth_landmarks, footage.usable, models.basis, models)
    mouths = footage.mouth_landmarks[footage.usable]
    if never_open(mouths):
        return models.mean_speaker(style)
    own = {
        RESTING_MOUTH: resting_mouth(mouths),
        WIDEST_OPENING: widest_opening(mouths),
        FASTEST_STEP: fastest_step(footage.mouth_landmarks, footage.usable),
    }
    return style.adding(**own)


def mean_speaker(style: Style, models: MotionModels) -> Style:
    """Return the person's own mouths with the style of the mean training speaker, see MotionModels.mean_speaker."""
    return models.mean_speaker(style)


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictor:
    """One motion predictor.

    Attributes:
        spec: the predictor's row, `PREDICTORS[NAME]`.
        version: returns the digest of the networks.
        open: returns the predictor of one person on the 25 frames/s grid. Arguments: the networks; the style of the person; closure
            of the lips on p, b, m and in silence, None: as for live speech. Raises InvalidRequestError if the style lacks what the
            predictor needs.
        open_ahead: function as `open` for each of `spec.look_ahead_choices`. It opens the predictor with this look-ahead.
        personalize: refines a style. Arguments: the style of the person, encoded for this predictor; features of the enrolment
            footage without lag, T frames; the enrolment footage, T frames; the networks. Yields progress, and the refined style in
            the last step. Arrays that other predictors added stay as they are. Raises NoUsableFootageError if fewer than 50 frames
            are usable.
        style_arrays: arrays that this predictor adds to the style artefact: name -> shape.
        encode_style: returns the style of a person from tracked footage.
        mean_style: returns the style for the ablation without style.
    """

    spec: PredictorSpec
    version: Callable[[MotionModels], str]
    open: Open
    personalize: Callable[[Style, SpeechFeatures, Footage, MotionModels], Iterator[StyleStep]]
    open_ahead: Mapping[int, Open] = field(default_factory=dict)
    style_arrays: Mapping[str, Shape] = field(default_factory=dict)
    encode_style: Callable[[Footage, MotionModels], Style] = encode_mouths
    mean_style: Callable[[Style, MotionModels], Style] = mean_speaker
