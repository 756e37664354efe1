"""Decision whether a mouth can be replaced, and detection of covered lower faces by sudden changes of the skin's colours.

The mesh network draws lips on a hand too, so the points do not show a cover. Colours show a cover: a vertex lies on the same spot
of skin in every frame, so the colour hardly changes when the mouth opens. The colours of a frame are compared with the running
mean of the same person, under the light of the frame, which nose, cheeks and forehead show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import cv2
import numpy as np
import numpy.typing as npt

from services.common.array_types import Bool, Float32, Float64, Floating, UInt8
from services.common.face.crops import CROP_SIZE, HeadPose, apply_affine, crop_from_frame, head_template
from services.common.face.landmarks import (
    CHEEKS,
    JAW,
    LEFT_EYE_CORNERS,
    LEFT_EYE_LIDS,
    LIPS_INNER,
    MOUTH_AREA,
    NOSE_BASE,
    RIGHT_EYE_CORNERS,
    RIGHT_EYE_LIDS,
)
from services.common.face.sampling import sample_patch
from services.face.types import Reason

_PATCH: Final = 64
"""Side of the small face crop, pixels. Colours are means over about 4 x 4 crop pixels."""
_HEAD: Final = head_template().astype(np.float64)
_TOLERANCE: Final = np.array([25.0, 2.5, 2.5])
"""Tolerated differences of L, a and b, 8-bit units. Shadows change the lightness, and hardly the hue."""
_SPREAD: Final = 3.0
_FREE_TURN_DEGREES: Final = 4.0
_TURN_DEGREES: Final = 40.0
_RATE: Final = 0.02
_RATE_COVERED: Final = 0.004
_LEARN_BELOW: Final = 0.08
_LIGHT_OUTLIER: Final = 0.12
"""Difference of a vertex's logarithmic gain from that of the face at which the vertex counts half."""
_SLOPE_PRIOR: Final = 2.0
_DARK: Final = 0.001
"""Linear light that is added before a gain is taken: dark pixels are noise."""
_LAB_UNITS: Final = np.array([2.55, 1.0, 1.0])
_LAB_ZERO: Final = np.array([0.0, 128.0, 128.0])
"""8-bit Lab = _LAB_UNITS * Lab + _LAB_ZERO."""
MIN_SCALE: Final = 0.24
"""Smallest scale, frame pixels per crop pixel: a face 44 pixels wide, a mouth 17 pixels wide."""
MIN_CONFIDENCE: Final = 0.99
"""Least confidence of the mesh in a face that is turned by at most _SURE_DEGREES."""
_MIN_CONFIDENCE_TURNED: Final = 0.9
"""Least confidence in a face that is turned by MAX_YAW_DEGREES: half a face makes the mesh less sure, though its points fit."""
_SURE_DEGREES: Final = 30.0
"""Yaw up to which MIN_CONFIDENCE holds, degrees. From there to MAX_YAW_DEGREES the limit falls linearly."""
MAX_YAW_DEGREES: Final = 50.0
"""Largest turn of the fitted pose, degrees. The mesh underrates depth: a turn of about 40 degrees measures 30, about
65 measures 50, a full profile 58."""
MAX_PITCH_DEGREES: Final = 40.0
MIN_SEEN: Final = 0.91
"""Smallest share of the mouth area in the picture. Close-ups may cut the tip of the chin. With less of the jaw the mesh guesses."""
COVER_BEGINS: Final = 0.13
"""Share of the lower face that must look foreign for a cover. Talking faces stayed under 0.1."""
COVER_ENDS: Final = 0.055
"""Share below which a cover ends. In hindsight, a cover begins where the share passed this value."""
_BRIDGE_FRAMES: Final = 2
"""Longest gap, in frames, between frames that cannot be dubbed, that is left undubbed too, so that the mouth does not flicker."""
_LEAST_EYE_PX: Final = 1e-3
_OPEN_EYE: Final = 0.26
_SHUT_EYE: Final = 0.10
"""Lid distance over eye width of open and shut eyes."""
_FRONTAL_DEGREES: Final = 10.0
_PROFILE_DEGREES: Final = 58.0


