"""The face stage's preparations of a training set. The stage has no network of its own to train."""

from __future__ import annotations

from typing import Final

from research.face.identities import IDENTITIES
from research.training.networks import Preparation, TrainableNetwork

NETWORKS: Final[tuple[TrainableNetwork, ...]] = ()
PREPARATIONS: Final[tuple[Preparation, ...]] = (IDENTITIES,)
