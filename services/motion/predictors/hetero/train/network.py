"""The network of `hetero` that can be trained."""

from __future__ import annotations

from typing import Final

from services.motion.predictors.hetero.export import NAME, export
from services.motion.predictors.hetero.train.config import CONFIGS
from services.motion.predictors.hetero.train.training import BASIS_NETWORK, HeteroTraining
from services.training.networks import TrainableNetwork

NETWORK: Final = TrainableNetwork(
    name=NAME,
    stage="motion",
    summary="mel spectrogram, reference landmarks and pose landmarks to mouth landmarks",
    configs=CONFIGS,
    needs=(BASIS_NETWORK,),
    open=HeteroTraining,
    export=export,
)
