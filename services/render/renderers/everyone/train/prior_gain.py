"""What the prior earns: an adaptation with the prior, and the same without, from few frames; see few_frames.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from services.common.array_types import Float32
from services.common.face.mouth_bank import MouthBank, make_bank
from services.common.face.neural_texture import NeuralSurface
from services.render.renderers.everyone.actor_footage import actor_windows, bank_texture
from services.render.renderers.everyone.actor_state import reference_row
from services.render.renderers.everyone.network import WEIGHTS, EveryoneNetwork, load
from services.render.renderers.everyone.texture_search import TextureRecipe, TextureSearch
from services.render.renderers.everyone.train.drawn_face import drawn_face
from services.render.renderers.everyone.train.held_out import Looks, read_windows
from services.render.renderers.everyone.train.surfaces import read_surface
from services.render.train.held_out import Clip
from services.render.train.shown import Shown, figures

FRAMES: Final = (10, 50, 100, 0)
"""Numbers of frames of an actor; 0: all frames of the first part of the clip."""
PRIOR_STEPS: Final = (14, 35, 70)
"""Steps after which the adaptation of the prior is measured. 70 is the renderer's own number."""
TIMES_AS_MANY: Final = 5
"""Steps without the prior for each step with the prior, by the paper's claim."""
_DRAWN: Final = 24
_NETWORK_RATE: Final = 1e-3
"""Learning rate of a network without a prior: the rate of the training of the prior."""
_SEED: Final = 0


@dataclass(frozen=True, slots=True)
class Reached:
    """One row.

    Attributes:
        clip: name of the clip.
        frames: frames of the actor.
        prior: whether the network was the prior.
        steps: steps of the optimiser.
        psnr_db: PSNR in the mouth box, decibels.
        sharpness_ratio: sharpness in the mouth box; 1 = as sharp as the footage.
    """

    clip: str
    frames: int
    prior: bool
    steps: int
    psnr_db: float
    sharpness_ratio: float

    def __str__(self) -> str:
        """Return the row as one line."""
        kind = "prior" if self.prior else "no prior"
        return (
            f"{self.clip}: {self.frames:4d} frames, {kind:8s}, {self.steps:4d} steps: {self.psnr_db:.2f} dB  "
            f"sharp {self.sharpness_ratio:.2f}"
        )


def measure(clip: Clip, weights: Path, frames: Sequence[int] = FRAMES, steps: Sequence[int] = PRIOR_STEPS) -> Iterator[Reached]:
    """Yield the rows of one clip.

    Args:
        clip: the clip.
        weights: folder with the prior, the perceptual network and the discriminator of frames.
        frames: numbers of frames of an actor; 0: all.
        steps: rising steps with the prior. Without the prior, five times as many.

    Raises:
        InvalidRequest: the training set has no identity of the person.
        ModelNotFound: a weights file is missing.
    """
    surface = read_surface(clip.data, clip.row.speaker)
    whole = read_windows(clip, 2, surface).bank
    for count in dict.fromkeys(min(number or whole.num_frames, whole.num_frames) for number in frames):
        bank = _first(whole, count)
        yield from _adapted(clip, bank, surface, weights, steps, prior=True)
        yield from _adapted(clip, bank, surface, weights, [step * TIMES_AS_MANY for step in steps], prior=False)


def _first(bank: MouthBank, count: int) -> MouthBank:
    """Return a bank of the first frames of a bank."""
    return make_bank(bank.boxes[:count].copy(), bank.mouth[:count], bank.rotation[:count], bank.frame_index[:count], bank.geometry)


def _adapted(
    clip: Clip, bank: MouthBank, surface: NeuralSurface, weights: Path, steps: Sequence[int], *, prior: bool
) -> Iterator[Reached]:
    torch.manual_seed(_SEED)
    network = load(weights / WEIGHTS)
    if not prior:
        network = EveryoneNetwork(network.config).eval()
    texture, reference = bank_texture(bank, surface, _SEED), bank.boxes[reference_row(bank)]

    def row(step: int, style: Float32, looks: Looks) -> Reached:
        held = read_windows(clip, _DRAWN, surface, looks)
        found = figures(Shown(held, [drawn_face(network, pair.picture, style) for pair in held.pairs]))
        return Reached(clip.row.name, bank.num_frames, prior, step, found.psnr_db, found.sharpness_ratio)

    yield row(0, network.default_state().numpy(), Looks(texture, reference))
    recipe = TextureRecipe(report_every=1, network_learning_rate=0.0 if prior else _NETWORK_RATE)
    windows = actor_windows(bank, surface, recipe.num_windows, _SEED)
    for progress in TextureSearch(network, texture, recipe, steps[-1], weights).run(windows, _SEED):
        if progress.step in steps:
            yield row(progress.step, progress.style, Looks(progress.texture, reference))
