"""The networks of motion that can be trained: the sync network, and one network a predictor.

The registry of predictors is part of serving, which never reaches training code. So the network of a predictor is found by its
path: the module `research.methods.NAME.motion`, with an object NETWORK.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from research import methods
from research.motion.basis import EXPRESSION
from research.motion.export import export_sync
from research.motion.sync import CONFIGS, SyncTraining
from research.training.networks import Preparation, TrainableNetwork
from services.common.methods import PREDICTORS

SYNC: Final = TrainableNetwork(
    name="sync",
    stage="motion",
    summary="embeddings of sound and mouth, which tell the lag between them",
    configs=CONFIGS,
    open=SyncTraining,
    export=export_sync,
)
PREPARATIONS: Final[tuple[Preparation, ...]] = (EXPRESSION,)


def _of_predictors() -> Iterator[TrainableNetwork]:
    """Yield the network of each predictor whose method has a training of a network."""
    for name in PREDICTORS:
        folder = f"{methods.__name__}.{name}"
        if find_spec(folder) is None or find_spec(f"{folder}.motion") is None:
            continue
        module: Any = import_module(f"{folder}.motion")
        if network := getattr(module, "NETWORK", None):
            yield network


NETWORKS: Final[tuple[TrainableNetwork, ...]] = (SYNC, *_of_predictors())
