"""Inside of a mouth that no picture of the person shows: a mean over the people of the training set, in the person's light.

A still picture with shut lips has no teeth to show when the mouth opens. The picture's lips, moved apart, would fill the mouth with
lip. There the mean open mouth of the training people stands (train/mouth_interior.py), moved to the wanted landmarks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, UInt8
from services.common.face.crops import BOX_SIZE
from services.common.face.landmarks import LIPS_OUTER, NUM_LIPS
from services.common.face.lip_pictures import lip_pictures
from services.common.store.tensor_bytes import decode_arrays
from services.render.key_pictures import KeyPictures, moved_keys

FORMAT: Final = "dubstage.mouth_interior/1"
LEVEL: Final = 96.0
"""Grey level of the stored picture that stands for the brightness of the lips."""
FILE: Final = "mouth_interior.safetensors"
"""Name of the file in a folder of weights, and of the one that comes with dubstage."""
_OPEN_ENOUGH: Final = 0.8
_OPEN_RANGE: Final = 0.4
"""A picture whose mouth has .8 of the wanted area stays as it is. A picture with .4 of the wanted area gets the mean inside."""
_SMALLEST_AREA: Final = 20.0


@dataclass(frozen=True, slots=True, eq=False)
class MouthInterior:
    """Mean open mouth.

    Attributes:
        picture: uint8 [160, 160, 3], the mouth. The brightness of the lips is LEVEL.
        landmarks: float32 [59, 2], landmarks of the mouth, box pixels.
        skin_chroma: float32 [3], mean 1: colour of the skin round the mouth.
    """

    picture: UInt8
    landmarks: Float32
    skin_chroma: Float32


class LipAndSkin(NamedTuple):
    """Brightness of the lips and colour of the skin of a picture.

    Attributes:
        lip_level: mean of the lips' three channels, in the unit of the picture.
        skin_chroma: float32 [3], mean 1: colour of the skin.
    """

    lip_level: float
    skin_chroma: Float32


@cache
def mean_mouth(weights: Path | None = None) -> MouthInterior:
    """Return the mean open mouth.

    Args:
        weights: folder of weights. A folder without the file, or None, gives the mean open mouth that comes with dubstage.
    """
    own = None if weights is None else weights / FILE
    path = own if own is not None and own.is_file() else Path(__file__).with_name(FILE)
    stored = decode_arrays(path.read_bytes())
    return MouthInterior(stored["picture"], stored["landmarks"], stored["skin_chroma"])


def inner_area(box_landmarks: Float32) -> float:
    """Return the area between the inner lips, square pixels, of landmarks, float32 [59, 2]."""
    return float(cv2.contourArea(np.ascontiguousarray(box_landmarks[len(LIPS_OUTER) : NUM_LIPS], dtype=np.float32)))


def lip_and_skin(picture: npt.NDArray[np.floating] | UInt8, mask: UInt8, box_landmarks: Float32) -> LipAndSkin:
    """Return how bright the lips are and which colour the skin has.

    Args:
        picture: [H, W, 3], a face.
        mask: uint8 [H, W], above 0 where the picture shows the face.
        box_landmarks: float32 [59, 2], landmarks of the face, box pixels.
    """
    lips = lip_pictures(box_landmarks, len(mask)).astype(np.float32) / 255.0
    red, skin = np.clip(lips[..., 0] - lips[..., 1], 0.0, 1.0), (mask > 0) * (1.0 - lips[..., 0])
    lip, around = ((picture * part[..., None]).sum(axis=(0, 1)) / max(float(part.sum()), 1.0) for part in (red, skin))
    return LipAndSkin(float(lip.mean()), np.asarray(around / max(float(around.mean()), 1e-6), np.float32))


def with_interior(
    picture: UInt8, own_landmarks: Float32, mask: UInt8, box_landmarks: Float32, mean: MouthInterior | None = None
) -> UInt8:
    """Return a moved picture, with the mean inside of a mouth if the picture's own mouth was all but shut: uint8 [H, W, 3].

    Args:
        picture: uint8 [H, W, 3], already moved to the wanted landmarks.
        own_landmarks: float32 [59, 2], landmarks of the picture before the move, box pixels.
        mask: uint8 [H, W], lower-face mask.
        box_landmarks: float32 [59, 2], wanted landmarks, box pixels.
        mean: mean open mouth; None: the one that comes with dubstage.
    """
    wanted = inner_area(box_landmarks)
    size = len(mask)
    if wanted <= _SMALLEST_AREA * (size // BOX_SIZE) ** 2:
        return picture
    shut = float(np.clip((_OPEN_ENOUGH - inner_area(own_landmarks) / wanted) / _OPEN_RANGE, 0.0, 1.0))
    if shut == 0.0:
        return picture
    mean = mean or mean_mouth()
    seen = lip_and_skin(picture, mask, box_landmarks)
    moved = moved_keys(KeyPictures(mean.picture[None], mean.landmarks[None]), box_landmarks, size)[0]
    inside = moved * (seen.lip_level / LEVEL * seen.skin_chroma / mean.skin_chroma)
    weight = shut * lip_pictures(box_landmarks, size)[..., 1:] / np.float32(255.0)
    return np.asarray(np.clip(np.rint(picture + weight * (inside - picture)), 0, 255), dtype=np.uint8)
