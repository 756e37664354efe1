"""How a training of `headpose` is opened."""

from __future__ import annotations

from pathlib import Path

from services.render.backends.registry import WEIGHTS_FOLDER
from services.render.renderers.headpose.identity_features import EMBEDDING, IdentityFeatures, read_identity_features
from services.render.renderers.headpose.train.drawings import read_drawings
from services.render.renderers.headpose.train.footage import DrawnSource
from services.render.renderers.headpose.train.held_out import read_drawn
from services.render.renderers.headpose.train.trainer import HeadposeTrainer
from services.render.train.held_out import Clip, HeldOut
from services.render.train.identities import identified_rows
from services.render.train.people import People, person_clips
from services.render.train.renderer_network import open_perceptual, trainer_inputs
from services.training.networks import Opening


def open_headpose(opening: Opening) -> HeadposeTrainer:
    """Open a training. People without an identity are left out.

    Raises:
        InvalidRequest: nobody has an identity, the set has no clip to check with, or a file that the recipe names cannot be used.
        ModelNotFound: a weights file is missing.
    """
    recipe, data = opening.config, opening.data
    rows, without = identified_rows(data, needs_still=True)
    people = People(data, person_clips(rows), recipe.people, seed=recipe.loop.seed)
    source = DrawnSource(people, lambda speaker: read_drawings(data, speaker), seed=recipe.loop.seed)
    perceptual = open_perceptual(opening)
    inputs = trainer_inputs(opening, source, perceptual, read_held_out, without=without)
    return HeadposeTrainer(recipe, inputs, perceptual, _identity_features(opening))


def _identity_features(opening: Opening) -> IdentityFeatures:
    device = opening.device.torch_device
    if opening.config.arcface:
        return read_identity_features(Path(opening.config.arcface))
    folder = opening.run_of(EMBEDDING) or WEIGHTS_FOLDER
    return read_identity_features(folder / f"{EMBEDDING}.safetensors", device)


def read_held_out(clip: Clip, num_frames: int) -> HeldOut:
    """Return a held-out clip with drawn windows, evenly spread; see services.render.train.held_out."""
    return read_drawn(clip, num_frames, read_drawings(clip.data, clip.row.speaker).film, detailed=False)
