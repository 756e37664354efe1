"""Training pairs from a bank: an input of a network and the footage that the network shall draw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Int64, UInt8
from services.common.face.actor_geometry import lower_face_mask
from services.common.face.crops import HeadPose, head_to_box
from services.common.face.landmarks import NUM_LIPS
from services.common.face.mouth_bank import MouthBank
from services.common.server.call_context import check_not_cancelled
from services.render.key_pictures import KeyPictures

NEAREST_FRAMES: Final = 10
"""Frames nearer than this to the target never serve as its texture or key picture: such frames would hold the answer."""
BASE: Final = slice(3, 6)
"""Channels of an input that hold the picture to which the network's residual is added, RGB."""
MASK: Final = 6
"""Channel of an input that holds the lower-face mask."""
LIPS: Final = 7
"""Channel of an input that marks the target lips."""


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """One example.

    Attributes:
        picture: uint8 [160, 160, C], the network's input. Channels BASE, MASK and LIPS have the same meaning for every network.
        target: uint8 [160, 160, 3], the footage.
    """

    picture: UInt8
    target: UInt8


@dataclass(frozen=True, kw_only=True, slots=True)
class LandmarkNoise:
    """How predicted landmarks differ from tracked ones, head-space pixels (standard deviations).

    Attributes:
        shift_px: shift of all lip points together.
        point_px: shift of each point by itself.
        opening: relative change of the lips' vertical extent.
    """

    shift_px: float = 0.25
    point_px: float = 0.12
    opening: float = 0.03


NO_NOISE: Final = LandmarkNoise(shift_px=0.0, point_px=0.0, opening=0.0)


def perturbed(mouth: Float32, noise: LandmarkNoise, rng: np.random.Generator) -> Float32:
    """Return mouth landmarks as a predictor might give them: float32 [59, 3], head space.

    Args:
        mouth: float32 [59, 3], tracked landmarks, head space.
        noise: strength of the noise.
        rng: source of the noise.
    """
    moved = mouth.copy()
    lips = moved[:NUM_LIPS]
    centre = lips.mean(axis=0)
    lips[:, 1] = centre[1] + (lips[:, 1] - centre[1]) * (1.0 + rng.normal(0.0, noise.opening))
    lips += rng.normal(0.0, noise.shift_px, 3).astype(np.float32)
    moved += rng.normal(0.0, noise.point_px, moved.shape).astype(np.float32)
    return moved


class TargetMouth(NamedTuple):
    """Mouth that a pair asks for in one frame of a bank.

    Attributes:
        pose: head pose in the render box.
        mask: uint8 [160, 160], the lower-face mask.
        mouth: float32 [59, 3], target landmarks, head space.
        points: float32 [59, 2], target landmarks, box pixels.
    """

    pose: HeadPose
    mask: UInt8
    mouth: Float32
    points: Float32


def target_mouth(bank: MouthBank, row: int, noise: LandmarkNoise, seed: int) -> TargetMouth:
    """Return what a pair asks for in a frame: the landmarks of the frame itself, as a predictor might give them.

    Args:
        bank: landmarks and poses of the person.
        row: row of the frame.
        noise: strength of the noise.
        seed: random seed of the noise.
    """
    pose = HeadPose(1.0, bank.rotation[row], np.zeros(3))
    mouth = perturbed(bank.mouth[row], noise, np.random.default_rng(seed))
    return TargetMouth(pose, lower_face_mask(bank.geometry, pose), mouth, head_to_box(mouth, pose))


def window_rows(frame_index: Int64, row: int, length: int) -> tuple[int, ...]:
    """Return the rows of a frame and of the `length` - 1 frames before it.

    Where the footage begins later or has a gap, the first frame after the gap stands in for the missing frames.

    Args:
        frame_index: int64 [F], index of each row in the footage.
        row: row of the window's last frame.
        length: frames of the window.
    """
    first = row
    while first > 0 and row - first < length - 1 and frame_index[first] - frame_index[first - 1] == 1:
        first -= 1
    return tuple(max(row - back, first) for back in range(length - 1, -1, -1))


def spread_rows(rows: npt.NDArray[np.intp], count: int) -> npt.NDArray[np.intp]:
    """Return at most `count` of some rows, evenly spread: int [N].

    Args:
        rows: int [M], M >= 1.
        count: number of rows wanted.
    """
    return np.asarray(rows[np.unique(np.linspace(0, len(rows) - 1, count).round().astype(int))], np.intp)


class KeyedWindow(NamedTuple):
    """Window of a bank with key pictures of other moments.

    Attributes:
        rows: rows of the window's frames, the frame to draw last.
        keys: key pictures, each more than NEAREST_FRAMES from the frame to draw.
        noise_seed: random seed of the noise on the window's landmarks.
    """

    rows: tuple[int, ...]
    keys: KeyPictures
    noise_seed: int


def keyed_windows(
    bank: MouthBank, keys: KeyPictures, *, length: int, fewest_keys: int, count: int, seed: int
) -> Iterator[KeyedWindow]:
    """Yield windows of a bank, evenly spread, each with key pictures of other moments only: near ones would hold the answer.

    Args:
        bank: textures and landmarks of the person.
        keys: key pictures of the bank.
        length: frames of a window.
        fewest_keys: key pictures that a network is shown. Frames for which fewer are far enough are left out.
        count: largest number of windows.
        seed: random seed of the windows' seeds.

    Raises:
        WorkCancelledError: the call that this is done for is over.
    """
    far = np.abs(bank.frame_index[:, None] - bank.frame_index[list(keys.rows)]) > NEAREST_FRAMES
    reachable = np.flatnonzero(far.sum(axis=1) >= fewest_keys)
    if not len(reachable):
        return
    rng = np.random.default_rng((seed, 0))
    for row in spread_rows(reachable, count):
        check_not_cancelled()
        others = KeyPictures(keys.pictures[far[row]], keys.landmarks[far[row]])
        yield KeyedWindow(window_rows(bank.frame_index, int(row), length), others, int(rng.integers(1 << 31)))
