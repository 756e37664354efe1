"""Train the prior of `headpose`.

    python -m services.render.renderers.headpose.train.run --data SET --identities FOLDER --perceptual FILE --out FOLDER

Eq. 4 of the paper, in the units of services/render/losses.py: adversarial loss (least squares, for the reason given there), L1, and
size and smoothness of the attention mask. The adversarial loss comes from a patch discriminator that sees the window of rendered
frames and the frame to judge. Three losses are added: perceptual, adversarial with a discriminator of single frames, and strength
of detail. As footnote 5 says, memory and generator take turns: first the threshold triplet loss and the memory's items, then the
GAN.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from services.render.backends.registry import WEIGHTS_FOLDER
from services.render.networks.perceptual import PerceptualNetwork, load_perceptual
from services.render.renderers.headpose.identity_features import EMBEDDING, IdentityFeatures, read_identity_features
from services.render.renderers.headpose.network import HeadposeConfig
from services.render.renderers.headpose.train.footage import DrawnBatch, DrawnSource, read_drawings
from services.render.renderers.headpose.train.held_out import read_drawn
from services.render.renderers.headpose.train.trainer import HeadposeRecipe, HeadposeTrainer
from services.render.train.footage import training_people
from services.render.train.held_out import ClipName
from services.render.train.loop import parse_arguments, run


def train(
    data: Path, identities: Path, perceptual: PerceptualNetwork, identity: IdentityFeatures, out: Path,
    recipe: HeadposeRecipe, clips: Sequence[ClipName],
) -> None:  # fmt: skip
    """Train, or go on training, and write `headpose.safetensors` into `out`.

    A run that was killed goes on; see services.render.train.loop.run.

    Args:
        data: folder of the training set.
        identities: folder with the identities of the training people and of the held-out clips (services.face.train.identities).
        perceptual: network of the perceptual loss and of the memory's queries.
        identity: the identity embedding.
        out: folder of the run.
        recipe: all settings.
        clips: clips to validate on.

    Raises:
        ValueError: `out` holds a run with another recipe.
    """
    people = training_people(data, recipe)
    drawings = {person.name: read_drawings(identities, person.name) for person in people}
    source = DrawnSource(people, drawings, sharp_share=recipe.sharp_share, seed=recipe.seed)
    held_out = [read_drawn(clip, 10, read_drawings(identities, clip.name).film, detailed=False) for clip in clips]

    def batch(step: int) -> DrawnBatch:
        return source.batch(step, recipe.batch_of(step))

    run(HeadposeTrainer(recipe, perceptual, identity), batch, out, held_out, base="rendered frame")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--identities", type=Path, required=True, help="folder of identities (services.face.train.identities)")
    parser.add_argument(
        "--perceptual", type=Path, required=True, help="perceptual.safetensors, written by services.render.train.perceptual"
    )
    parser.add_argument(
        "--identity-weights",
        type=Path,
        default=WEIGHTS_FOLDER / f"{EMBEDDING}.safetensors",
        help="identity embedding, or ArcFace as .onnx. Default: the embedding that comes with dubstage",
    )
    given = parse_arguments(parser, out="build/headpose", recipe=HeadposeRecipe())
    identity = read_identity_features(given.identity_weights)
    recipe = HeadposeRecipe(
        steps=given.steps,
        warm_steps=given.warm_steps,
        embedding=identity.sha256,
        network=HeadposeConfig(identity_size=identity.size),
    )
    train(given.data, given.identities, load_perceptual(given.perceptual), identity, given.out, recipe, given.held_out)


if __name__ == "__main__":
    main()
