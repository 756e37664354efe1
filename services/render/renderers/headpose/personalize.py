"""Personalisation of `headpose`: key pictures, items of the memory, then the scales and shifts that draw this person best.

The paper fine-tunes its whole network on 300 frames. Here the network stays as it is, and everything that belongs to the person
is an input of the network: key pictures of the footage (services.render.key_pictures), the person's own items of the memory,
written by the memory's own rule, and the scales and shifts that the search of services.render.personalization finds. A still
picture has no other moment to learn from, so its state holds key picture and items only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from services.common.array_types import UInt8
from services.common.face.drawing import IdentityDrawing, lip_pictures
from services.common.face.mouth_bank import MouthBank
from services.common.server.call_context import check_not_cancelled
from services.render.key_pictures import KeyPictures, choose_keys, packed
from services.render.networks.weights import to_tensor
from services.render.pairs import NO_NOISE, LandmarkNoise, Pair, keyed_windows, target_mouth
from services.render.personalization import PersonalizeRecipe, personalized
from services.render.renderer import PersonalizeJob
from services.render.renderers.headpose.identity_features import IdentityFeatures, embedding_of
from services.render.renderers.headpose.network import WEIGHTS, HeadposeNetwork, IdentityMemory, load
from services.render.renderers.headpose.renderer import (
    DRAWN_WINDOW,
    INPUT_KEYS,
    RENDERED,
    MouthInterior,
    coverage,
    drawn_picture,
    input_keys,
    mean_mouth,
    rendered_frame,
)
from services.render.types import PersonalizeProgress

_ITEM_FRAMES: Final = 12
RECIPE: Final = PersonalizeRecipe(num_steps=40, learning_rate=7e-4)
"""Settings of the search: fewer and smaller steps than the other renderers take."""
FEWEST_FRAMES: Final = 100
"""With fewer frames the search makes pictures worse (paper, App. B: better one frame without tuning than a few dozen frames
with)."""


@dataclass(frozen=True, slots=True, eq=False)
class DrawnView:
    """Window of footage as the network sees the window: as filmed, or in other colours.

    Attributes:
        rows: rows of the bank, frames t-2 to t.
        boxes: uint8 [3, 160, 160, 3], render boxes of these frames.
        keys: key pictures of the actor, in the same colours.
        drawing: draws the person.
        detailed: draw with the detailed albedo, not with the low-frequency albedo.
        mean: mean open mouth; None: the one that comes with dubstage.
        paint: brings a drawn face to the colours of `boxes`; None: the drawn face stays as it is.
    """

    rows: tuple[int, ...]
    boxes: UInt8
    keys: KeyPictures
    drawing: IdentityDrawing
    detailed: bool
    mean: MouthInterior | None = None
    paint: Callable[[UInt8], UInt8] | None = None


def drawn_pair(bank: MouthBank, view: DrawnView, noise: LandmarkNoise, seed: int) -> Pair:
    """Return the pair of a window's last frame.

    Args:
        bank: landmarks and poses of the person.
        noise: strength of the noise on the target landmarks. All three frames get the same noise, as from a predictor.
        seed: random seed of the noise.
    """
    rendered: dict[int, UInt8] = {}
    mask: UInt8 = np.zeros(view.boxes.shape[1:3], np.uint8)
    lips, keys = np.dstack([mask, mask]), np.zeros((INPUT_KEYS, *view.boxes.shape[1:]), np.uint8)
    for index, row in enumerate(view.rows):
        if row in rendered:
            continue
        pose, mask, mouth, points = target_mouth(bank, row, noise, seed)
        drawn = view.drawing.draw(mouth, pose, detailed=view.detailed)
        covered = coverage(drawn)
        keys = input_keys(view.keys, view.boxes[index], mask, points, view.mean)
        shown = drawn if view.paint is None else view.paint(drawn)
        rendered[row] = rendered_frame(view.boxes[index], mask, shown, keys[0], covered)
        lips = lip_pictures(points)
    return Pair(drawn_picture([rendered[row] for row in view.rows], mask, lips, keys), view.boxes[-1])


class ActorNetwork(nn.Module):
    """Network with one actor's items of the memory. Scales and shifts are the part of the actor's state that is left to be found.

    Args:
        network: generator and memory.
        items: float [actor_items * item_size], the actor's items.
    """

    items: Tensor

    def __init__(self, network: HeadposeNetwork, items: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("items", items)

    def default_state(self) -> Tensor:
        """Return scales and shifts that change nothing: zeros, float32 [film_size]."""
        return torch.zeros(self.network.film_size)

    def forward(self, pictures: Tensor, film: Tensor) -> Tensor:
        """Return HeadposeNetwork.forward for scales and shifts, float [B, film_size]."""
        residual: Tensor = self.network(pictures, torch.cat([film, self.items.expand(len(film), -1)], dim=1))
        return residual


@dataclass(frozen=True, slots=True, eq=False)
class ActorFootage:
    """Footage of the person of an actor.

    Attributes:
        bank: textures and landmarks of the person.
        keys: key pictures of the bank.
        drawing: draws the person.
        mean: mean open mouth; None: the one that comes with dubstage.
    """

    bank: MouthBank
    keys: KeyPictures
    drawing: IdentityDrawing
    mean: MouthInterior | None = None

    def view(self, rows: tuple[int, ...], keys: KeyPictures, *, detailed: bool) -> DrawnView:
        """Return the window of some rows with key pictures; see DrawnView."""
        return DrawnView(rows, self.bank.boxes[list(rows)], keys, self.drawing, detailed, self.mean)


def actor_items(footage: ActorFootage, network: HeadposeNetwork, identity: IdentityFeatures) -> Tensor:
    """Return the person's items of the memory, float32 [actor_items * item_size].

    Frames of the bank, evenly spread, are written into an empty memory. A frame gives a pair: the spatial feature of the rendered
    frame and the identity feature of the filmed frame.

    Args:
        footage: footage of the person.
        network: the prior.
        identity: the identity embedding.

    Raises:
        WorkCancelledError: the call that this is done for is over.
    """
    rows = np.unique(np.linspace(0, footage.bank.num_frames - 1, _ITEM_FRAMES).round().astype(int))
    memory = IdentityMemory(replace(network.memory.config, items=network.config.actor_items))
    for row in rows:
        check_not_cancelled()
        for detailed in (False, True)[: 1 + footage.drawing.has_detail]:
            alone = footage.view((int(row),) * DRAWN_WINDOW, footage.keys, detailed=detailed)
            pair = drawn_pair(footage.bank, alone, NO_NOISE, 0)
            with torch.no_grad():
                query = network.spatial(to_tensor(pair.picture[None, ..., RENDERED]))
            memory.update(query, torch.from_numpy(identity.of(pair.target[None])))
    return torch.cat([memory.spatial, memory.identity], dim=1).flatten()


def personalize_headpose(job: PersonalizeJob, recipe: PersonalizeRecipe | None = None) -> Iterator[PersonalizeProgress]:
    """Search the state of the bank's person; yield progress as services.render.personalization.personalized does.

    An actor's state is scales and shifts, the items of the memory, then the key pictures. A bank of fewer than FEWEST_FRAMES frames
    is not searched, unless the job gives a number of steps or the caller a recipe. A still picture has nothing to learn from. In
    both cases the state holds items and key pictures with scales and shifts of the prior.

    Args:
        job: the bank, what draws the person, the prior's weights and settings. `train=False` skips the search.
        recipe: settings of the search; None: RECIPE.

    Raises:
        WorkCancelledError: the call that this is done for is over.
        ModelNotFoundError: a weights file is missing, or the identity embedding is not the one that the model was trained with.
    """
    torch.set_num_threads(job.num_threads)
    bank, drawing = job.bank, job.drawing
    assert drawing is not None  # the renderer declares needs_identity
    is_enough = job.train and (bool(recipe or job.num_steps) or bank.num_frames >= FEWEST_FRAMES)
    recipe = recipe or RECIPE
    path = job.weights / WEIGHTS
    network, identity = load(path), embedding_of(path)
    keys = choose_keys(bank, np.arange(bank.num_frames))
    footage = ActorFootage(bank, keys, drawing, mean_mouth(job.weights))
    items = actor_items(footage, network, identity)
    pairs = actor_drawn(footage, recipe, job.seed) if is_enough else []
    yield from personalized(
        ActorNetwork(network, items), pairs, job, recipe, lambda film: packed(np.concatenate([film, items.numpy()]), keys)
    )


def actor_drawn(footage: ActorFootage, recipe: PersonalizeRecipe, seed: int) -> list[Pair]:
    """Return pairs of the windows of footage, drawn with either albedo in turn, as many as the recipe says.

    Arguments and errors: see pairs.keyed_windows.
    """
    bank, has_detail = footage.bank, footage.drawing.has_detail
    windows = keyed_windows(bank, footage.keys, length=DRAWN_WINDOW, fewest_keys=INPUT_KEYS, count=recipe.num_pairs, seed=seed)
    return [
        drawn_pair(bank, footage.view(rows, others, detailed=has_detail and index % 2 == 1), LandmarkNoise(), noise_seed)
        for index, (rows, others, noise_seed) in enumerate(windows)
    ]
