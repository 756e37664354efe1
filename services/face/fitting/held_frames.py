"""Frames of one face, held until the person is fitted. The number of held frames is bounded."""

from __future__ import annotations

from typing import Final, NamedTuple

import cv2
import numpy as np

from services.common.array_types import Float32, UInt8
from services.common.face.crops import CROP_SIZE, HeadPose, apply_affine, crop_from_frame, fit_head_pose
from services.common.face.landmarks import NUM_LANDMARKS
from services.common.face.sampling import sample_patch
from services.face.types import Reason, TrackedFace

MAX_FRAMES: Final = 200
"""Largest number of held frames (200 kB per frame). With more, every second frame is dropped, and later frames are taken half as
often."""
FRAME_BYTES: Final = CROP_SIZE * CROP_SIZE * 3 + NUM_LANDMARKS * 3 * 4
"""Memory of one held frame, bytes."""
_MOST_TURNED_DEGREES: Final = 45.0


class PlacedFace(NamedTuple):
    """Face in a crop. Attributes: landmarks float32 [478, 3], crop pixels; crop uint8 [256, 256, 3], RGB."""

    landmarks: Float32
    crop: UInt8


class HeldFrames:
    """Frames of one face, in bounded memory.

    Frames with the reason DUBBED are held. If there are no such frames, as for a portrait in three-quarter view, the least turned
    frame is held as a still picture.
    """

    def __init__(self) -> None:
        self.offered = 0
        """Number of frames that were pushed."""
        self._stride = 1
        self._usable = 0
        self._frames: list[PlacedFace] = []
        self._spare: PlacedFace | None = None
        self._least_turned = np.inf

    @property
    def frames(self) -> list[PlacedFace]:
        """Return the held frames; empty if no frame can be used."""
        return self._frames or ([] if self._spare is None else [self._spare])

    def push(self, picture: UInt8, face: TrackedFace) -> None:
        """Take a frame, uint8 RGB [H, W, 3]. A frame that cannot be used (see `reason`) is skipped."""
        self.offered += 1
        turned = abs(face.pose.yaw_degrees)
        if face.reason is Reason.PROFILE_VIEW and turned <= _MOST_TURNED_DEGREES and turned < self._least_turned:
            self._least_turned, self._spare = turned, _placed(picture, face)
        if face.reason is not Reason.DUBBED:
            return
        if self._usable % self._stride == 0:
            self._frames.append(_placed(picture, face))
            if len(self._frames) > MAX_FRAMES:
                self._stride *= 2
                self._frames = self._frames[::2]
        self._usable += 1


def placed_face(picture: UInt8, landmarks: Float32, pose: HeadPose) -> PlacedFace:
    """Return a face in the crop of a head pose.

    Args:
        picture: uint8 RGB [H, W, 3].
        landmarks: float32 [478, 3], frame pixels.
        pose: head pose.
    """
    affine = crop_from_frame(pose)
    placed = np.concatenate([apply_affine(affine, landmarks), landmarks[:, 2:] / np.float32(pose.scale)], 1)
    return PlacedFace(placed, sample_patch(picture, affine, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_LINEAR))


def _placed(picture: UInt8, face: TrackedFace) -> PlacedFace:
    return placed_face(picture, face.landmarks, fit_head_pose(face.landmarks))
