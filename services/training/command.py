"""What `dubstage train` and `dubstage export` do."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path

from rich.console import Console

from services.common.errors import InvalidRequest
from services.common.store.folder_lock import make_folder
from services.common.store.full_disk import told_of_full_disk
from services.training.configuration import DEFAULT, configuration, with_settings
from services.training.device import Device, open_device
from services.training.loop import train
from services.training.networks import Opening, TrainableNetwork, network_named, networks
from services.training.run_folder import CONFIG, RunFolder, read_config
from services.training.trainset.reader import TrainSet


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainOrder:
    """What is to be trained, and how.

    Attributes:
        data: folder of the training set.
        config: name of a preset, or path of a TOML file.
        device: `cpu` or `cuda`.
        resume: whether to go on with runs that are there already.
        steps: optimiser steps; None: as the configuration says.
        runs: folders of runs of other networks to build on, by name of the network.
    """

    data: Path
    config: str = DEFAULT
    device: str = "cpu"
    resume: bool = False
    steps: int | None = None
    runs: Mapping[str, Path] = field(default_factory=dict)


def describe_networks() -> str:
    """Return one line a network: name, stage, presets, networks that it builds on, what it does."""
    rows = [
        (network.name, network.stage, ", ".join(network.configs), ", ".join(network.needs) or "-", network.summary)
        for network in networks().values()
    ]
    table = [("network", "stage", "presets", "builds on", "what the network does"), *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in table)


def train_one(order: TrainOrder, name: str, output: Path) -> None:
    """Train one network.

    Args:
        order: what to train with.
        name: the network's name.
        output: folder of the run.

    Raises:
        InvalidRequest: something of the order cannot be used; see the message.
        StorageFull: no space is left in the folder of the run.
    """
    network, data = network_named(name), TrainSet(order.data)
    with open_device(order.device) as device:
        _train(order, network, data, device, output)


def train_all(order: TrainOrder, output: Path) -> None:
    """Train all networks one after another, each on the runs of those that it builds on.

    A run that is complete is not trained again if `order.resume` is set.

    Args:
        order: what to train with. A TOML file holds one table a network, named like the network.
        output: folder that gets one run a network.

    Raises:
        InvalidRequest: something of the order cannot be used; see the message.
        StorageFull: no space is left in the folder of the run.
    """
    data, runs = TrainSet(order.data), dict(order.runs)
    with open_device(order.device) as device:
        for name, network in networks().items():
            if name in runs:
                continue
            folder = output / name
            built_on = replace(order, runs=runs, resume=order.resume and (folder / CONFIG).is_file())
            _train(built_on, network, data, device, folder, table=name)
            runs[name] = folder


def export_run(name: str, run: Path, output: Path) -> Sequence[Path]:
    """Export a run into a folder of weights, and return the paths of the files.

    The folder of weights begins as a copy of the stage's own, so that a stage can serve it at once.

    Args:
        name: the network's name.
        run: folder of the training run.
        output: folder that gets one folder of weights a stage.

    Raises:
        InvalidRequest: there is no such network, the network is not served, the folder holds no run of the network, or `output` is
            no folder.
        StorageFull: no space is left in `output`.
        DubstageError: the exported file differs from PyTorch by more than the stated tolerance; nothing was written.
    """
    network = network_named(name)
    if network.export is None:
        raise InvalidRequest(f"network {name!r} is only used in training: it has no export, its run is its result", field="network")
    read_config(run, name)
    folder = output / network.stage
    with _in_output(output):
        make_folder(output)
        if not folder.exists():
            _copy_weights(network.stage, folder)
        make_folder(folder)
        return network.export(run, folder)


def export_all(runs: Path, output: Path) -> Sequence[Path]:
    """Export all runs of networks that are served, and return the paths of the files.

    Args:
        runs: folder with one run a network, as `train_all` writes it.
        output: folder that gets one folder of weights a stage.

    Raises:
        InvalidRequest: the folder holds no run of a network that is served, or `output` is no folder.
        StorageFull: no space is left in `output`.
        DubstageError: an exported file differs from PyTorch; the networks before it are exported.
    """
    found = [name for name, network in networks().items() if network.export is not None and (runs / name / CONFIG).is_file()]
    if not found:
        raise InvalidRequest(f"{runs} holds no run of a network that is served; train with `dubstage train all`", field="run")
    return [path for name in found for path in export_run(name, runs / name, output)]


def _train(order: TrainOrder, network: TrainableNetwork, data: TrainSet, device: Device, output: Path, *, table: str = "") -> None:
    config = configuration(network.configs, order.config, table=table)
    if order.steps is not None:
        config = with_settings(config, {"loop": {"steps": order.steps}}, source="--steps")
    runs = {name: folder for name, folder in order.runs.items() if name in network.needs}
    unknown = sorted(set(order.runs) - set(networks()))
    if unknown:
        raise InvalidRequest(f"--using {unknown[0]}: there is no such network; see `dubstage train list`", field="using")
    folder = RunFolder(output, network.name, asdict(config))
    with folder.held() if device.is_first else nullcontext(), _in_output(output):
        # Before the training is opened, which takes minutes on a large set.
        folder.checkpoint(resume=order.resume)
        training = network.open(Opening(config, data, device, runs))
        train(training, folder, resume=order.resume, title=network.name, console=Console(stderr=True))


def _in_output(output: Path) -> AbstractContextManager[None]:
    """Translate errors of a full disk, for code that writes to the folder of a run or to folders of weights."""
    return told_of_full_disk(f"no space left in {output}: free some, or choose another folder", output)


def _copy_weights(stage: str, folder: Path) -> None:
    weights = Path(str(import_module(f"services.{stage}").__file__)).with_name("weights")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        # shutil.copytree would raise an error of its own kind, which no longer says that the disk is full.
        for path in weights.rglob("*"):
            if path.is_file():
                copy = partial / path.relative_to(weights)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, copy)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
