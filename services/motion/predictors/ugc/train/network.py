"""The network of `ugc` that can be trained."""

from __future__ import annotations

from typing import Final

from services.motion.predictors.ugc.export import NAME, export
from services.motion.predictors.ugc.train.config import CONFIGS
from services.motion.predictors.ugc.train.training import UgcTraining
from services.training.networks import TrainableNetwork

NETWORK: Final = TrainableNetwork(
    name=NAME,
    stage="motion",
    summary="speech and a person's speaking style to mouth landmarks, and the landmark basis of the style",
    configs=CONFIGS,
    open=UgcTraining,
    export=export,
)
