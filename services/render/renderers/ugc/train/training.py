"""Training part of `ugc` (services.render.train.rooms): its network, and what the tools of training need.

Two phases: reconstruction and perceptual loss alone, then all five losses (services/render/losses.py) with a discriminator of
frames and a discriminator of sequences (paper, Eq. 11 and 12).
"""

from __future__ import annotations

from typing import Final

from services.render.renderers.ugc.train.footage import UgcSource
from services.render.renderers.ugc.train.held_out import read_textured
from services.render.renderers.ugc.train.recipes import CONFIGS
from services.render.renderers.ugc.train.reenact import reenact
from services.render.renderers.ugc.train.trainer import FRAME_DISCRIMINATOR, UgcTrainer
from services.render.train.renderer_network import open_perceptual, renderer_network, trainer_inputs, training_people
from services.render.train.rooms import RendererTraining
from services.training.networks import Opening, TrainableNetwork


def _open(opening: Opening) -> UgcTrainer:
    recipe = opening.config
    source = UgcSource(training_people(opening), seed=recipe.loop.seed)
    return UgcTrainer(recipe, trainer_inputs(opening, source, open_perceptual(opening), read_textured))


NETWORK: Final[TrainableNetwork] = renderer_network(
    "ugc",
    summary="corrects a warped texture to the wanted lips of a frame",
    configs=CONFIGS,
    open_training=_open,
    more_files=lambda _run: (FRAME_DISCRIMINATOR,),
)
TRAINING: Final = RendererTraining(networks=(NETWORK,), held_out=read_textured, reenact=reenact)
