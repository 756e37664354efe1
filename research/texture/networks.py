"""The texture stage's networks that `dubstage train` trains."""

from __future__ import annotations

from typing import Final

from research.texture.temporal_warp import CONFIGS, TemporalWarpTraining, export
from research.training.networks import Preparation, TrainableNetwork

NETWORKS: Final[tuple[TrainableNetwork, ...]] = (
    TrainableNetwork(
        name="temporal_warp",
        stage="texture",
        summary="moves the control points of warped mouth pictures, so that the warp fits better and moves more smoothly",
        configs=CONFIGS,
        open=TemporalWarpTraining,
        export=export,
    ),
)
PREPARATIONS: Final[tuple[Preparation, ...]] = ()
