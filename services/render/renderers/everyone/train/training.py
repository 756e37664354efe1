"""Training part of `everyone` (services.render.train.rooms): its network, and what the tools of training need."""

from __future__ import annotations

from typing import Final

from services.render.renderers.everyone.train.held_out import read_held_out
from services.render.renderers.everyone.train.opening import open_everyone
from services.render.renderers.everyone.train.recipes import CONFIGS
from services.render.renderers.everyone.train.reenact import reenact
from services.render.train.renderer_network import renderer_network
from services.render.train.rooms import RendererTraining
from services.training.networks import TrainableNetwork

NETWORK: Final[TrainableNetwork] = renderer_network(
    "everyone",
    summary="draws the lower face of a frame from features of the actor's neural texture, a reference picture and speech",
    configs=CONFIGS,
    open_training=open_everyone,
)
TRAINING: Final = RendererTraining(networks=(NETWORK,), held_out=read_held_out, reenact=reenact)
