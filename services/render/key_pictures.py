"""Key pictures of an actor: what this person's mouth looks like, as part of the actor's state.

The paper trains one network on fifteen minutes of each person, and the person's looks end up in its weights. Here ten seconds must do
and one network serves everybody, so what the looks are is an input: the mean of the footage and three of its frames, with the mouth
shut, half open and wide. They are aligned to a frame by an affine map, as the paper aligns its faces (App. F), on points that do not
follow the jaw, and brought to the light of its cheeks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from services.common.crops import BOX_SIZE
from services.common.landmarks import NUM_LIPS, NUM_MOUTH_AREA, mouth_opening
from services.common.mouth_bank import MouthBank
from services.render.features import match_colour
from services.render.heatmaps import NUM_KEYS
from services.render.types import Float32, UInt8

# The upper border of the outer lips with both corners, and the jaw line without the chin.
_RIGID: Final = np.r_[0:11, NUM_LIPS : NUM_LIPS + 4, NUM_LIPS + 13 : NUM_MOUTH_AREA]
_QUANTILES: Final = (0.04, 0.6, 0.97)
_GROUP_SHARE: Final = 0.12
_MEAN_FRAMES: Final = 40
_MIDDLE: Final = 128.0
_PICTURES_SIZE: Final = NUM_KEYS * BOX_SIZE * BOX_SIZE * 3
STATE_SIZE: Final = _PICTURES_SIZE + NUM_KEYS * NUM_MOUTH_AREA * 2
"""Numbers that key pictures take at the end of an actor's state."""


@dataclass(frozen=True, slots=True, eq=False)
class KeyPictures:
    """Key pictures of one person.

    Attributes:
        pictures: uint8 [NUM_KEYS, 160, 160, 3]: the mean, then mouths from shut to wide.
        landmarks: float32 [NUM_KEYS, 59, 2], mouth-area landmarks in each, box pixels; zeros: not known, the picture is not moved.
        rows: the bank's rows that the frames after the mean were taken from.
    """

    pictures: UInt8
    landmarks: Float32
    rows: tuple[int, ...] = ()


def choose_keys(bank: MouthBank, candidates: npt.NDArray[np.intp]) -> KeyPictures:
    """The mean of some of a bank's frames, and three of them that stand for a shut, a half open and a wide mouth.

    Each of the three is the most ordinary one among the frames whose mouths are open about as far.

    Args:
        bank: the person's.
        candidates: int [N], rows to choose from, N >= 1.
    """
    opening = mouth_opening(bank.mouth[candidates])
    points = bank.box_landmarks[candidates]
    mean_points = points.mean(axis=0)
    spread = np.unique(np.linspace(0, len(candidates) - 1, _MEAN_FRAMES).round().astype(int))
    total = np.zeros((BOX_SIZE, BOX_SIZE, 3), np.float32)
    for place in spread:
        total += _moved(bank.boxes[candidates[place]], points[place], mean_points)
    rows = []
    for level in np.quantile(opening, _QUANTILES):
        group = np.argsort(np.abs(opening - level), kind="stable")[: max(1, round(len(opening) * _GROUP_SHARE))]
        distance = np.abs(points[group] - points[group].mean(axis=0)).mean(axis=(1, 2))
        rows.append(int(candidates[group[np.argmin(distance)]]))
    mean = np.rint(total / len(spread)).astype(np.uint8)
    return KeyPictures(
        np.concatenate([mean[None], bank.boxes[rows]]), np.concatenate([mean_points[None], bank.box_landmarks[rows]]), tuple(rows)
    )


def matched_keys(keys: KeyPictures, background: UInt8, mask: UInt8, box_landmarks: Float32) -> UInt8:
    """The key pictures moved to a frame's head pose and brought to its light: uint8 [NUM_KEYS, 160, 160, 3].

    Nothing of the background that the mask covers is looked at.

    Args:
        keys: of the actor.
        background: uint8 [160, 160, 3], the frame.
        mask: uint8 [160, 160], its lower-face mask.
        box_landmarks: float32 [59, 2], its wanted landmarks, box pixels.
    """
    moved = [_moved(picture, points, box_landmarks) for picture, points in zip(keys.pictures, keys.landmarks, strict=True)]
    return np.stack([match_colour(picture, background, mask) for picture in moved])


def packed(film: Float32, keys: KeyPictures) -> Float32:
    """An actor's state: the FiLM scales and shifts, then the key pictures; float32 [S].

    Grey is 0, so that zeros are a person of no looks at all: the light of the frame's cheeks, spread over the mouth area.
    """
    pictures = (keys.pictures.astype(np.float32) - _MIDDLE) / _MIDDLE
    points = keys.landmarks / BOX_SIZE
    return np.concatenate([film, pictures.ravel(), points.ravel()]).astype(np.float32)


def unpacked(state: Float32) -> tuple[Float32, KeyPictures]:
    """What `packed` put together: FiLM scales and shifts [S - STATE_SIZE], key pictures."""
    film, pictures, points = np.split(state, [len(state) - STATE_SIZE, len(state) - STATE_SIZE + _PICTURES_SIZE])
    levels = np.clip(np.rint(pictures * _MIDDLE + _MIDDLE), 0.0, 255.0).astype(np.uint8)
    return film, KeyPictures(
        levels.reshape(NUM_KEYS, BOX_SIZE, BOX_SIZE, 3), (points * BOX_SIZE).reshape(NUM_KEYS, NUM_MOUTH_AREA, 2)
    )


def grey_keys() -> KeyPictures:
    """Those of nobody: what zeros in a state stand for."""
    return unpacked(np.zeros(STATE_SIZE, np.float32))[1]


def _moved(picture: UInt8, points: Float32, wanted: Float32) -> UInt8:
    """The picture under the affine map that takes the rigid ones of `points` to those of `wanted` best."""
    if not points.any():
        return picture
    source = np.column_stack([points[_RIGID], np.ones(len(_RIGID))]).astype(np.float64)
    affine, *_ = np.linalg.lstsq(source, wanted[_RIGID].astype(np.float64), rcond=None)
    return np.asarray(
        cv2.warpAffine(
            picture, affine.T, (BOX_SIZE, BOX_SIZE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        ),
        dtype=np.uint8,
    )
