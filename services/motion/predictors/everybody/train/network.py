"""The network of `everybody` that can be trained."""

from __future__ import annotations

from typing import Final

from services.motion.predictors.everybody.export import NAME, export
from services.motion.predictors.everybody.train.config import CONFIGS
from services.motion.predictors.everybody.train.training import BUILT_ON, EverybodyTraining
from services.training.networks import TrainableNetwork

NETWORK: Final = TrainableNetwork(
    name=NAME,
    stage="motion",
    summary="ID-removed speech to expression coefficients",
    configs=CONFIGS,
    needs=(BUILT_ON,),
    open=EverybodyTraining,
    export=export,
)
