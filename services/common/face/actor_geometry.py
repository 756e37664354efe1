"""The shape of one person's lower face in head space, and the lower-face mask that follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32
from services.common.face.crops import BOX_SIZE, HeadPose, head_to_box
from services.common.face.landmarks import (
    CHEEKS,
    JAW,
    NOSE_BASE,
    NUM_LIPS,
    mouth_opening,
)

ANCHORS: Final[tuple[int, ...]] = NOSE_BASE + CHEEKS
"""Mesh points around the mouth area that speech moves little. They pin the warp and close the mask at the top."""
_MASK_ANCHORS: Final = (98, 2, 327, 205, 425, 187, 411)
_FEATHER_PX: Final = 7.0


@dataclass(frozen=True, slots=True)
class ActorGeometry:
    """Lower face of one person in head space (crop pixels).

    Attributes:
        mean_mouth: float32 [59, 3].
        closed_mouth: float32 [59, 3], the shut mouth.
        jaw_envelope: float32 [19, 3], each jaw point at its lowest.
        anchors: float32 [15, 3], mean ANCHORS.
    """

    mean_mouth: Float32
    closed_mouth: Float32
    jaw_envelope: Float32
    anchors: Float32


def measure_geometry(mouth_landmarks: Float32, anchors: Float32) -> ActorGeometry:
    """Return the geometry of a person from the usable frames of the person's footage.

    Args:
        mouth_landmarks: float32 [T, 59, 3], head space, T >= 1.
        anchors: float32 [T, 15, 3], ANCHORS in head space.
    """
    opening = mouth_opening(mouth_landmarks)
    shut = np.argsort(opening, kind="stable")[: max(1, len(opening) // 10)]
    jaw = mouth_landmarks[:, NUM_LIPS:]
    envelope = jaw.mean(axis=0)
    envelope[:, 1] = np.percentile(jaw[:, :, 1], 98, axis=0)
    return ActorGeometry(
        mean_mouth=mouth_landmarks.mean(axis=0),
        closed_mouth=mouth_landmarks[shut].mean(axis=0),
        jaw_envelope=envelope.astype(np.float32),
        anchors=anchors.mean(axis=0),
    )


def lower_face_polygon(geometry: ActorGeometry, pose: HeadPose) -> Float32:
    """Return the convex hull of jaw envelope, nose base and cheeks under a head pose, float32 [P, 2], box pixels.

    The hull depends on the person and the head pose alone, not on how far the mouth is open in the frame: a mask that followed the
    true jaw would tell the renderer the answer.
    """
    top = geometry.anchors[[ANCHORS.index(index) for index in _MASK_ANCHORS]]
    points = head_to_box(np.concatenate([top, geometry.jaw_envelope[: len(JAW) - 2]]), pose)
    return np.asarray(cv2.convexHull(points)[:, 0], dtype=np.float32)


def lower_face_mask(geometry: ActorGeometry, pose: HeadPose) -> npt.NDArray[np.uint8]:
    """Return the soft mask of the render box, uint8 [160, 160]: 255 well inside the lower face, 0 outside its hull.

    The mask falls from 255 to 0 over 7 px inside the hull, and over 7 px at the border of the box.
    """
    shift = 4
    hard = np.zeros((BOX_SIZE, BOX_SIZE), np.uint8)
    polygon = np.round(lower_face_polygon(geometry, pose) * (1 << shift)).astype(np.int32)
    cv2.fillConvexPoly(hard, polygon, 255, shift=shift)
    hard[[0, -1], :] = 0
    hard[:, [0, -1]] = 0
    depth = cv2.distanceTransform(hard, cv2.DIST_L2, 5)
    return np.asarray(np.round(np.clip(depth / _FEATHER_PX, 0.0, 1.0) * 255.0), dtype=np.uint8)
