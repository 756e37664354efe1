"""The inside of a mouth that no picture of the person shows: a mean over the people of the training set, in the person's light.

A still picture with shut lips has no teeth to show when the mouth is to open, and its lips, moved apart, would fill the mouth with
lip. There the mean open mouth of the training people (train/mouth_interior.py) stands, moved to the wanted landmarks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from services.common.landmarks import LIPS_OUTER, NUM_LIPS
from services.common.tensor_bytes import decode_arrays
from services.render.features import lip_pictures
from services.render.key_pictures import KeyPictures, moved_keys
from services.render.types import Float32, UInt8

FORMAT: Final = "dubstage.mouth_interior/1"
LEVEL: Final = 96.0
"""Value of the picture that is as bright as the lips."""
_FILE: Final = Path(__file__).with_name("mouth_interior.safetensors")
_OPEN_ENOUGH: Final = 0.8
_OPEN_RANGE: Final = 0.4
"""A picture whose mouth has .8 of the wanted one's area is left as it is, one with .4 gets the mean inside."""
_SMALLEST_AREA: Final = 20.0


@dataclass(frozen=True, slots=True, eq=False)
class MouthInterior:
    """A mean open mouth.

    Attributes:
        picture: uint8 [160, 160, 3], relative to the brightness of its lips, which is LEVEL.
        landmarks: float32 [59, 2], box pixels.
        skin_chroma: float32 [3], mean 1: colour of the skin round it.
    """

    picture: UInt8
    landmarks: Float32
    skin_chroma: Float32


class LipAndSkin(NamedTuple):
    """Attributes: lip_level mean of the lips' channels; skin_chroma float32 [3], mean 1."""

    lip_level: float
    skin_chroma: Float32


@cache
def mean_mouth() -> MouthInterior:
    """The one that comes with dubstage."""
    stored = decode_arrays(_FILE.read_bytes())
    return MouthInterior(stored["picture"], stored["landmarks"], stored["skin_chroma"])


def inner_area(box_landmarks: Float32) -> float:
    """Area between the inner lips, square pixels, of landmarks [59, 2]."""
    return float(cv2.contourArea(np.ascontiguousarray(box_landmarks[len(LIPS_OUTER) : NUM_LIPS], dtype=np.float32)))


def lip_and_skin(picture: npt.NDArray[np.floating] | UInt8, mask: UInt8, box_landmarks: Float32) -> LipAndSkin:
    """How bright the lips are and which colour the skin has.

    Args:
        picture: [160, 160, 3], a face with these landmarks.
        mask: uint8 [160, 160], where there is face.
        box_landmarks: float32 [59, 2].
    """
    lips = lip_pictures(box_landmarks).astype(np.float32) / 255.0
    red, skin = np.clip(lips[..., 0] - lips[..., 1], 0.0, 1.0), (mask > 0) * (1.0 - lips[..., 0])
    lip, around = ((picture * part[..., None]).sum(axis=(0, 1)) / max(float(part.sum()), 1.0) for part in (red, skin))
    return LipAndSkin(float(lip.mean()), np.asarray(around / max(float(around.mean()), 1e-6), np.float32))


def with_interior(picture: UInt8, own_landmarks: Float32, mask: UInt8, box_landmarks: Float32) -> UInt8:
    """A moved picture with the mean inside of a mouth if its own is all but shut beside the wanted one: uint8 [160, 160, 3].

    Args:
        picture: uint8 [160, 160, 3], already moved to the wanted landmarks.
        own_landmarks: float32 [59, 2], where they were before.
        mask: uint8 [160, 160], lower-face mask.
        box_landmarks: float32 [59, 2], the wanted ones.
    """
    wanted = inner_area(box_landmarks)
    if wanted <= _SMALLEST_AREA:
        return picture
    shut = float(np.clip((_OPEN_ENOUGH - inner_area(own_landmarks) / wanted) / _OPEN_RANGE, 0.0, 1.0))
    if shut == 0.0:
        return picture
    mean = mean_mouth()
    seen = lip_and_skin(picture, mask, box_landmarks)
    moved = moved_keys(KeyPictures(mean.picture[None], mean.landmarks[None]), box_landmarks)[0]
    inside = moved * (seen.lip_level / LEVEL * seen.skin_chroma / mean.skin_chroma)
    weight = shut * lip_pictures(box_landmarks)[..., 1:] / np.float32(255.0)
    return np.asarray(np.clip(np.rint(picture + weight * (inside - picture)), 0, 255), dtype=np.uint8)
