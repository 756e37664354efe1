"""Training pairs of `ugc` from a bank: a frame of the footage, and other frames of the same person warped to its landmarks.

Paper `ugc`, Sec. III-C: (L_gt, I_gt) is the target. (L_re, I_re) is another moment of the same person, in place of what retrieval
would give.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32
from services.common.face.actor_geometry import lower_face_mask
from services.common.face.crops import HeadPose, head_to_box
from services.common.face.landmarks import NUM_LIPS
from services.common.face.mouth_bank import WINDOW, MouthBank, Retrieved, wanted_points
from services.common.face.mouth_texture import fit_retrieved, warp_retrieved
from services.render.colour_match import match_colour
from services.render.pairs import NEAREST_FRAMES, Pair
from services.render.renderers.ugc.inputs import network_picture

_TURN_COST_PER_DEGREE: Final = 0.15
_BLEND_SOFTNESS_PX: Final = 0.3
_APART: Final = 3


def choose_sources(bank: MouthBank, target: int, candidates: npt.NDArray[np.intp], num_blended: int) -> Retrieved:
    """Return the candidates that fit a frame best, as retrieval would choose them (services.common.face.mouth_bank.retrieve).

    No chosen candidate lies within NEAREST_FRAMES of the target. Few candidates give harder warps than retrieval from a whole bank
    would.

    Args:
        bank: textures and landmarks of the person.
        target: row of the frame to make.
        candidates: int [N], rows to choose from.
        num_blended: largest number of textures to blend.

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
    """Return the pair of a frame: the source frames' textures, warped to the wanted landmarks in the frame's pose and blended.

    Args:
        bank: textures and landmarks of the person.
        target: row of the frame to make.
        sources: frames that the texture comes from.
        wanted: float32 [59, 3], the target's landmarks in head space, perturbed or not.
    """
    pose = HeadPose(1.0, bank.rotation[target], np.zeros(3))
    mask = lower_face_mask(bank.geometry, pose)
    spline = fit_retrieved(bank, sources, wanted_points(wanted, bank.geometry, pose))
    texture = match_colour(warp_retrieved(bank, sources, spline), bank.boxes[target], mask)
    picture = network_picture(bank.boxes[target], texture, mask, head_to_box(wanted, pose))
    return Pair(picture, bank.boxes[target])
