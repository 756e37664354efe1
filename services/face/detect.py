"""Detection of faces in whole pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from services.common.face.sampling import sample_patch
from services.face.mediapipe_graphs import DetectorNetwork, RawDetection

_WORKING_SIDE: Final = 384
"""Long side to which pictures are shrunk first. The networks take 128 and 192 pixels."""
_SHORT_RANGE_SCORE: Final = 0.5
_FULL_RANGE_SCORE: Final = 0.6
_SAME_FACE_OVERLAP: Final = 0.3
_CONFIRM_SCORE: Final = 0.6
_CONFIRM_OVERLAP: Final = 0.4
_CONFIRM_MARGIN: Final = 2.2
_CONFIRM_SIDE: Final = 192


@dataclass(frozen=True, slots=True)
class Detection:
    """Detected face.

    Attributes:
        box: left, top, width, height, pixels: from the brows to the chin.
        keypoints: float64 [6, 2], pixels: right eye, left eye, nose tip, mouth, right ear, left ear.
        score: 0 to 1.
    """

    box: tuple[float, float, float, float]
    keypoints: npt.NDArray[np.float64]
    score: float


class FaceDetector:
    """Detector of near faces by the short-range network, and of far faces by the full-range network where faces are missing."""

    def __init__(self) -> None:
        self._short = DetectorNetwork("Short", _SHORT_RANGE_SCORE)
        self._full = DetectorNetwork("Full", _FULL_RANGE_SCORE)

    def detect(self, picture: npt.NDArray[np.uint8], *, thorough: bool) -> list[Detection]:
        """Return the faces of a picture, uint8 RGB [H, W, 3]: near faces first, by falling score.

        Args:
            picture: upright.
            thorough: look for far faces even where near faces were found.
        """
        height, width = picture.shape[:2]
        shrink = min(1.0, _WORKING_SIDE / max(height, width))
        small = picture
        if shrink < 1.0:
            size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
            small = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        found = [_in_pixels(raw, width, height) for raw in self._short(small)]
        if thorough or not found:
            for raw in self._full(small):
                candidate = _in_pixels(raw, width, height)
                if all(overlap(candidate.box, other.box) < _SAME_FACE_OVERLAP for other in found):
                    found.append(candidate)
        return found

    def confirm(self, picture: npt.NDArray[np.uint8], detection: Detection) -> bool:
        """Return whether the short-range network finds the face in a close-up too.

        The full-range network sometimes finds faces in foliage, and the mesh network accepts them.
        """
        left, top, width, height = detection.box
        side = _CONFIRM_MARGIN * max(width, height)
        scale = _CONFIRM_SIDE / side
        origin = np.array([left + width / 2 - side / 2, top + height / 2 - side / 2])
        affine = np.column_stack([np.eye(2) * scale, -scale * origin])
        close_up = sample_patch(picture, affine, (_CONFIRM_SIDE, _CONFIRM_SIDE), interpolation=cv2.INTER_LINEAR)
        for raw in self._short(close_up):
            seen = _in_pixels(raw, _CONFIRM_SIDE, _CONFIRM_SIDE)
            x, y = np.array(seen.box[:2]) / scale + origin
            box = (float(x), float(y), seen.box[2] / scale, seen.box[3] / scale)
            if seen.score >= _CONFIRM_SCORE and overlap(box, detection.box) >= _CONFIRM_OVERLAP:
                return True
        return False

    def close(self) -> None:
        """Free the networks."""
        self._short.close()
        self._full.close()


def overlap(first: tuple[float, float, float, float], second: tuple[float, float, float, float]) -> float:
    """Return intersection over union of two boxes (left, top, width, height)."""
    width = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    height = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (first[2] * first[3] + second[2] * second[3] - shared)


def _in_pixels(raw: RawDetection, width: int, height: int) -> Detection:
    left, top, box_width, box_height = raw.box
    box = (left * width - 0.5, top * height - 0.5, box_width * width, box_height * height)
    return Detection(box, raw.keypoints * np.array([width, height]) - 0.5, raw.score)
