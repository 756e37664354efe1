"""The motion predictor `headpose`: speech in; expression, mouths and head poses out.

Headpose paper, Sec. 3.2: an LSTM from audio features to expression and head pose, a step a frame, its state carried from the
first frame on; so pieces of any size give the same bytes. What the paper leaves out: p, b, m and silence shut the lips as in
`ugc`; amplitude and rest mouth are the person's own; and the person's distribution and pace of poses come back by construction
(head_rhythm.py, head_style.py), where the mean that least squares learns would hardly move.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.calls import check_still_wanted
from services.common.crops import MAX_SCALE, MIN_SCALE
from services.common.errors import InvalidRequest, NoUsableFootage
from services.common.landmarks import mouth_opening, shut_lips
from services.common.timeline import Timeline
from services.motion.blink import blinks
from services.motion.cepstra import HeardStream, heard_before
from services.motion.constraints import CONTEXT_PAST, ConstraintConfig
from services.motion.expression import expressed, expression_spread
from services.motion.features import NUM_CONTENT, silence
from services.motion.grid import AMPLITUDE, Grid
from services.motion.head_rhythm import Float64, Rhythm, ScoreStream, SignalStream, general_weights, tuned
from services.motion.head_style import HeadStyle, PoseMap, head_style_arrays, measure_head, still_head
from services.motion.models import MotionModels
from services.motion.pooled_speech import pooled_speech
from services.motion.predict import MotionStream, mean_speaker
from services.motion.style import Style, encode_style
from services.motion.types import Bool, Float32, Motion, SpeechFeatures

_MAX_CONDITION: Final = 1e8
_MAX_LOG: Final = 20.0
"""Of the scale of a pose, relative to the reference's."""


def head_style_of(style: Style) -> HeadStyle:
    """How the person of a style holds and moves the head.

    Raises:
        InvalidRequest: the style was encoded for a method that does not move the head, or is damaged.
    """
    arrays = (style.pose_reference, style.pose_quantiles, style.pose_mixing, style.pose_steps)
    if any(array is None for array in arrays):
        raise InvalidRequest(
            "style: it says nothing of the head's movement: encode it with method `headpose` and head_poses", field="style"
        )
    reference, quantiles, mixing, steps = (np.asarray(array, np.float64) for array in arrays)
    sound = MIN_SCALE / 2.0 <= reference[5] <= MAX_SCALE * 2.0 and np.abs(quantiles[5]).max() <= _MAX_LOG
    if not sound or np.linalg.cond(mixing) > _MAX_CONDITION or (np.diff(quantiles, axis=1) < 0.0).any():
        raise InvalidRequest("style: its arrays of the head's movement are damaged: encode the style anew", field="style")
    return HeadStyle(reference, quantiles, mixing, steps)


def encode_head_style(mouth_landmarks: Float32, usable: Bool, head_poses: Float64, models: MotionModels) -> Style:
    """Style of a person for `headpose`, from tracked footage at 25 frames/s or from one still frame.

    Args:
        mouth_landmarks: float32 [T, 59, 3], head space; T = 1: the mean speaker's style about that mouth and pose.
        usable: bool [T].
        head_poses: float64 [T, 6], head-pose vectors.
        models: the networks.

    Raises:
        NoUsableFootage: more than one frame, but fewer than 25 usable ones; or the one frame is not usable.
    """
    general = models.head_motion.general
    if len(usable) != 1:
        style = encode_style(mouth_landmarks, usable, models.basis, models)
        return replace(style, **head_style_arrays(measure_head(head_poses, usable, general)))
    if not usable[0]:
        raise NoUsableFootage("the one frame that there is cannot be used", subject="mouth_landmarks")
    return replace(_still_style(mouth_landmarks[0], models), **head_style_arrays(still_head(head_poses[0], general)))


