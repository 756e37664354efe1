"""Training pairs from a bank: a frame of the footage, and another frame of the same person warped to its landmarks.

Paper `ugc`, Sec. III-C: (L_gt, I_gt) is the target, (L_re, I_re) another moment of the same person that stands for what would have
been retrieved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.actor_geometry import lower_face_mask
from services.common.crops import HeadPose, head_to_box
from services.common.landmarks import NUM_LIPS
from services.common.mouth_bank import WINDOW, MouthBank, Retrieved, wanted_points
from services.common.mouth_texture import fit_retrieved, warp_retrieved
from services.render.features import match_colour, network_picture
from services.render.types import Float32, UInt8

NEAREST_FRAMES: Final = 10
"""Frames nearer than this to the target never serve as its texture: they would hold the answer."""


_TURN_COST_PER_DEGREE: Final = 0.15
_BLEND_SOFTNESS_PX: Final = 0.3
_APART: Final = 3


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """One example.

    Attributes:
        picture: uint8 [160, 160, 9], the network's input.
        target: uint8 [160, 160, 3], the footage.
    """

    picture: UInt8
    target: UInt8


def window_rows(frame_index: npt.NDArray[np.int64], row: int, length: int) -> tuple[int, ...]:
    """The rows of a frame and the `length` - 1 before it; where the footage begins later or has a gap, its first frame after that
    stands in.
    """
    first = row
    while first > 0 and row - first < length - 1 and frame_index[first] - frame_index[first - 1] == 1:
        first -= 1
    return tuple(max(row - back, first) for back in range(length - 1, -1, -1))


@dataclass(frozen=True, kw_only=True, slots=True)
class LandmarkNoise:
    """How predicted landmarks differ from tracked ones, head-space pixels (standard deviations).

    Attributes:
        shift_px: of all lip points together.
        point_px: of each point alone.
        opening: relative, of the lips' vertical extent.
    """

    shift_px: float = 0.25
    point_px: float = 0.12
    opening: float = 0.03


NO_NOISE: Final = LandmarkNoise(shift_px=0.0, point_px=0.0, opening=0.0)


def perturbed(mouth: Float32, noise: LandmarkNoise, rng: np.random.Generator) -> Float32:
    """Mouth landmarks [59, 3] as a predictor might give them; float32 [59, 3]."""
    moved = mouth.copy()
    lips = moved[:NUM_LIPS]
    centre = lips.mean(axis=0)
    lips[:, 1] = centre[1] + (lips[:, 1] - centre[1]) * (1.0 + rng.normal(0.0, noise.opening))
    lips += rng.normal(0.0, noise.shift_px, 3).astype(np.float32)
    moved += rng.normal(0.0, noise.point_px, moved.shape).astype(np.float32)
    return moved


def choose_sources(bank: MouthBank, target: int, candidates: npt.NDArray[np.intp], num_blended: int) -> Retrieved:
    """The candidates that fit a frame best, as retrieval would choose them (services.common.mouth_bank.retrieve).

    None lies within NEAREST_FRAMES of the target. Few candidates give harder warps than retrieval from a whole bank would.

    Args:
        bank: the bank.
        target: row of the frame to make.
        candidates: int [N], rows to choose from.
        num_blended: textures to blend, at most.

    Raises:
        ValueError: no candidate is far enough from the target.
    """
    far = candidates[np.abs(bank.frame_index[candidates] - bank.frame_index[target]) > NEAREST_FRAMES]
    if not len(far):
        raise ValueError(f"no frame lies more than {NEAREST_FRAMES} frames from frame {bank.frame_index[target]}")
    costs = np.abs(bank.mouth[far, :NUM_LIPS, :2] - bank.mouth[target, :NUM_LIPS, :2]).mean(axis=(1, 2))
    cosine = np.clip(bank.rotation[far, :, 2] @ bank.rotation[target, :, 2], -1.0, 1.0)
    costs = costs + _TURN_COST_PER_DEGREE * np.degrees(np.arccos(cosine))
    chosen: list[int] = []
    for place in np.argsort(costs, kind="stable"):
        if all(abs(int(bank.frame_index[far[place]] - bank.frame_index[far[other]])) >= _APART for other in chosen):
            chosen.append(int(place))
        if len(chosen) == num_blended:
            break
    weights = np.exp((costs[chosen[0]] - costs[chosen]) / _BLEND_SOFTNESS_PX)
    rows = np.repeat(far[chosen][:, None], WINDOW, axis=1)
    return Retrieved(rows, np.asarray(weights / weights.sum(), np.float32))


def make_pair(bank: MouthBank, target: int, sources: Retrieved, wanted: Float32) -> Pair:
    """Warp the source frames' textures to the wanted landmarks in the target frame's pose, and blend them.

    Args:
        bank: the bank.
        target: row of the frame to make.
        sources: of the texture.
        wanted: float32 [59, 3], the target's landmarks, perturbed or not.
    """
    pose = HeadPose(1.0, bank.rotation[target], np.zeros(3))
    mask = lower_face_mask(bank.geometry, pose)
    spline = fit_retrieved(bank, sources, wanted_points(wanted, bank.geometry, pose))
    texture = match_colour(warp_retrieved(bank, sources, spline), bank.boxes[target], mask)
    picture = network_picture(bank.boxes[target], texture, mask, head_to_box(wanted, pose))
    return Pair(picture, bank.boxes[target])
