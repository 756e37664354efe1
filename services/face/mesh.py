"""Mesh of one face: cut the patch out of the picture, run the mesh network, convert the points to frame pixels."""

from __future__ import annotations

from typing import Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from services.common.face.crops import HeadPose, fit_head_pose, head_template, invert
from services.common.face.sampling import sample_patch
from services.face.detect import Detection
from services.face.mediapipe_graphs import PATCH_SIZE, MeshNetwork

ROI_MARGIN: Final = 1.5
"""Side of the patch divided by the long side of the face's bounding box, as in the network's training."""
_SETTLED: Final = 0.08
"""Share of a region's side by which the region may move before the face is measured again."""

_HEAD = head_template().astype(np.float64)


class FaceRegion(NamedTuple):
    """A turned square of the picture: centre (pixels), side (pixels), angle (radians, clockwise on the screen)."""

    x: float
    y: float
    side: float
    angle: float

    def patch_from_frame(self) -> npt.NDArray[np.float64]:
        """Return the similarity frame pixels -> patch pixels, float64 [2, 3]."""
        scale = PATCH_SIZE / self.side
        cos, sin = scale * np.cos(self.angle), scale * np.sin(self.angle)
        linear = np.array([[cos, sin], [-sin, cos]])
        middle = (PATCH_SIZE - 1) / 2
        return np.column_stack([linear, middle - linear @ np.array([self.x, self.y])])


class MeshReading(NamedTuple):
    """Face that the mesh network measured.

    Attributes:
        landmarks: float32 [478, 3], frame pixels, not smoothed.
        pose: head pose of these landmarks.
        score: the network's confidence that there is a face, 0 to 1.
    """

    landmarks: npt.NDArray[np.float32]
    pose: HeadPose
    score: float


def region_of_detection(detection: Detection) -> FaceRegion:
    """Return the region in which to measure a detected face: the box, turned by the line of the eyes, 1.5 times as large."""
    left, top, width, height = detection.box
    right_eye, left_eye = detection.keypoints[0], detection.keypoints[1]
    angle = float(np.arctan2(left_eye[1] - right_eye[1], left_eye[0] - right_eye[0]))
    return FaceRegion(left + width / 2, top + height / 2, ROI_MARGIN * max(width, height), angle)


def region_of_pose(pose: HeadPose) -> FaceRegion:
    """Return the region in which to measure a face with the given pose.

    The region lies around the mean head, not around the face's own points, so that the mouth's opening does not move the patch.
    """
    angle = np.radians(pose.roll_degrees)
    posed = _HEAD @ pose.rotation.T * pose.scale + pose.translation
    cos, sin = np.cos(angle), np.sin(angle)
    upright = posed[:, :2] @ np.array([[cos, -sin], [sin, cos]])
    low, high = upright.min(0), upright.max(0)
    x, y = (low + high) / 2
    return FaceRegion(float(cos * x - sin * y), float(sin * x + cos * y), ROI_MARGIN * float((high - low).max()), float(angle))


def read_mesh(network: MeshNetwork, picture: npt.NDArray[np.uint8], region: FaceRegion) -> MeshReading:
    """Return the mesh of the face in `region`. If the mesh shows that the face lies elsewhere, the face is measured again there."""
    reading = _read_once(network, picture, region)
    better = region_of_pose(reading.pose)
    moved = max(abs(better.x - region.x), abs(better.y - region.y), abs(better.side - region.side))
    if reading.score > 0.1 and moved > _SETTLED * region.side:
        return _read_once(network, picture, better)
    return reading


def _read_once(network: MeshNetwork, picture: npt.NDArray[np.uint8], region: FaceRegion) -> MeshReading:
    affine = region.patch_from_frame()
    patch = sample_patch(picture, affine, (PATCH_SIZE, PATCH_SIZE), interpolation=cv2.INTER_LINEAR)
    points, score = network(patch)
    back = invert(affine)
    landmarks = np.empty_like(points)
    landmarks[:, :2] = points[:, :2].astype(np.float64) @ back[:, :2].T + back[:, 2]
    landmarks[:, 2] = points[:, 2] * (region.side / PATCH_SIZE)
    return MeshReading(landmarks, fit_head_pose(landmarks), score)
