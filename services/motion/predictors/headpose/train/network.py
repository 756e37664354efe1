"""The network of `headpose` that can be trained."""

from __future__ import annotations

from typing import Final

from services.motion.predictors.headpose.export import NAME, export
from services.motion.predictors.headpose.train.config import CONFIGS
from services.motion.predictors.headpose.train.training import BUILT_ON, HeadposeTraining
from services.training.networks import TrainableNetwork

NETWORK: Final = TrainableNetwork(
    name=NAME,
    stage="motion",
    summary="speech to expression coefficients and head poses",
    configs=CONFIGS,
    needs=(BUILT_ON,),
    open=HeadposeTraining,
    export=export,
)
