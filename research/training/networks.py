"""The networks that can be trained, by name, and the preparations of a training set.

Each stage lists its own in `research.STAGE.networks`. The list is found by its path, because this package knows no stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from research.training.device import Device
from research.training.run_folder import read_config
from research.training.training import Training
from research.training.trainset import TrainSet
from services.common.errors import InvalidRequestError

STAGES: Final = ("audio", "face", "motion", "texture", "render")


@dataclass(frozen=True, slots=True)
class Opening:
    """Arguments with which a training is opened.

    Attributes:
        config: the configuration, of the type of the network's presets.
        device: where this process computes.
        runs: folders of runs of other networks, by name of the network. A network that is not among them is the one that
            comes with dubstage.
    """

    config: Any
    data: TrainSet
    device: Device
    runs: Mapping[str, Path]

    def run_of(self, network: str) -> Path | None:
        """Return the folder of another network's run; None: there is none, take the weights that come with dubstage.

        Raises:
            InvalidRequestError: the folder holds no run of this network.
        """
        run = self.runs.get(network)
        if run is not None:
            read_config(run, network)
        return run


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainableNetwork:
    """A network that `dubstage train` trains.

    Attributes:
        name: name on the command line.
        stage: stage that serves the network.
        summary: one sentence: what the network does.
        configs: presets by name: `default`, the sizes of the committed network, and `large`, a published size for a GPU. All have
            the same dataclass type, with a field `loop` of type LoopSettings.
        needs: networks whose runs the training uses if they are given; `train all` trains them before.
        open: opens a training.
        export: writes the files that the stage serves from a run: (run, folder of weights) -> paths of the files. None: the network
            is only used in training; its run is its result.
    """

    name: str
    stage: str
    summary: str
    configs: Mapping[str, Any]
    needs: tuple[str, ...] = ()
    open: Callable[[Opening], Training[Any]]
    export: Callable[[Path, Path], Sequence[Path]] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Preparation:
    """A step that completes a training set before training.

    Attributes:
        name: name on the command line.
        summary: one sentence: what the step adds.
        prepare: completes the set: (folder of the set, folder of the clips, processes, progress) -> reasons by clip for what is
            missing. `progress` is called with the number of clips done and of all clips. What is done already is not done again.
    """

    name: str
    summary: str
    prepare: Callable[[Path, Path, int, Callable[[int, int], None]], Mapping[str, str]]


def networks() -> dict[str, TrainableNetwork]:
    """Return all networks by name, in an order in which each comes after those that it needs."""
    listed: dict[str, TrainableNetwork] = {network.name: network for stage in STAGES for network in _listing(stage).NETWORKS}
    ordered: dict[str, TrainableNetwork] = {}

    def add(name: str) -> None:
        for needed in listed[name].needs:
            add(needed)
        ordered.setdefault(name, listed[name])

    for name in listed:
        add(name)
    return ordered


def network_named(name: str) -> TrainableNetwork:
    """Return a network by its name.

    Raises:
        InvalidRequestError: there is no such network; the message lists the names.
    """
    by_name = networks()
    if name not in by_name:
        raise InvalidRequestError(f"there is no network {name[:80]!r} to train; there are {', '.join(by_name)}", field="network")
    return by_name[name]


def preparations() -> tuple[Preparation, ...]:
    """Return the preparations of all stages in their order."""
    return tuple(step for stage in STAGES for step in _listing(stage).PREPARATIONS)


def _listing(stage: str) -> Any:
    return import_module(f"research.{stage}.networks")
