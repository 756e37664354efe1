"""Train the prior of `ugc`.

    python -m services.render.renderers.ugc.train.run --data FOLDER --perceptual FILE --out FOLDER

Two phases: reconstruction and perceptual loss alone, then all five losses (services/render/losses.py) with a discriminator of
frames and a discriminator of sequences (paper, Eq. 11 and 12).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from services.render.losses import Features
from services.render.networks.perceptual import load_perceptual
from services.render.renderers.ugc.train.footage import UgcBatch, UgcSource
from services.render.renderers.ugc.train.held_out import read_textured
from services.render.renderers.ugc.train.trainer import SEQUENCE_FRAMES, UgcRecipe, UgcTrainer
from services.render.train.footage import training_people
from services.render.train.held_out import ClipName
from services.render.train.loop import parse_arguments, run
from services.render.train.vgg import load_vgg


def train(data: Path, features: Features, out: Path, recipe: UgcRecipe, clips: Sequence[ClipName]) -> None:
    """Train, or go on training, and write `ugc.safetensors` and `frame_discriminator.safetensors` into `out`.

    A run that was killed goes on; see services.render.train.loop.run.

    Args:
        data: folder of the training set.
        features: features of the perceptual loss.
        out: folder of the run.
        recipe: all settings.
        clips: clips to validate on.

    Raises:
        ValueError: `out` holds a run with another recipe.
    """
    source = UgcSource(training_people(data, recipe), sharp_share=recipe.sharp_share, seed=recipe.seed)

    def batch(step: int) -> UgcBatch:
        if step < recipe.warm_steps:
            return source.batch(step, recipe.warm_batch)
        return source.batch_with_sequence(step, recipe.batch, SEQUENCE_FRAMES)

    run(UgcTrainer(recipe, features), batch, out, [read_textured(clip, 12) for clip in clips], base="texture")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    features = parser.add_mutually_exclusive_group(required=True)
    features.add_argument("--perceptual", type=Path, help="perceptual.safetensors, written by services.render.train.perceptual")
    features.add_argument("--vgg", type=Path, help="your own VGG-19 state dict in torchvision's layout")
    given = parse_arguments(parser, out="build/ugc", recipe=UgcRecipe())
    chosen: Features = load_vgg(given.vgg) if given.vgg is not None else load_perceptual(given.perceptual).features
    train(given.data, chosen, given.out, UgcRecipe(steps=given.steps, warm_steps=given.warm_steps), given.held_out)


if __name__ == "__main__":
    main()
