"""The network of `everyone` that can be trained."""

from __future__ import annotations

from typing import Final

from services.motion.predictors.everyone.export import NAME, export
from services.motion.predictors.everyone.train.config import CONFIGS
from services.motion.predictors.everyone.train.training import BUILT_ON, EveryoneTraining
from services.training.networks import TrainableNetwork

NETWORK: Final = TrainableNetwork(
    name=NAME,
    stage="motion",
    summary="speech to expression coefficients, with 400 ms of look-ahead",
    configs=CONFIGS,
    needs=(BUILT_ON,),
    open=EveryoneTraining,
    export=export,
)
