"""Training part of `everybody` (services.render.train.rooms): its network, and what the tools of training need.

Eq. 4 of the paper: L1, LSGAN with gradient penalty against the discriminator of table 8 (at a smaller size), perceptual and total
variation loss, in the units of services/render/losses.py. The discriminator of windows sees six filmed frames and the seventh,
filmed or made. A patch discriminator of single frames judges fine detail, which an average over the picture overlooks.
"""

from __future__ import annotations

from typing import Final

from services.render.renderers.everybody.train.footage import WindowSource
from services.render.renderers.everybody.train.held_out import read_windows
from services.render.renderers.everybody.train.recipes import CONFIGS
from services.render.renderers.everybody.train.reenact import reenact
from services.render.renderers.everybody.train.trainer import EverybodyTrainer
from services.render.train.renderer_network import open_perceptual, renderer_network, trainer_inputs, training_people
from services.render.train.rooms import RendererTraining
from services.training.networks import Opening, TrainableNetwork


def _open(opening: Opening) -> EverybodyTrainer:
    recipe = opening.config
    source = WindowSource(training_people(opening), seed=recipe.loop.seed)
    return EverybodyTrainer(recipe, trainer_inputs(opening, source, open_perceptual(opening), read_windows))


NETWORK: Final[TrainableNetwork] = renderer_network(
    "everybody",
    summary="draws the lower face of a frame from landmarks, the frames before, and key pictures of the actor",
    configs=CONFIGS,
    open_training=_open,
)
TRAINING: Final = RendererTraining(networks=(NETWORK,), held_out=read_windows, reenact=reenact)
