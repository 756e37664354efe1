"""The networks of motion that can be trained: the sync network, and one network a predictor.

The registry of predictors is part of serving, which never reaches training code. So the network of a predictor is found by its
place: the module `train.network` in the predictor's room, with an object NETWORK.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from services.motion import predictors
from services.motion.export import export_sync
from services.motion.predictors.registry import PREDICTORS
from services.motion.train.expression import EXPRESSION
from services.motion.train.sync import SyncTraining
from services.motion.train.sync_batches import CONFIGS
from services.training.networks import Preparation, TrainableNetwork

SYNC: Final = TrainableNetwork(
    name="sync",
    stage="motion",
    summary="embeddings of sound and mouth, which tell the lag between them",
    configs=CONFIGS,
    open=SyncTraining,
    export=export_sync,
)


def _of_predictors() -> Iterator[TrainableNetwork]:
    """Yield the network of each predictor whose room has a training of a network."""
    for name in PREDICTORS:
        room = f"{predictors.__name__}.{name}"
        if any(find_spec(name) is None for name in (room, f"{room}.train", f"{room}.train.network")):
            continue
        module: Any = import_module(f"{room}.train.network")
        yield module.NETWORK


NETWORKS: Final[tuple[TrainableNetwork, ...]] = (SYNC, *_of_predictors())
PREPARATIONS: Final[tuple[Preparation, ...]] = (EXPRESSION,)