def _vertices() -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return two groups of vertices: the lower face and the upper face.

    The lower face lies inside the mean head's lower-face mask, without the inner lips. The upper face is nose, upper cheeks and
    forehead.
    """
    head = head_template()
    x, y, _ = head.T
    hull = cv2.convexHull(head[[*NOSE_BASE, *CHEEKS, *JAW[:17]], :2])
    inside = np.array([cv2.pointPolygonTest(hull, (float(px), float(py)), False) >= 0 for px, py, _ in head])
    inner = np.isin(np.arange(len(head)), LIPS_INNER)
    eyes = (np.abs(np.abs(x) - 38.0) < 24.0) & (np.abs(y - head[33, 1]) < 14.0)
    upper = ~inside & (y < head[2, 1]) & (np.abs(x) < 60.0) & (y > head[151, 1]) & ~eyes
    return np.flatnonzero(inside & ~inner), np.flatnonzero(upper)


LOWER, UPPER = _vertices()
_DISTANCES: Final = np.linalg.norm(_HEAD[LOWER, None, :2] - _HEAD[None, LOWER, :2], axis=-1)
_NEIGHBOURS: Final = np.argsort(_DISTANCES, axis=1, kind="stable")[:, :7]
_SPACING: Final = np.sort(_DISTANCES, axis=1)[:, 1:5].mean(axis=1)
_AREAS: Final = _SPACING**2 / (_SPACING**2).sum()
"""Share of the lower face per vertex: vertices lie dense on the lips and far apart on the cheeks."""
_FACING: Final = 0.3
"""Cosine of the angle between a vertex's normal and the view, at or below which the vertex counts as hidden: its colours are those
of another spot of the face, or of what lies behind the face."""
_LEAST_JUDGED: Final = 0.3
"""Least area that the covered area is divided by, share of the lower face."""
_ACROSS_LOWER: Final = _HEAD[LOWER, 0] / _HEAD[454, 0]
_ACROSS_UPPER: Final = _HEAD[UPPER, 0] / _HEAD[454, 0]


def _normals() -> Float64:
    """Return the unit normals of planes through neighbours on the mean head, out of the face, float64 [LOWER, 3]."""
    patches = _HEAD[LOWER][_NEIGHBOURS]
    normals = np.linalg.svd(patches - patches.mean(axis=1, keepdims=True))[2][:, 2]
    return np.asarray(np.where(normals[:, 2:] > 0.0, -normals, normals))


_NORMALS: Final = _normals()
_TURNED_AWAY: Final = np.minimum(_FACING, 0.5 * -_NORMALS[:, 2])
"""Least cosine of each vertex. The underside of the chin is slanted in a frontal view too."""
_TRUE_TURN: Final = 4 / 3
"""True turn of the head to the side over the turn of the fitted pose (MAX_YAW_DEGREES; planted turns of 15 to 65 degrees: 1.2 to
1.5, `python -m research.bench.rotations`). With the fitted turn, the background beside the far cheek would count as skin."""


@dataclass(frozen=True, slots=True)
class SkinColours:
    """Colours (CIE Lab, 8-bit units) of one reading: float32 [LOWER, 3] and [UPPER, 3]."""

    lower: Float32
    upper: Float32


def sample_appearance(picture: npt.NDArray[np.uint8], landmarks: Float32, pose: HeadPose) -> SkinColours:
    """Return the colours at the vertices of a face in uint8 RGB [H, W, 3]; landmarks float32 [478, 3], frame pixels."""
    shrink = _PATCH / CROP_SIZE
    affine = crop_from_frame(pose)
    affine[:, 2] += 0.5
    affine *= shrink
    affine[:, 2] -= 0.5
    patch = cv2.cvtColor(sample_patch(picture, affine, (_PATCH, _PATCH), interpolation=cv2.INTER_LINEAR), cv2.COLOR_RGB2Lab)
    points = apply_affine(affine, landmarks[:468])
    colours = cv2.remap(
        patch.astype(np.float32), points[None, :, 0], points[None, :, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )[0]
    return SkinColours(colours[LOWER], colours[UPPER])


class AppearanceMemory:
    """Running mean of the colours of one person in one shot. The caller gives every frame, in order."""

    def __init__(self) -> None:
        self._lower: Float64 | None = None
        self._seen = np.zeros(len(LOWER), np.bool_)
        self._upper = np.zeros((len(UPPER), 3))
        self._variance = np.zeros((len(LOWER), 3))
        self._yaw = 0.0
        self._readings = 0

    def arrays(self) -> tuple[Float64, Bool, Float64, Float64, float, int]:
        """Return what `of_arrays` takes, after the first `measure`."""
        assert self._lower is not None, "nothing was measured yet"
        return self._lower, self._seen, self._upper, self._variance, self._yaw, self._readings

    @classmethod
    def of_arrays(cls, lower: Float64, seen: Bool, upper: Float64, variance: Float64, yaw: float, readings: int) -> Self:
        """Return the memory of which `arrays` are.

        Args:
            lower, upper: float64 [LOWER, 3] and [UPPER, 3], mean colours.
            seen: bool [LOWER], whether a vertex was ever turned to the camera.
            variance: float64 [LOWER, 3], of the lower colours.
            yaw: mean turn of the head, degrees.
            readings: number of measured frames.
        """
        memory = cls()
        memory._lower, memory._upper, memory._variance = lower.copy(), upper.copy(), variance.copy()
        memory._seen, memory._yaw, memory._readings = seen.copy(), yaw, readings
        return memory

    def measure(self, colours: SkinColours, pose: HeadPose) -> float:
        """Return the share of the lower face, 0 to 1, that looks covered compared with earlier frames; 0 in the first frame.

        A colour is foreign if the difference from the mean exceeds the person's own variation and a tolerance. The tolerance grows
        as the head turns from the usual direction, because shading does not follow the mesh. Only patches of seven vertices count,
        and only colours of vertices that face the camera: the share is one of their area. The memory learns a vertex in the first
        frame in which the vertex faces the camera and the face looks free.
        """
        yaw = pose.yaw_degrees
        facing = -(_NORMALS @ _line_of_sight(pose)) > _TURNED_AWAY
        if self._lower is None:
            self._lower, self._upper = colours.lower.astype(np.float64), colours.upper.astype(np.float64)
            self._seen, self._yaw, self._readings = facing, yaw, 1
            return 0.0
        relit = _relit(self._lower, self._upper, colours.upper, _ACROSS_LOWER)
        visible = facing & self._seen
        difference = colours.lower - relit
        change = difference * visible[:, None]
        turned = max(0.0, abs(yaw - self._yaw) - _FREE_TURN_DEGREES) / _TURN_DEGREES
        tolerance = _TOLERANCE * (1.0 + turned)
        off = np.sqrt((change**2 / (_SPREAD * self._variance + tolerance**2)).mean(axis=1))
        foreign = np.median(off[_NEIGHBOURS], axis=1) > 1.0
        # Hidden vertices beside a cover have its patches too, which show a cover early, and may make the sum larger than the area.
        share = min(1.0, float(_AREAS[foreign].sum() / max(float(_AREAS[visible].sum()), _LEAST_JUDGED)))
        fresh = facing & ~self._seen
        # On a covered face, a cheek that turns into sight may show the cover.
        if share < _LEARN_BELOW and fresh.any():
            self._lower[fresh] = _relit(colours.lower[fresh], colours.upper, self._upper, _ACROSS_LOWER[fresh])
            relit[fresh] = colours.lower[fresh]
            self._seen = self._seen | fresh
        self._readings += 1
        # A covered face changes the mean only slowly. A lasting change of light is accepted after some seconds.
        rate = max(1.0 / self._readings, _RATE) if share < _LEARN_BELOW else _RATE_COVERED
        weights = np.where(visible, np.where(off < 1.0, rate, 0.2 * rate), 0.0)[:, None]
        # Both parts follow the light alike.
        self._lower += weights * change + rate * (relit - self._lower)
        self._variance += weights * (change**2 - self._variance)
        self._upper += rate * (colours.upper - self._upper)
        self._yaw += rate * (yaw - self._yaw)
        return share


def _line_of_sight(pose: HeadPose) -> Float64:
    """Return the direction in which the camera looks, in head space, with the true turn to the side, float64 [3], unit."""
    x, y, z = pose.rotation[2]
    turn, level = _TRUE_TURN * np.arctan2(x, z), np.hypot(x, z)
    return np.array([level * np.sin(turn), y, level * np.cos(turn)])


def covered_share(mask: UInt8, landmarks: Float32) -> float:
    """Return the share of the lower face, 0 to 1, that a mask covers.

    Args:
        mask: uint8 [S, S], 1 where something covers the picture.
        landmarks: float32 [>= 468, >= 2], of the face, pixels of the mask.
    """
    pixels = np.rint(landmarks[LOWER, :2]).astype(np.intp)
    inside = ((pixels >= 0) & (pixels < len(mask))).all(axis=1)
    x, y = pixels[inside].T
    return float(_AREAS[inside] @ mask[y, x])


def _relit(lower: Floating, before: Floating, after: Floating, across: Float64) -> Float64:
    """Return colours of the lower face, float64 [N, 3], under another light.

    Light multiplies the linear red, green and blue of skin (von Kries), with a gain that may rise or fall across the face. The gain
    is that of the upper face.

    Args:
        lower: colours of N vertices, [N, 3].
        before: colours of the upper face under the light of `lower`, [UPPER, 3].
        after: colours of the upper face under the other light, [UPPER, 3].
        across: positions of the N vertices across the face, [N].
    """
    gain = np.log((_linear(after) + _DARK) / (_linear(before) + _DARK))
    constant = np.median(gain, axis=0)
    rest = gain - constant
    weights = (1.0 / (1.0 + (rest / _LIGHT_OUTLIER) ** 2)).mean(axis=1)
    slope = (weights * _ACROSS_UPPER) @ rest / (weights @ _ACROSS_UPPER**2 + _SLOPE_PRIOR)
    lit = _linear(lower) * np.exp(constant + across[:, None] * slope)
    # A camera is saturated beyond white.
    lab = cv2.cvtColor(np.clip(lit, 0.0, 1.0).astype(np.float32)[None], cv2.COLOR_LRGB2Lab)[0]
    return np.asarray(lab.astype(np.float64) * _LAB_UNITS + _LAB_ZERO, np.float64)


def _linear(lab: Floating) -> Float64:
    """Return Lab colours [N, 3], 8-bit units, as linear RGB, 0 to 1."""
    values = ((np.asarray(lab, np.float64) - _LAB_ZERO) / _LAB_UNITS).astype(np.float32)
    return np.asarray(np.maximum(cv2.cvtColor(values[None], cv2.COLOR_Lab2LRGB)[0], 0.0), np.float64)


@dataclass(frozen=True, slots=True)
class MouthView:
    """Measurements of one face in one frame.

    Attributes:
        confidence: confidence of the mesh network, 0 to 1.
        seen: share of the mouth area inside the picture.
        lips_seen: all lip points are inside the picture.
        foreign: share of the lower face with foreign colours.
    """

    confidence: float
    pose: HeadPose
    seen: float
    lips_seen: bool
    foreign: float


def visibility(view: MouthView, covered: bool) -> float:
    """Return the visible share of the mouth area, 0 to 1: 0 in full profile, out of the picture, or wholly covered."""
    turned = (abs(view.pose.yaw_degrees) - _FRONTAL_DEGREES) / (_PROFILE_DEGREES - _FRONTAL_DEGREES)
    hidden = min(view.foreign, 1.0) if covered else 0.0
    return float(view.seen * (1.0 - min(max(turned, 0.0), 1.0)) * (1.0 - hidden))


def first_reason(view: MouthView, covered: bool) -> Reason:
    """Return DUBBED, or the first reason that applies in the order: profile, out of frame, too small, low confidence, covered."""
    if abs(view.pose.yaw_degrees) > MAX_YAW_DEGREES or abs(view.pose.pitch_degrees) > MAX_PITCH_DEGREES:
        return Reason.PROFILE_VIEW
    if not view.lips_seen or view.seen < MIN_SEEN:
        return Reason.OUT_OF_FRAME
    if view.pose.scale < MIN_SCALE:
        return Reason.FACE_TOO_SMALL
    if view.confidence < _least_confidence(view.pose.yaw_degrees):
        return Reason.LOW_CONFIDENCE
    return Reason.OCCLUDED_MOUTH if covered else Reason.DUBBED


def _least_confidence(yaw_degrees: float) -> float:
    return float(np.interp(abs(yaw_degrees), (_SURE_DEGREES, MAX_YAW_DEGREES), (MIN_CONFIDENCE, _MIN_CONFIDENCE_TURNED)))


@dataclass(frozen=True, slots=True)
class FrameVerdict:
    """Reason of a frame, and whether the lower face is covered in the frame."""

    reason: Reason
    covered: bool


def decide(before: FrameVerdict | None, views: Sequence[MouthView]) -> FrameVerdict:
    """Return the verdict on one frame, with hysteresis.

    Args:
        before: verdict on the frame before, if the face was there.
        views: this frame and the known next frames of the same face.
    """
    covered = _is_covered(before is not None and before.covered, [view.foreign for view in views])
    reason = first_reason(views[0], covered)
    if reason is Reason.DUBBED and before is not None and before.reason is not Reason.DUBBED:
        for view in views[1 : _BRIDGE_FRAMES + 1]:
            if first_reason(view, covered=view.foreign >= COVER_BEGINS) is not Reason.DUBBED:
                return FrameVerdict(before.reason, covered)
    return FrameVerdict(reason, covered)


def _is_covered(before: bool, foreign: Sequence[float]) -> bool:
    if before:
        return max(foreign[: _BRIDGE_FRAMES + 1]) >= COVER_ENDS
    for share in foreign:
        if share < COVER_ENDS:
            return False
        if share >= COVER_BEGINS:
            return True
    return False


def mouth_in_picture(landmarks: npt.NDArray[np.float32], width: int, height: int) -> npt.NDArray[np.bool_]:
    """Return bool [59]: whether each mouth-area point lies in a picture of the given size, pixels.

    Landmarks are float32 [478, 3], frame pixels.
    """
    x, y = landmarks[list(MOUTH_AREA), :2].T
    return np.asarray((x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5))


def eye_closure(head_landmarks: npt.NDArray[np.float32]) -> float:
    """Return mean closure of the two eyes, 0 open to 1 shut, from the eye aspect ratio (Soukupova and Cech 2016).

    Args:
        head_landmarks: float32 [478, 3], head space, so that a turned head does not narrow the eyes.
    """
    ratios = [
        np.mean([np.linalg.norm(head_landmarks[upper, :2] - head_landmarks[lower, :2]) for upper, lower in lids])
        / np.linalg.norm(head_landmarks[corners[0], :2] - head_landmarks[corners[1], :2])
        for lids, corners in ((RIGHT_EYE_LIDS, RIGHT_EYE_CORNERS), (LEFT_EYE_LIDS, LEFT_EYE_CORNERS))
    ]
    return float(np.clip((_OPEN_EYE - np.mean(ratios)) / (_OPEN_EYE - _SHUT_EYE), 0.0, 1.0))


def has_eyes(head_landmarks: Float32) -> bool:
    """Return whether both eyes of a face, float32 [478, 3], have a width, so that `eye_closure` has a value."""
    return all(
        float(np.linalg.norm(head_landmarks[first, :2] - head_landmarks[second, :2])) > _LEAST_EYE_PX
        for first, second in (RIGHT_EYE_CORNERS, LEFT_EYE_CORNERS)
    )
