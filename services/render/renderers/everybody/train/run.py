"""Train the prior of `everybody`.

    python -m services.render.renderers.everybody.train.run --data FOLDER --perceptual FILE --out FOLDER

Eq. 4 of the paper: L1, LSGAN with gradient penalty against the discriminator of table 8 (at a smaller size), perceptual and total
variation loss, in the units of services/render/losses.py. The discriminator of windows sees six filmed frames and the seventh,
filmed or made. A patch discriminator of single frames judges fine detail, which an average over the picture overlooks.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from services.render.losses import Features
from services.render.networks.perceptual import load_perceptual
from services.render.renderers.everybody.train.footage import WindowBatch, WindowSource
from services.render.renderers.everybody.train.held_out import read_windows
from services.render.renderers.everybody.train.trainer import EverybodyRecipe, EverybodyTrainer
from services.render.train.footage import training_people
from services.render.train.held_out import ClipName
from services.render.train.loop import parse_arguments, run


def train(data: Path, features: Features, out: Path, recipe: EverybodyRecipe, clips: Sequence[ClipName]) -> None:
    """Train, or go on training, and write `everybody.safetensors` and `everybody_discriminator.safetensors` into `out`.

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
    source = WindowSource(training_people(data, recipe), sharp_share=recipe.sharp_share, seed=recipe.seed)

    def batch(step: int) -> WindowBatch:
        return source.batch(step, recipe.batch_of(step))

    run(EverybodyTrainer(recipe, features), batch, out, [read_windows(clip, 10) for clip in clips], base="first key picture")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--perceptual", type=Path, required=True, help="perceptual.safetensors, written by services.render.train.perceptual"
    )
    given = parse_arguments(parser, out="build/everybody", recipe=EverybodyRecipe())
    recipe = EverybodyRecipe(steps=given.steps, warm_steps=given.warm_steps)
    train(given.data, load_perceptual(given.perceptual).features, given.out, recipe, given.held_out)


if __name__ == "__main__":
    main()
