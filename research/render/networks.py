"""The networks of the render stage that can be trained."""

from __future__ import annotations

from typing import Final

from research.render.perceptual import NETWORK as PERCEPTUAL
from research.render.training import training_named
from research.training.networks import Preparation, TrainableNetwork
from services.common.methods import RENDERERS

NETWORKS: Final[tuple[TrainableNetwork, ...]] = (
    PERCEPTUAL,
    *(network for name in RENDERERS for network in training_named(name).networks),
)
"""The perceptual network, and the networks of all methods' renderers."""
PREPARATIONS: Final[tuple[Preparation, ...]] = ()
"""Steps that the render stage adds to a training set: none."""
