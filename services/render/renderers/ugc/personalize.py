"""Personalisation of `ugc`: the FiLM state that draws one person best, from frames of their bank (paper `ugc`, Sec. III-C).

Paper `ugc`, Sec. III-C: (L_gt, I_gt) is the target. (L_re, I_re) is another moment of the same person, in place of what retrieval
would give.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from services.common.array_types import Float32
from services.common.face.actor_geometry import lower_face_mask
from services.common.face.crops import HeadPose
from services.common.face.landmarks import NUM_LIPS, NUM_MOUTH_AREA
from services.common.face.mouth_bank import WINDOW, MouthBank, Retrieved, noses, target_points, turn_costs
from services.common.face.mouth_inside import MouthView
from services.common.face.mouth_texture import fit_retrieved, warp_retrieved
from services.common.face.thin_plate_spline import evaluate_grid
from services.common.server.call_context import check_not_cancelled
from services.render.key_pictures import match_colour
from services.render.pairs import NEAREST_FRAMES, LandmarkNoise, Pair, perturbed, spread_rows
from services.render.personalization import PersonalizeRecipe, personalized
from services.render.renderer import PersonalizeJob
from services.render.renderers.ugc.network import WEIGHTS, load
from services.render.renderers.ugc.renderer import network_picture
from services.render.types import PersonalizeProgress

_BLEND_SOFTNESS_PX: Final = 0.3
"""Cost above the best frame at which the weight of a blended frame falls to 1 / e, pixels."""
_APART: Final = 3
"""Least distance of two blended frames, frames of the footage."""
BLENDED: Final = 3
"""Largest number of textures that are blended, as many as retrieval blends."""


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
    costs = costs + turn_costs(noses(bank.rotation[far]), noses(bank.rotation[target]))
    chosen: list[int] = []
    for index in np.argsort(costs, kind="stable"):
        if all(abs(int(bank.frame_index[far[index]] - bank.frame_index[far[other]])) >= _APART for other in chosen):
            chosen.append(int(index))
        if len(chosen) == num_blended:
            break
    weights = np.exp((costs[chosen[0]] - costs[chosen]) / _BLEND_SOFTNESS_PX)
    rows = np.repeat(far[chosen][:, None], WINDOW, axis=1)
    return Retrieved(rows, np.asarray(weights / weights.sum(), np.float32), int(rows[0, -1]))


def make_pair(bank: MouthBank, target: int, sources: Retrieved, landmarks: Float32) -> Pair:
    """Return the pair of a frame: the source frames' textures, warped to the target landmarks in the frame's pose and blended.

    Args:
        bank: textures and landmarks of the person.
        target: row of the frame.
        sources: frames that the texture comes from.
        landmarks: float32 [59, 3], the target's landmarks in head space, perturbed or not.
    """
    pose = HeadPose(1.0, bank.rotation[target], np.zeros(3))
    mask = lower_face_mask(bank.geometry, pose)
    points = target_points(landmarks, bank.geometry, pose)
    grids = evaluate_grid(fit_retrieved(bank, sources, points))
    shown = MouthView(landmarks, bank.rotation[target], points[:NUM_MOUTH_AREA])
    texture = match_colour(warp_retrieved(bank, sources, grids, shown).texture, bank.boxes[target], mask)
    picture = network_picture(bank.boxes[target], texture, mask, shown.landmarks)
    return Pair(picture, bank.boxes[target])


def personalize_ugc(job: PersonalizeJob, recipe: PersonalizeRecipe = PersonalizeRecipe()) -> Iterator[PersonalizeProgress]:
    """Search the state of the bank's person; yield progress as services.render.personalization.personalized does.

    A bank whose frames all lie within a few of each other has no pair to learn from. With `job.train=False` there is no search.
    Errors: see `personalized`.
    """
    torch.set_num_threads(job.num_threads)
    network = load(job.weights / WEIGHTS)
    pairs = actor_pairs(job.bank, recipe, job.seed) if job.train else []
    yield from personalized(network, pairs, job, recipe)


def actor_pairs(bank: MouthBank, recipe: PersonalizeRecipe, seed: int) -> list[Pair]:
    """Return pairs of the bank, each as retrieval would serve the frame if the frame's own moment were not in the bank.

    Args:
        bank: textures and landmarks of the person.
        recipe: number of pairs.
        seed: random seed of the noise.

    Raises:
        WorkCancelledError: the call that needs the pairs has ended.
    """
    rng = np.random.default_rng((seed, 0))
    index = bank.frame_index
    reachable = np.flatnonzero(np.maximum(index - index[0], index[-1] - index) > NEAREST_FRAMES)
    if not len(reachable):
        return []
    everything, noise = np.arange(bank.num_frames), LandmarkNoise()
    pairs = []
    for row in spread_rows(reachable, recipe.num_pairs):
        check_not_cancelled()
        sources = choose_sources(bank, int(row), everything, BLENDED)
        pairs.append(make_pair(bank, int(row), sources, perturbed(bank.mouth[row], noise, rng)))
    return pairs
