"""Teeth proxy (paper `everybody`, App. F): fine detail of the person's own teeth for drawn teeth.

Every frame of the footage gives a mask, the polygon of the inner lips, and the texture under the mask. The frame whose mask
overlaps most with the mask of a drawn mouth (intersection over union, mouths aligned by their centres) lends its high frequencies,
as in the teeth proxy of Suwajanakorn et al. 2017. Low frequencies, and with them colour and shading, stay as drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, UInt8
from services.common.face.crops import BOX_SIZE
from services.common.face.lip_pictures import lip_pictures

PATCH: Final = (96, 64)
"""Width and height of the patches round the mouth's centre."""
_OUTERMOST: Final = (0, 5, 10, 15)
"""Places among the outer lips' points: right corner, top, left corner, bottom."""
_DETAIL_SIGMA: Final = 2.5
_FEATHER_SIGMA: Final = 1.0
_MIN_AREA_PX: Final = 120
_MIN_OVERLAP: Final = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class TeethDatabase:
    """Open mouths of one person.

    Attributes:
        masks: bool [N, 64, 96], the inside of the lips.
        textures: uint8 [N, 64, 96, 3].
    """

    masks: npt.NDArray[np.bool_]
    textures: UInt8


def collect_teeth(boxes: UInt8, box_landmarks: Float32) -> TeethDatabase:
    """Return the open mouths among some frames.

    Args:
        boxes: uint8 [F, 160, 160, 3], render boxes.
        box_landmarks: float32 [F, 59, 2], landmarks of these frames, box pixels.
    """
    width, height = PATCH
    masks, textures = [np.zeros((0, height, width), bool)], [np.zeros((0, height, width, 3), np.uint8)]
    for box, points in zip(boxes, box_landmarks, strict=True):
        mask = _patch(lip_pictures(points)[..., 1], points) > 127
        if mask.sum() >= _MIN_AREA_PX:
            masks.append(mask[None])
            textures.append(_patch(box, points)[None])
    return TeethDatabase(np.concatenate(masks), np.concatenate(textures))


def most_similar(mask: npt.NDArray[np.bool_], database: TeethDatabase) -> tuple[int, float]:
    """Return the index of the mask that overlaps most, and the overlap (intersection over union).

    Args:
        mask: bool [64, 96], inside of the lips.
        database: open mouths, at least one.
    """
    both = (database.masks & mask).sum(axis=(1, 2))
    either = (database.masks | mask).sum(axis=(1, 2))
    overlap = both / np.maximum(either, 1)
    best = int(np.argmax(overlap))
    return best, float(overlap[best])


def with_teeth(face: UInt8, box_landmarks: Float32, database: TeethDatabase) -> UInt8:
    """Return the face with the detail of the most similar mouth inside its lips: uint8 [160, 160, 3].

    A mouth that is all but shut stays as it is, and so does a mouth that resembles no mouth of the database.

    Args:
        face: uint8 [160, 160, 3], drawn.
        box_landmarks: float32 [59, 2], landmarks of the face, box pixels.
        database: open mouths of the person.
    """
    mask = _patch(lip_pictures(box_landmarks)[..., 1], box_landmarks) > 127
    if mask.sum() < _MIN_AREA_PX or not len(database.masks):
        return face
    best, overlap = most_similar(mask, database)
    if overlap < _MIN_OVERLAP:
        return face
    texture = database.textures[best].astype(np.float32)
    lent = texture - cv2.GaussianBlur(texture, (0, 0), _DETAIL_SIGMA)
    common = (mask & database.masks[best]).astype(np.float32)
    weight = cv2.erode(common, np.ones((3, 3), np.uint8))
    weight = cv2.GaussianBlur(weight, (0, 0), _FEATHER_SIGMA) * common
    # The inverse of the patch's affine map leads back into the box.
    back = cv2.invertAffineTransform(_to_patch(box_landmarks))
    lent, weight = (cv2.warpAffine(part, back, (BOX_SIZE, BOX_SIZE), flags=cv2.INTER_LINEAR) for part in (lent, weight))
    picture = face.astype(np.float32)
    own = picture - cv2.GaussianBlur(picture, (0, 0), _DETAIL_SIGMA)
    return np.asarray(np.clip(np.rint(picture + weight[..., None] * (lent - own)), 0, 255), dtype=np.uint8)


def _to_patch(points: Float32) -> npt.NDArray[np.float64]:
    """Return the affine map from box pixels to patch pixels, which takes the mean of the lips' four outermost points to the
    middle."""
    middle = points[list(_OUTERMOST)].astype(np.float64).mean(axis=0)
    return np.column_stack([np.eye(2), np.array([(PATCH[0] - 1) / 2, (PATCH[1] - 1) / 2]) - middle])


def _patch(picture: UInt8, points: Float32) -> UInt8:
    moved = cv2.warpAffine(picture, _to_patch(points), PATCH, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, dtype=np.uint8)
