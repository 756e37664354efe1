"""Speech features in, mouths on the output timeline out: the streaming motion predictor `ugc`, and the stream of any method.

Each grid frame n is a pure function of the features of frames n - 32 .. n + 2 (silence before the first and after the last), so the
same features in other pieces give the same bytes. A personalised style adds a correction (adapt/personalize.py), with p the speech
of frames n - 6 .. n + 2 pooled over time:

    coefficients = network(window) + C p(window)        in units of the person's spread
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from services.common.calls import check_still_wanted
from services.common.errors import InvalidRequest
from services.common.timeline import MOTION_RATE, Timeline
from services.motion.constraints import ConstraintConfig
from services.motion.features import ContentStream, content_before, silence
from services.motion.grid import Grid, expected
from services.motion.interpolate import catmull_rom, cubic, grid_position
from services.motion.models import MotionModels
from services.motion.pooled_speech import pooled_speech
from services.motion.style import Style
from services.motion.types import NUM_POINTS, WINDOW, WINDOW_AHEAD, WINDOW_PAST, Float32, Motion, SpeechFeatures

MAX_FRAMES_AT_ONCE: Final = 250
"""Frames of one answer at most: 10 s of motion."""
_POOLED_PAST: Final = 6
"""Frames before the predicted one that a person's correction hears."""


def mean_speaker(style: Style, models: MotionModels) -> Style:
    """The paper's ablation: the person's rest mouth with the style of the mean training speaker."""
    return Style(
        style.mean_mouth,
        style.rest_mouth,
        style.closed_mouth,
        models.basis.typical_spread,
        models.mean_code,
        models.mean_modulation,
    )


def pooled_content(window: Float32) -> Float32:
    """What a person's correction hears of a window of content rows [WINDOW, 4, 44]: float32 [126], the last one 1."""
    return pooled_speech(window[WINDOW_PAST - _POOLED_PAST :], _POOLED_PAST)


def landmarks_of_frame(content: Float32, style: Style, models: MotionModels) -> Float32:
    """Mouth of frame WINDOW_PAST of a window of content rows [WINDOW, 4, 44]: float32 [59, 3], full size, before constraints."""
    coefficients = models.predict(content, style.modulation)
    if style.landmark_correction is not None:
        coefficients = coefficients + style.landmark_correction @ pooled_content(content)
    return style.rest_mouth + models.basis.reconstruct((coefficients * style.spread).astype(np.float32))


class GridPredictor(Grid):
    """The predictor `ugc` on the grid: two frames of features after a frame.

    Args:
        models: the networks.
        style: the person.
        constraints: closure of bilabials and of silence.
    """

    def __init__(self, models: MotionModels, style: Style, constraints: ConstraintConfig | None = None) -> None:
        super().__init__(style, constraints, silence(WINDOW_PAST), content_before(WINDOW_PAST), WINDOW_AHEAD)
        self._models = models
        self._contents = ContentStream()

    def _hear(self, features: SpeechFeatures) -> Float32:
        return self._contents.push(features)

    def _predict(self, first: int, heard: Float32, speaking: Float32) -> Motion:
        windows = [heard[n : n + WINDOW] for n in range(len(speaking))]
        full_size = np.stack([self._mouth(window) for window in windows])
        return Motion(first, expected(full_size, self._style), speaking)

    def _mouth(self, window: Float32) -> Float32:
        check_still_wanted()
        return landmarks_of_frame(window, self._style, self._models)


class _GridFrame(NamedTuple):
    """What is kept of a grid frame: mouth [59, 3], speech probability, head-pose vector [6] or None, closure of the eyes."""

    mouth: Float32
    speaking: float
    pose: npt.NDArray[np.float64] | None
    blink: float


