"""Key pictures of an actor: what this person's mouth looks like, as part of the actor's state.

"Everybody's Talkin'" trains one network on fifteen minutes of each person, and the person's looks end up in its weights. Here ten
seconds must do and one network draws all people, so the looks are an input: twenty-four frames of the footage that stand for all
of its mouths. The key pictures whose lips are nearest to the target ones are aligned to them (the paper aligns its faces by
affine maps, App. F; here the lips move too, by thin-plate splines), brought to the light of the frame's cheeks and shown to the
network, the nearest first.

Key pictures are stored at BOX_SIZE, 160 pixels a side. In a larger render box they are shown enlarged.

`match_colour` brings a picture to the light and the colour of a frame, in training and in serving.

Pictures are uint8 RGB in render-box pixels; the mask is above 0 where the face is to be replaced.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from services.common.array_types import Bool, Float32, UInt8
from services.common.face.crops import BOX_SIZE, CHEEKS_BOTTOM
from services.common.face.landmarks import NUM_LIPS, NUM_MOUTH_AREA, mouth_opening
from services.common.face.mouth_bank import BORDER_POINTS, SMOOTHING, MouthBank, opening_scale
from services.common.face.thin_plate_spline import dense_map, evaluate_grid, fit_spline, warp

_RING_PX: Final = 12
_CELL_PX: Final = 8
_SPREAD_CELLS: Final = 3.5
_ROBUST_LEVELS: Final = 8.0
_PRIOR_WEIGHT: Final = 0.05
_NOISE_LEVELS: Final = 1.0
_MAX_OFFSET_LEVELS: Final = 60.0
# The upper border of the outer lips with both corners, and the jaw line. What is inside the mouth and the lower lip move freely.
_FRAME_POINTS: Final = np.r_[0:11, NUM_LIPS:NUM_MOUTH_AREA]
_STIFFNESS_PX: Final = 8.0
NUM_KEPT: Final = 24
"""Key pictures that a state holds."""
NUM_KEYS: Final = 3
"""Key pictures that a network is shown of a frame."""
_OPENING_COST: Final = 0.5
_NUM_EXCHANGES: Final = 5
_MIDDLE: Final = 128.0
_PICTURES_SIZE: Final = NUM_KEPT * BOX_SIZE * BOX_SIZE * 3
STATE_SIZE: Final = _PICTURES_SIZE + NUM_KEPT * NUM_MOUTH_AREA * 2
"""Numbers that key pictures take at the end of an actor's state."""


