"""Motion on an output timeline: the frames of a predictor's grid, interpolated in time.

The interpolation is Catmull-Rom, from the fixed 25 frames/s grid to any output timeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, NamedTuple

import numpy as np

from services.common.array_types import Array, Float32, Float64
from services.common.errors import InvalidRequestError
from services.common.face.crops import POSE_SIZE, check_pose_vectors
from services.common.server.call_context import check_not_cancelled
from services.common.wire.timeline import MOTION_RATE, Timeline, catmull_rom
from services.motion.person_predictor import PersonPredictor, resume_from
from services.motion.types import NUM_POINTS, Motion, SpeechFeatures

MAX_FRAMES_AT_ONCE: Final = 250
"""Most frames of one answer: 10 s of motion at 25 frames per second."""
STATE_EVERY: Final = 100
"""Grid frames from one state to the next: 4 s."""


@dataclass(frozen=True, slots=True)
class GridPosition:
    """A time on the motion grid: at `fraction` in [0, 1) of the way from frame `index` to the next frame."""

    index: int
    fraction: Fraction

    @property
    def last_needed(self) -> int:
        """Last grid frame that the interpolation reads: the frame itself on the grid, otherwise two frames ahead."""
        return self.index if self.fraction == 0 else self.index + 2


def grid_position(seconds: Fraction) -> GridPosition:
    """Return the exact position of a time on the motion grid."""
    at = seconds * MOTION_RATE
    index = at.numerator // at.denominator
    return GridPosition(index, at - index)


class StreamPoint(NamedTuple):
    """A state of a stream, and the frame of features with which a stream that goes on from the state begins."""

    arrays: dict[str, Array]
    resume_from: int


class _GridFrame(NamedTuple):
    """Parts of a grid frame that the stream keeps: mouth [59, 3], speech probability, head-pose vector [6] or None, eye closure."""

    mouth: Float32
    speaking: float
    pose: Float64 | None
    blink: float


class MotionStream:
    """Stream of motion on an output timeline."""

    def __init__(self, predictor: PersonPredictor, timeline: Timeline, num_frames: int = 0) -> None:
        """Start a stream.

        Args:
            predictor: the predictor of one person on the 25 frames/s grid.
            timeline: times of the target motion frames.
            num_frames: number of motion frames to answer. 0: as many as the features cover.

        Raises:
            InvalidRequestError: the timeline has fewer frames than `num_frames`.
        """
        limit = timeline.num_frames
        if limit is not None and num_frames > limit:
            raise InvalidRequestError(f"{num_frames} frames asked for, the timeline has {limit}", field="num_frames")
        self._predictor = predictor
        self._timeline = timeline
        self._num_frames = num_frames
        self._next = 0
        self._frames: list[_GridFrame] = []
        self._base = 0
        self._state_at = 0

    def arrays(self) -> dict[str, Array]:
        """Return the state of the stream after the frames that are answered.

        `stream`: next output frame, next grid frame. `kept.*`: the last grid frames before the latter, which are still needed; the
        numbers are speech probability and eye closure. The other numbers are as the predictor answers them.
        """
        kept = self._frames
        return {
            "stream": np.array([self._next, self._predictor.next_frame], np.int64),
            "kept.mouth": np.array([frame.mouth for frame in kept], np.float32).reshape(-1, NUM_POINTS, 3),
            "kept.numbers": np.array([(frame.speaking, frame.blink) for frame in kept], np.float64).reshape(-1, 2),
            "kept.pose": np.array([frame.pose for frame in kept if frame.pose is not None], np.float64).reshape(-1, POSE_SIZE),
            **self._predictor.arrays(),
        }

    def new_state(self) -> StreamPoint | None:
        """Return the state after the answered frames; None: less than STATE_EVERY after the last state, or at the end."""
        at = self._predictor.next_frame
        if at < self._state_at + STATE_EVERY or self._complete(self._num_frames or self._timeline.num_frames, None):
            return None
        self._state_at = at
        return StreamPoint(self.arrays(), resume_from(at))

    def resume(self, arrays: Mapping[str, Array]) -> None:
        """Go on from the state of a stream with the same arguments. The features begin with frame `StreamPoint.resume_from`.

        Raises:
            InvalidRequestError: the state is not of such a stream.
        """
        following, at = (int(number) for number in arrays["stream"])
        mouths, numbers, poses = (arrays[f"kept.{name}"] for name in ("mouth", "numbers", "pose"))
        check_pose_vectors(poses, "config.resume.kept.pose")
        base, limit = at - len(mouths), self._num_frames or self._timeline.num_frames
        if (
            not at
            or base < 0
            or (limit is not None and following >= limit)
            or max(grid_position(self._timeline.seconds(following)).index - 1, 0) < base
        ):
            raise InvalidRequestError(
                f"config.resume.stream: frames {following} and {at} are not those of a stream with this config",
                field="config.resume.stream",
            )
        self._next, self._base, self._state_at = following, base, at
        self._frames = [
            _GridFrame(mouth, speaking, poses[index] if len(poses) else None, blink)
            for index, (mouth, (speaking, blink)) in enumerate(zip(mouths, numbers.tolist(), strict=True))
        ]
        self._predictor.resume(at, arrays)

    def push(self, first_frame: int, features: SpeechFeatures) -> Motion:
        """Return the output frames that become ready with these features.

        Raises:
            InvalidRequestError: `first_frame` does not follow the features before.
        """
        if first_frame != self._predictor.num_features:
            raise InvalidRequestError(
                f"features of frame {first_frame} came where frame {self._predictor.num_features} was due",
                field="features.first_frame",
            )
        self._keep(self._predictor.push(features))
        return self.ready()

    def ready(self) -> Motion:
        """Return further output frames that the features so far make ready, at most 250; no frames if all are answered."""
        return self._emit(self._num_frames or self._timeline.num_frames, None)

    def drain(self) -> Motion | None:
        """Return the next output frames that remain after the last features, or None if all are answered.

        Features after the last ones are silence.

        Raises:
            WorkCancelledError: the call that the motion is for is over. The stream checks this once per second of motion.
        """
        covered = Fraction(self._predictor.num_features) / MOTION_RATE
        target, until = (self._num_frames, None) if self._num_frames else (self._timeline.num_frames, covered)
        while not self._complete(target, until):
            piece = self._emit(target, until)
            if len(piece.mouth_landmarks):
                return piece
            check_not_cancelled()
            self._keep(self._predictor.push_silence(MOTION_RATE.numerator))
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
        frames: list[_GridFrame] = []
        while len(frames) < MAX_FRAMES_AT_ONCE and not self._complete(target, until):
            at = grid_position(self._timeline.seconds(self._next))
            if max(at.last_needed, 0) >= self._base + len(self._frames):
                # After a gap in the times, no frame of the gap is kept.
                self._forget(at.index - 1)
                break
            frames.append(self._frame_at(at.index, float(at.fraction)))
            self._next += 1
            self._forget(at.index - 1)
        mouths = np.stack([frame.mouth for frame in frames]) if frames else np.zeros((0, NUM_POINTS, 3), np.float32)
        poses = [frame.pose for frame in frames if frame.pose is not None]
        return Motion(
            first,
            mouths,
            np.array([frame.speaking for frame in frames], np.float32),
            self._predictor.expression(mouths),
            np.stack(poses) if poses else None,
            np.array([frame.blink for frame in frames], np.float32) if poses else None,
        )

    def _frame_at(self, index: int, fraction: float) -> _GridFrame:
        # Times before the first frame get the first frame.
        here = self._frames[max(index, 0) - self._base]
        if fraction == 0.0:
            return here
        before, left, right, after = (self._frames[max(index + step, 0) - self._base] for step in (-1, 0, 1, 2))
        pose = None
        if before.pose is not None and left.pose is not None and right.pose is not None and after.pose is not None:
            pose = catmull_rom(before.pose, left.pose, right.pose, after.pose, fraction)
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
