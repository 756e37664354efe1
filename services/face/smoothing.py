"""Smoothing without lag: a two-sided window that averages still faces and leaves moving faces alone.

In a window of 2 * half_width + 1 frames a weighted straight line is fitted to each point. The energy of the deviations over a
whole group of points (lips, jaw, eyes, ...) tells noise from motion: the frame's own deviation from the line is multiplied by the
Wiener gain max(0, 1 - noise / energy). For a still face the result is the average of the window. During a closure of the lips the
result is the raw measurement. Pose and shape are smoothed separately, because the crop follows the pose.

`window_weights` smooths points that hardly move (Everybody's Talkin', Appendix G, Algorithm 2).

The paper's filter looks back. If the mouth moved by d since the previous frame, and d is below a threshold, the frame is mixed
with the previous smoothed frame,

    l'_t = a l'_(t-1) + (1 - a) l_t,    a = exp(-s d)

so the result lags behind slow movements. The function uses the same weights in both directions: the weight of a frame k steps
away from frame t is the product of the a's between the frames, and a step above the threshold ends the window. The weights are
symmetric, so the result has no delay. The paper takes d from the mouth's centre, which would smooth away lips that open around a
resting centre. Here d is the root mean square movement of all given points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Float64
from services.common.face.crops import HeadPose, fit_head_pose, to_frame, to_head_space
from services.common.face.landmarks import JAW, LIPS_INNER, LIPS_OUTER, NUM_LANDMARKS

THRESHOLD_PX: Final = 1.2
"""Threshold d_th, crop pixels. A larger movement from frame to frame is never smoothed."""
STRENGTH: Final = 1.5
"""Strength s of the smoothing, 1 / crop pixel."""
SHAPE_NOISE: Final = 0.13
"""Standard deviation of a lip or jaw point's noise in head space, crop pixels; measured on people who hold still."""
ROTATION_NOISE: Final = 0.002
"""Standard deviation of the noise of the rotation matrix' entries."""
SCALE_NOISE: Final = 0.001
"""Standard deviation of the noise of the logarithm of the scale."""
POSITION_NOISE: Final = 0.15
"""Standard deviation of the noise of the translation, crop pixels."""
_CAUTION: Final = 2.0
"""Largest energy that counts as noise, as a multiple of the noise's energy."""


def movement(points: npt.NDArray[np.floating]) -> Float64:
    """Return the root mean square movement of points [T, N, D] since the previous frame, float64 [T - 1]."""
    steps = np.diff(np.asarray(points, np.float64), axis=0)
    return np.asarray(np.sqrt((steps**2).sum(-1).mean(-1)))


def window_weights(moved: npt.NDArray[np.floating], centre: int, half_width: int) -> Float64:
    """Return the weights of a window's frames for the smoothed frame `centre`, float64 [T] with sum 1.

    Args:
        moved: [T - 1], movement from each frame to the next, crop pixels.
        centre: row of the frame that is smoothed.
        half_width: frames on either side that count.
    """
    count = len(moved) + 1
    link = np.where(np.asarray(moved) > THRESHOLD_PX, 0.0, np.exp(-STRENGTH * np.asarray(moved, np.float64)))
    weights = np.zeros(count)
    weights[centre] = 1.0
    for step in range(1, half_width + 1):
        # Frames count only in pairs: a window with one side would pull towards that side.
        if centre - step < 0 or centre + step >= count:
            break
        both = min(weights[centre - step + 1] * link[centre - step], weights[centre + step - 1] * link[centre + step - 1])
        weights[centre - step] = weights[centre + step] = both
    return np.asarray(weights / weights.sum())


def _groups() -> tuple[npt.NDArray[np.intp], ...]:
    """Return groups of points that move together: lips, jaw with cheeks and chin, right eye, left eye, the rest."""
    lips = set(LIPS_OUTER + LIPS_INNER)
    eyes_right = {33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173, *range(468, 473)}
    eyes_left = {263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398, *range(473, 478)}
    jaw = set(JAW)
    rest = set(range(NUM_LANDMARKS)) - lips - jaw - eyes_right - eyes_left
    return tuple(np.array(sorted(group), dtype=np.intp) for group in (lips, jaw, eyes_right, eyes_left, rest))


_GROUPS: Final = _groups()