def match_colour(texture: UInt8, background: UInt8, mask: UInt8, shown: Bool | None = None) -> UInt8:
    """Bring the texture's light and colour to those of the background around the mask: uint8 [H, W, 3].

    The difference of both is taken on the cheeks, on a ring just outside the mask: first its median (less one level, which is
    noise), then what deviates from the median, spread inwards smoothly (normalised convolution on cells; Knutsson and Westin
    1993), so that the texture also follows light that varies over the face. Pixels that differ much, such as hair, count little.
    No pixel under the mask is read. In a box of 160 pixels the ring is 12 pixels wide and a cell has 8; both grow with the box.

    Args:
        texture: uint8 [H, W, 3].
        background: uint8 [H, W, 3].
        mask: uint8 [H, W].
        shown: bool [H, W], where the texture shows anything; None: everywhere.
    """
    size = len(mask)
    multiple = size // BOX_SIZE
    cheeks, num_cells = CHEEKS_BOTTOM * multiple, BOX_SIZE // _CELL_PX
    covered = (mask > 0).view(np.uint8)
    reach = 2 * _RING_PX * multiple + 1
    ring = cv2.dilate(covered, np.ones((reach, reach), np.uint8)) - covered
    if shown is not None:
        ring = ring * shown
    # Every second pixel is plenty, and four times as fast.
    seen = (slice(0, cheeks, 2 * multiple), slice(None, None, 2 * multiple))
    ring = ring[seen]
    if not ring.any():
        return texture
    difference = background[seen].astype(np.float32) - texture[seen]
    median = np.median(difference[ring > 0], axis=0)
    median = np.sign(median) * np.maximum(np.abs(median) - _NOISE_LEVELS, 0.0)
    difference -= median
    weight = ring / (1.0 + (np.abs(difference).mean(axis=2) / _ROBUST_LEVELS) ** 2)
    stacked = np.dstack([difference * weight[:, :, None], weight]).astype(np.float32)
    cells = np.zeros((num_cells, num_cells, 4), np.float32)
    rows = CHEEKS_BOTTOM // _CELL_PX
    cells[:rows] = cv2.resize(stacked, (num_cells, rows), interpolation=cv2.INTER_AREA)
    spread = cv2.GaussianBlur(cells, (0, 0), _SPREAD_CELLS, borderType=cv2.BORDER_REPLICATE)
    offset = median + spread[:, :, :3] / (spread[:, :, 3:] + _PRIOR_WEIGHT)
    offset = np.clip(offset, -_MAX_OFFSET_LEVELS, _MAX_OFFSET_LEVELS).astype(np.float32)
    smooth = cv2.resize(offset, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.add(texture, smooth, dtype=cv2.CV_8U), dtype=np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class KeyPictures:
    """Key pictures of one person: NUM_KEPT from a shut mouth to a wide one, or the NUM_KEYS that a network is shown.

    Attributes:
        pictures: uint8 [K, 160, 160, 3].
        landmarks: float32 [K, 59, 2], mouth-area landmarks of each picture, pixels of a box of BOX_SIZE; zeros: not known, and the
            pictures are not moved.
        rows: rows of the bank that the pictures were taken from.
    """

    pictures: UInt8
    landmarks: Float32
    rows: tuple[int, ...] = ()

    @property
    def one_picture(self) -> bool:
        """Whether all key pictures are the same: the actor was learned from a still picture."""
        return bool(self.landmarks.any()) and bool((self.landmarks == self.landmarks[:1]).all())


def choose_keys(bank: MouthBank, candidates: npt.NDArray[np.intp]) -> KeyPictures:
    """Choose NUM_KEPT frames of a bank that stand for all of its mouths, from a shut mouth to a wide one.

    The k-medoids of lip shape and opening. The greedy beginning adds the frame that brings all others nearest to a chosen one. Each
    exchange then replaces a chosen frame by the middle of the frames that it stands for. Banks of fewer frames repeat the widest.

    Args:
        bank: mouths of the person.
        candidates: int [N], rows to choose from, N >= 1.
    """
    lips = bank.box_landmarks[candidates, :NUM_LIPS].astype(np.float64)
    shape = (lips - lips.mean(axis=1, keepdims=True)).reshape(len(candidates), -1) / np.sqrt(2.0 * NUM_LIPS)
    opening = mouth_opening(bank.mouth[candidates])
    vectors = np.column_stack([shape, opening_scale(bank.mouth[candidates])])
    squared = (vectors**2).sum(axis=1)
    distance = np.sqrt(np.maximum(squared[:, None] + squared - 2.0 * vectors @ vectors.T, 0.0))
    chosen = [int(np.argmin(distance.sum(axis=1)))]
    while len(chosen) < min(NUM_KEPT, len(candidates)):
        nearest = distance[:, chosen].min(axis=1)
        gain = np.maximum(nearest[:, None] - distance, 0.0).sum(axis=0)
        gain[chosen] = -1.0
        chosen.append(int(np.argmax(gain)))
    for _ in range(_NUM_EXCHANGES):
        owner = np.argmin(distance[:, chosen], axis=1)
        members = [np.flatnonzero(owner == index) for index in range(len(chosen))]
        chosen = [
            int(group[np.argmin(distance[np.ix_(group, group)].sum(axis=1))]) if len(group) else before
            for group, before in zip(members, chosen, strict=True)
        ]
    chosen.sort(key=lambda index: (float(opening[index]), index))
    chosen += [chosen[-1]] * (NUM_KEPT - len(chosen))
    rows = [int(candidates[index]) for index in chosen]
    return KeyPictures(bank.boxes[rows], bank.box_landmarks[rows], tuple(rows))


def matched_keys(keys: KeyPictures, background: UInt8, mask: UInt8, box_landmarks: Float32) -> UInt8:
    """Return the nearest key pictures, with the target landmarks and the light of a frame: uint8 [NUM_KEYS, H, W, 3].

    No pixel of the background under the mask is read.

    Args:
        keys: key pictures of the actor.
        background: uint8 [H, W, 3], the frame.
        mask: uint8 [H, W], lower-face mask of the frame.
        box_landmarks: float32 [59, 2], target landmarks of the frame, box pixels.
    """
    size = len(mask)
    moved = moved_keys(nearest_keys(keys, box_landmarks, size), box_landmarks, size)
    return np.stack([match_colour(picture, background, mask) for picture in moved])


def nearest_keys(keys: KeyPictures, target: Float32, size: int = BOX_SIZE) -> KeyPictures:
    """Return the NUM_KEYS key pictures whose lips are nearest to the lips of target landmarks, the nearest first.

    Distance: mean distance of lip points, plus the difference of the openings, which people see first and which the mean over 40
    points hides.

    Args:
        keys: key pictures of the actor.
        target: float32 [59, 2], target landmarks, box pixels.
        size: side of the render box, pixels.
    """
    target = _at_box_size(target, size)
    distance = np.abs(keys.landmarks[:, :NUM_LIPS] - target[:NUM_LIPS]).mean(axis=(1, 2))
    openings = opening_scale(keys.landmarks).astype(np.float64) - np.float64(opening_scale(target))
    nearest = np.argsort(distance + _OPENING_COST * np.abs(openings), kind="stable")[:NUM_KEYS]
    return KeyPictures(keys.pictures[nearest], keys.landmarks[nearest])


def moved_keys(keys: KeyPictures, target: Float32, size: int = BOX_SIZE) -> UInt8:
    """Move key pictures to target landmarks and enlarge them to the render box: uint8 [K, size, size, 3].

    Args:
        keys: key pictures.
        target: float32 [59, 2], target landmarks, box pixels.
        size: side of the render box, pixels.
    """
    pictures = keys.pictures
    if keys.landmarks.any():
        target = _at_box_size(target, size)
        sources = [np.concatenate([points, _affine(BORDER_POINTS, target, points)]) for points in keys.landmarks]
        centres = np.concatenate([target, BORDER_POINTS])
        grids = evaluate_grid(fit_spline(centres, np.concatenate(sources, axis=1), SMOOTHING[: len(centres)]))
        pictures = np.stack([warp(picture, dense_map(grids[..., 2 * at : 2 * at + 2])) for at, picture in enumerate(pictures)])
    if size == BOX_SIZE:
        return pictures
    larger = [cv2.resize(picture, (size, size), interpolation=cv2.INTER_LINEAR) for picture in pictures]
    return np.asarray(larger, np.uint8)


def packed(film: Float32, keys: KeyPictures) -> Float32:
    """Return an actor's state: the FiLM scales and shifts, then the key pictures; float32 [S].

    Pixels are stored as offsets from mid-grey, so an all-zero state draws a neutral face in the light of the frame's cheeks.
    """
    pictures = (keys.pictures.astype(np.float32) - _MIDDLE) / _MIDDLE
    points = keys.landmarks / BOX_SIZE
    return np.concatenate([film, pictures.ravel(), points.ravel()]).astype(np.float32)


def unpacked(state: Float32) -> tuple[Float32, KeyPictures]:
    """Return the FiLM scales and shifts [S - STATE_SIZE] and the key pictures of an actor's state, which `packed` made."""
    film, pictures, points = np.split(state, [len(state) - STATE_SIZE, len(state) - STATE_SIZE + _PICTURES_SIZE])
    levels = np.clip(np.rint(pictures * _MIDDLE + _MIDDLE), 0.0, 255.0).astype(np.uint8)
    return film, KeyPictures(
        levels.reshape(NUM_KEPT, BOX_SIZE, BOX_SIZE, 3), (points * BOX_SIZE).reshape(NUM_KEPT, NUM_MOUTH_AREA, 2)
    )


def _at_box_size(landmarks: Float32, size: int) -> Float32:
    return landmarks if size == BOX_SIZE else np.asarray(landmarks * (BOX_SIZE / size), np.float32)


def _affine(moved: Float32, target: Float32, source: Float32) -> Float32:
    """Move points by the affine map that best takes jaw line and upper lip of `target` to `source`: the head as a whole."""
    before, after = target[_FRAME_POINTS].astype(np.float64), source[_FRAME_POINTS].astype(np.float64)
    before_mean, after_mean = before.mean(axis=0), after.mean(axis=0)
    before, after = before - before_mean, after - after_mean
    # Pulled towards no change of form, as strongly as if each point were known to some pixels only.
    stiffness = len(before) * _STIFFNESS_PX**2 * np.eye(2)
    linear = (after.T @ before + stiffness) @ np.linalg.inv(before.T @ before + stiffness)
    return np.asarray((moved - before_mean) @ linear.T + after_mean, dtype=np.float32)
