"""Decision whether a mouth can be replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.face.crops import HeadPose
from services.common.face.landmarks import (
    LEFT_EYE_CORNERS,
    LEFT_EYE_LIDS,
    MOUTH_AREA,
    RIGHT_EYE_CORNERS,
    RIGHT_EYE_LIDS,
)
from services.face.types import Reason

MIN_SCALE: Final = 0.24
"""Smallest scale, frame pixels per crop pixel: a face 44 pixels wide, a mouth 17 pixels wide."""
MIN_CONFIDENCE: Final = 0.99
MAX_YAW_DEGREES: Final = 30.0
"""Largest turn of the fitted pose, degrees. The mesh underrates depth: a turn of about 40 degrees measures 30, a full profile
58."""
MAX_PITCH_DEGREES: Final = 40.0
MIN_SEEN: Final = 0.91
"""Smallest share of the mouth area in the picture. Close-ups may cut the tip of the chin. With less of the jaw the mesh guesses."""
COVER_BEGINS: Final = 0.13
"""Share of the lower face that must look foreign for a cover. Talking faces stayed under 0.1."""
COVER_ENDS: Final = 0.055
"""Share below which a cover ends. In hindsight, a cover begins where the share passed this value."""
_BRIDGE_FRAMES: Final = 2
"""Longest gap, in frames, between frames that cannot be dubbed, that is left undubbed too, so that the mouth does not flicker."""
_OPEN_EYE: Final = 0.26
_SHUT_EYE: Final = 0.10
"""Lid distance over eye width of open and shut eyes."""
_FRONTAL_DEGREES: Final = 10.0
_PROFILE_DEGREES: Final = 50.0


@dataclass(frozen=True, slots=True)
class MouthView:
    """Measurements of one face in one frame.

    Attributes:
        confidence: confidence of the mesh network, 0 to 1.
        pose: head pose.
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


def judge(view: MouthView, covered: bool) -> Reason:
    """Return DUBBED, or the first reason that applies in the order: profile, out of frame, too small, low confidence, covered."""
    if abs(view.pose.yaw_degrees) > MAX_YAW_DEGREES or abs(view.pose.pitch_degrees) > MAX_PITCH_DEGREES:
        return Reason.PROFILE_VIEW
    if not view.lips_seen or view.seen < MIN_SEEN:
        return Reason.OUT_OF_FRAME
    if view.pose.scale < MIN_SCALE:
        return Reason.FACE_TOO_SMALL
    if view.confidence < MIN_CONFIDENCE:
        return Reason.LOW_CONFIDENCE
    return Reason.OCCLUDED_MOUTH if covered else Reason.DUBBED


@dataclass(frozen=True, slots=True)
class Verdict:
    """Reason of a frame, and whether the lower face is covered in the frame."""

    reason: Reason
    covered: bool


def decide(before: Verdict | None, views: Sequence[MouthView]) -> Verdict:
    """Return the verdict on one frame, with hysteresis.

    Args:
        before: verdict on the frame before, if the face was there.
        views: this frame and the known next frames of the same face.
    """
    covered = _is_covered(before is not None and before.covered, [view.foreign for view in views])
    reason = judge(views[0], covered)
    if reason is Reason.DUBBED and before is not None and before.reason is not Reason.DUBBED:
        for view in views[1 : _BRIDGE_FRAMES + 1]:
            if judge(view, covered=view.foreign >= COVER_BEGINS) is not Reason.DUBBED:
                return Verdict(before.reason, covered)
    return Verdict(reason, covered)


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