@dataclass(frozen=True, slots=True)
class SmoothFace:
    """Smoothed face.

    Attributes:
        landmarks: float32 [478, 3], frame pixels.
        head_landmarks: float32 [478, 3], head space.
        pose: smoothed head pose; landmarks = pose(head_landmarks).
    """

    landmarks: Float32
    head_landmarks: Float32
    pose: HeadPose


@dataclass(frozen=True, slots=True)
class RawFace:
    """Measured face: head pose, and landmarks float32 [478, 3] in head space."""

    pose: HeadPose
    head_landmarks: Float32


def raw_face(landmarks: Float32) -> RawFace:
    """Return the measured face split into pose and shape; landmarks float32 [478, 3], frame pixels."""
    pose = fit_head_pose(landmarks)
    return RawFace(pose, to_head_space(landmarks, pose))


@dataclass(frozen=True, slots=True)
class _Line:
    """Weights of the straight-line fit in one window of values [N, K]. Row `centre` is the answered frame."""

    at_centre: Float64  # [N]: value of the line at the centre
    residual: Float64  # [N, N]: values -> deviations from the line
    weights: Float64  # [N], sum 1: how much each deviation counts in the energy
    noise_share: float  # expected energy of white noise of variance 1


def _fit_line(offsets: Sequence[int], half_width: int) -> _Line:
    x = np.array(offsets, dtype=np.float64)
    weights = np.cos(np.pi * x / (2 * half_width + 2)) ** 2
    basis = np.stack([np.ones_like(x), x], axis=1) if len(x) > 2 else np.ones((len(x), 1))
    solve = np.linalg.solve(basis.T @ (weights[:, None] * basis), basis.T * weights)
    residual = np.eye(len(x)) - basis @ solve
    share = weights / weights.sum()
    return _Line(solve[0], residual, share, float((share[:, None] * residual**2).sum()))


def _wiener(values: Float64, centre: int, line: _Line, noise: float) -> Float64:
    """Return the smoothed row `centre` of values [N, K]. The K channels share one gain."""
    mean = line.at_centre @ values
    energy = float(line.weights @ ((line.residual @ values) ** 2).mean(axis=1))
    floor = _CAUTION * noise * noise * line.noise_share
    gain = max(0.0, 1.0 - floor / energy) if energy > 0.0 else 0.0
    return np.asarray(mean + gain * (values[centre] - mean))


def smooth(window: Sequence[RawFace], centre: int, half_width: int) -> SmoothFace:
    """Return the smoothed face of one frame.

    Args:
        window: consecutive frames of one track within one shot, at most `half_width` on either side of the answered
            frame. At the ends of a track there are fewer frames, and the line is fitted one-sidedly, without lag.
        centre: position of the answered frame.
        half_width: frames on either side; 0 leaves the measurement unchanged.
    """
    face = window[centre]
    if half_width == 0 or len(window) == 1:
        return SmoothFace(to_frame(face.head_landmarks, face.pose), face.head_landmarks, face.pose)
    line = _fit_line(range(-centre, len(window) - centre), half_width)
    pose = _smooth_pose([raw.pose for raw in window], centre, line)
    shapes = np.stack([raw.head_landmarks for raw in window]).astype(np.float64)
    result = np.empty((NUM_LANDMARKS, 3))
    for group in _GROUPS:
        values = shapes[:, group]
        plane = _wiener(values[:, :, :2].reshape(len(window), -1), centre, line, SHAPE_NOISE)
        depth = _wiener(values[:, :, 2], centre, line, 2 * SHAPE_NOISE)
        result[group] = np.concatenate([plane.reshape(-1, 2), depth[:, None]], axis=1)
    head = result.astype(np.float32)
    return SmoothFace(to_frame(head, pose), head, pose)


def _smooth_pose(poses: Sequence[HeadPose], centre: int, line: _Line) -> HeadPose:
    scale = poses[centre].scale
    scales = np.log([[pose.scale] for pose in poses])
    rotations = np.stack([pose.rotation.reshape(9) for pose in poses])
    translations = np.stack([pose.translation for pose in poses]) / scale
    u, _, vt = np.linalg.svd(_wiener(rotations, centre, line, ROTATION_NOISE).reshape(3, 3))
    rotation = (u * np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])) @ vt
    position = _wiener(translations[:, :2], centre, line, POSITION_NOISE)
    depth = _wiener(translations[:, 2:], centre, line, POSITION_NOISE)
    return HeadPose(
        scale=float(np.exp(_wiener(scales, centre, line, SCALE_NOISE)[0])),
        rotation=rotation,
        translation=np.concatenate([position, depth]) * scale,
    )