def _still_style(mouth: Float32, models: MotionModels) -> Style:
    """The mean speaker's style about one mouth [59, 3], which may be open: its own rest is the mouth with its lips shut."""
    closed = shut_lips(mouth)
    # Motion is measured from a mouth that is just shut; along the opening alone, so that a smile stays.
    opening = models.basis.components[0]
    unit = float(mouth_opening(mouth + opening) - mouth_opening(mouth)) or 1.0
    rest = mouth - np.float32(float(mouth_opening(mouth)) / unit) * opening
    if float(mouth_opening(rest)) > float(mouth_opening(mouth)):
        rest = mouth
    return replace(
        models.neutral_style(),
        mean_mouth=(rest + models.head_motion.mean_motion).astype(np.float32),
        rest_mouth=rest.astype(np.float32),
        closed_mouth=closed.astype(np.float32),
        spread=models.basis.typical_spread,
    )


def mean_head_speaker(style: Style, models: MotionModels) -> Style:
    """The ablation without style: mouth and head move as the mean training speaker's, about the person's own rest and pose."""
    own = head_style_of(style)
    return replace(mean_speaker(style, models), **head_style_arrays(still_head(own.reference, models.head_motion.general)))


def rhythm_of(style: Style, models: MotionModels) -> Rhythm:
    """How the person's scores follow the speech."""
    weights = general_weights() if style.pose_weights is None else np.asarray(style.pose_weights, np.float64)
    return tuned(weights, head_style_of(style).steps, models.head_motion.rhythm)


class HeadMotionGrid(Grid):
    """The predictor `headpose` on the grid, with head poses: two frames of features after a frame.

    Args:
        models: the networks.
        style: the person, encoded for `headpose`.
        constraints: closure of bilabials and of silence.
        amplitude: of the mouth's movement about the mean mouth.

    Raises:
        InvalidRequest: the style says nothing of the head.
    """

    def __init__(
        self, models: MotionModels, style: Style, constraints: ConstraintConfig | None = None, amplitude: float = AMPLITUDE
    ) -> None:
        self._model, self._amplitude = models.head_motion, amplitude
        past = max(self._model.past, CONTEXT_PAST)
        super().__init__(style, constraints, silence(past), heard_before(past), self._model.ahead)
        self._spread = expression_spread(style.spread, models.basis, self._model.basis)
        self._poses = PoseMap(head_style_of(style))
        self._signals = SignalStream(self._model.rhythm)
        self._scores = ScoreStream(rhythm_of(style, models))
        self._h, self._c = self._model.rest(), self._model.rest()
        self._stream = HeardStream()

    def expression(self, mouth_landmarks: Float32) -> Float32:
        """Coefficients of the morphable model from the person's rest mouth: float32 [T, num_expression]."""
        return self._model.coefficients(mouth_landmarks - self._style.rest_mouth)

    def _hear(self, features: SpeechFeatures) -> Float32:
        return self._stream.push(features)

    def _predict(self, first: int, heard: Float32, speaking: Float32) -> Motion:
        mouths, poses = [], []
        for frame, probability in enumerate(speaking.tolist(), self._past):
            check_still_wanted()
            expression, pose = self._step(heard[frame - self._model.past : frame + self._model.ahead + 1])
            row = self._signals.push(pose, heard[frame, :, :NUM_CONTENT], probability)
            poses.append(self._poses.pose(self._scores.push(row, probability)))
            mouths.append(expressed(self._spread * expression, self._model.basis, self._style, self._amplitude))
        return Motion(first, np.stack(mouths), speaking, None, np.stack(poses), blinks(np.arange(first, first + len(speaking))))

    def _step(self, window: Float32) -> tuple[Float32, npt.NDArray[np.float32]]:
        """One step of the LSTM, whose state it moves on: expression [E] with the person's correction, and pose [6]."""
        step = self._model.step(window, self._h, self._c)
        self._h, self._c = step.h, step.c
        if self._style.spoken_correction is None:
            return step.expression, step.pose
        corrected = step.expression + self._style.spoken_correction @ pooled_speech(window[..., :NUM_CONTENT], self._model.past)
        return corrected, step.pose


def head_motion_stream(models: MotionModels, style: Style, timeline: Timeline, num_frames: int = 0) -> MotionStream:
    """`headpose` on an output timeline; arguments and errors as of MotionStream."""
    return MotionStream(models, style, timeline, num_frames, grid=HeadMotionGrid(models, style))
