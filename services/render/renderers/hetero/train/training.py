"""Training part of `hetero` (services.render.train.rooms): its network, and what the tools of training need.

The meta-training phase of the paper (Sec. 3.3.2): the network draws frame t from the composites around t and from a reference
picture t' != t of the same person. The fine-tuning phase is the personalisation.
"""

from __future__ import annotations

from typing import Final

from services.render.renderers.hetero.train.footage import CompositeSource
from services.render.renderers.hetero.train.held_out import read_composites
from services.render.renderers.hetero.train.recipes import CONFIGS
from services.render.renderers.hetero.train.reenact import reenact
from services.render.renderers.hetero.train.trainer import HeteroTrainer
from services.render.train.renderer_network import open_perceptual, renderer_network, trainer_inputs, training_people
from services.render.train.rooms import RendererTraining
from services.training.networks import Opening, TrainableNetwork


def _open(opening: Opening) -> HeteroTrainer:
    recipe = opening.config
    source = CompositeSource(
        training_people(opening), seed=recipe.loop.seed, sequences_from=recipe.warm_steps, length=recipe.sequence
    )
    return HeteroTrainer(recipe, trainer_inputs(opening, source, open_perceptual(opening), read_composites))


NETWORK: Final[TrainableNetwork] = renderer_network(
    "hetero",
    summary="draws the lower face of a frame from drawn landmarks and a reference picture of the actor",
    configs=CONFIGS,
    open_training=_open,
)
TRAINING: Final = RendererTraining(networks=(NETWORK,), held_out=read_composites, reenact=reenact)
