"""Gain by the prior: quality of an adaptation against frames and steps, with the prior and without.

    python -m research.methods.everyone.few_frames --data SET --clip NAME ...

An actor is made from the first N frames of a clip, and frames of the rest of the clip are drawn with the true landmarks. With the
prior, texture and offset of W learn, as in serving. Without the prior, a network of random weights learns beside them, from the
same frames with the same losses. Both begin with the same first texture. The paper claims that the prior needs at least five
times fewer steps for the same quality (Saunders and Namboodiri, Sec. 4 and 5).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch

from research.methods.everyone.render import ActorAppearance, read_surface, read_windows
from research.render.held_out import Clip, DrawnClip, clip_metrics, clips_named
from research.training.command import command_line
from services.common.array_types import Float32, UInt8
from services.common.face.mouth_bank import MouthBank, make_bank
from services.common.face.neural_texture import NeuralSurface
from services.render.backends.model_files import WEIGHTS_FOLDER
from services.render.networks.weights import to_tensor
from services.render.pairs import BASE
from services.render.renderers.everyone.network import WEIGHTS, EveryoneNetwork, load
from services.render.renderers.everyone.personalize import TextureRecipe, TextureSearch, actor_windows, bank_texture
from services.render.renderers.everyone.renderer import reference_row

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


@torch.no_grad()
def drawn_face(network: EveryoneNetwork, picture: UInt8, style: Float32) -> UInt8:
    """Return the face of frame t, uint8 [160, 160, 3].

    Args:
        picture: uint8 [160, 160, PICTURE_CHANNELS], as inputs.network_picture lays out.
        style: float32 [S], offset of W.
    """
    residual = network(to_tensor(picture[None]), torch.from_numpy(style)[None])[0].permute(1, 2, 0).numpy() * 255.0
    return np.asarray(np.clip(np.rint(picture[..., BASE] + residual), 0, 255), np.uint8)


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
        weights: folder with the prior, the perceptual network and the discriminator of frames.
        frames: numbers of frames of an actor; 0: all.
        steps: rising steps with the prior. Without the prior, five times as many.

    Raises:
        InvalidRequestError: the training set has no identity of the person.
        ModelNotFoundError: a weights file is missing.
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

    def row(step: int, style: Float32, looks: ActorAppearance) -> Reached:
        held = read_windows(clip, _DRAWN, surface, looks)
        metrics = clip_metrics(DrawnClip(held, [drawn_face(network, pair.picture, style) for pair in held.pairs]))
        return Reached(clip.row.name, bank.num_frames, prior, step, metrics.psnr_db, metrics.sharpness_ratio)

    yield row(0, network.default_state().numpy(), ActorAppearance(texture, reference))
    recipe = TextureRecipe(report_every=1, network_learning_rate=0.0 if prior else _NETWORK_RATE)
    windows = actor_windows(bank, surface, recipe.num_windows, _SEED)
    for progress in TextureSearch(network, texture, recipe, steps[-1], weights).run(windows, _SEED):
        if progress.step in steps:
            yield row(progress.step, progress.style, ActorAppearance(progress.texture, reference))


@command_line
def main() -> int:
    """Run the command line, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="training set, made by dubstage trainset")
    parser.add_argument("--clip", action="append", required=True, metavar="NAME", help="name of a clip; may be repeated")
    parser.add_argument("--weights", type=Path, default=WEIGHTS_FOLDER, help="folder of weights. Default: %(default)s")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    for clip in clips_named(given.data, given.clip):
        for reached in measure(clip, given.weights):
            print(reached, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