class MotionStream:
    """The predictor on an output timeline.

    Args:
        models: the networks.
        style: the person.
        timeline: of the motion that is wanted.
        num_frames: motion frames to answer; 0: as many as the features cover.
        constraints: closure of bilabials and of silence.
        grid: the predictor of another method than `ugc`; `models`, `style` and `constraints` are its own affair then.

    Raises:
        InvalidRequest: more frames are asked for than the timeline has.
    """

    def __init__(
        self,
        models: MotionModels,
        style: Style,
        timeline: Timeline,
        num_frames: int = 0,
        constraints: ConstraintConfig | None = None,
        *,
        grid: Grid | None = None,
    ) -> None:
        limit = timeline.num_frames
        if limit is not None and num_frames > limit:
            raise InvalidRequest(f"{num_frames} frames asked for, the timeline has {limit}", field="num_frames")
        self._grid: Grid = grid or GridPredictor(models, style, constraints)
        self._timeline = timeline
        self._num_frames = num_frames
        self._next = 0
        self._frames: list[_GridFrame] = []
        self._base = 0

    def push(self, first_frame: int, features: SpeechFeatures) -> Motion:
        """Output frames that become ready with these features.

        Raises:
            InvalidRequest: `first_frame` does not follow the features before.
        """
        if first_frame != self._grid.num_features:
            raise InvalidRequest(
                f"features of frame {first_frame} came where frame {self._grid.num_features} was due",
                field="features.first_frame",
            )
        self._keep(self._grid.push(features))
        return self.ready()

    def ready(self) -> Motion:
        """Further output frames that the features so far make ready, at most 250 at once; none when all are answered."""
        return self._emit(self._num_frames or self._timeline.num_frames, None)

    def drain(self) -> Motion | None:
        """After the last features: the next piece of the output frames that remain; None when all are answered.

        Features behind the end are silence.

        Raises:
            Cancelled: the call that this is done for is over; looked at once a second of motion.
        """
        covered = Fraction(self._grid.num_features) / MOTION_RATE
        target, until = (self._num_frames, None) if self._num_frames else (self._timeline.num_frames, covered)
        while not self._complete(target, until):
            piece = self._emit(target, until)
            if len(piece.mouth_landmarks):
                return piece
            check_still_wanted()
            self._keep(self._grid.push_silence(MOTION_RATE.numerator))
        return None

    def _complete(self, target: int | None, until: Fraction | None) -> bool:
        if target is not None and self._next >= target:
            return True
        return until is not None and self._timeline.seconds(self._next) >= until

    def _keep(self, motion: Motion) -> None:
        for index, mouth in enumerate(motion.mouth_landmarks):
            pose = None if motion.poses is None else motion.poses[index]
            blink = 0.0 if motion.blink is None else float(motion.blink[index])
            self._frames.append(_GridFrame(mouth, float(motion.speech_probability[index]), pose, blink))

    def _emit(self, target: int | None, until: Fraction | None) -> Motion:
        first = self._next
        found: list[_GridFrame] = []
        while len(found) < MAX_FRAMES_AT_ONCE and not self._complete(target, until):
            at = grid_position(self._timeline.seconds(self._next))
            if at.last_needed >= self._base + len(self._frames):
                # Behind a gap in the times nothing of the gap is kept.
                self._forget(at.index - 1)
                break
            found.append(self._frame_at(at.index, float(at.fraction)))
            self._next += 1
            self._forget(at.index - 1)
        mouths = np.stack([frame.mouth for frame in found]) if found else np.zeros((0, NUM_POINTS, 3), np.float32)
        poses = [frame.pose for frame in found if frame.pose is not None]
        return Motion(
            first,
            mouths,
            np.array([frame.speaking for frame in found], np.float32),
            self._grid.expression(mouths),
            np.stack(poses) if poses else None,
            np.array([frame.blink for frame in found], np.float32) if poses else None,
        )

    def _frame_at(self, index: int, fraction: float) -> _GridFrame:
        # Times before the first frame hold it.
        here = self._frames[max(index, 0) - self._base]
        if fraction == 0.0:
            return here
        before, left, right, after = (self._frames[max(index + step, 0) - self._base] for step in (-1, 0, 1, 2))
        pose = None
        if before.pose is not None and left.pose is not None and right.pose is not None and after.pose is not None:
            pose = cubic(before.pose, left.pose, right.pose, after.pose, fraction)
        return _GridFrame(
            catmull_rom(before.mouth, left.mouth, right.mouth, after.mouth, fraction),
            left.speaking + fraction * (right.speaking - left.speaking),
            pose,
            left.blink + fraction * (right.blink - left.blink),
        )

    def _forget(self, before: int) -> None:
        drop = min(max(before, 0) - self._base, len(self._frames))
        if drop > 0:
            del self._frames[:drop]
            self._base += drop
