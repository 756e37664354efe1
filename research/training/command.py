"""The commands `dubstage train` and `dubstage export`, configurations (presets and TOML files), and command lines of tools."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from pydantic import TypeAdapter, ValidationError
from rich.console import Console

from research.training.device import Device, open_device
from research.training.folder_lock import make_folder
from research.training.loop import train
from research.training.networks import Opening, TrainableNetwork, network_named, networks
from research.training.run_folder import CONFIG, RunFolder, read_config
from research.training.trainset import TrainSet
from services.common.errors import DubstageError, InvalidRequestError
from services.common.files import translating_full_disk

ConfigT = TypeVar("ConfigT")

DEFAULT: Final = "default"
"""Name of the preset with the sizes of the committed network."""
_PRESET_KEY: Final = "preset"
P = ParamSpec("P")


def configuration(presets: Mapping[str, ConfigT], wanted: str, *, table: str = "") -> ConfigT:
    """Return a configuration by the name of a preset, or by the path of a TOML file.

    A TOML file holds only the settings that differ from a preset, in tables that are named like the fields of the configuration.
    The key `preset` names the preset; without the key it is `default`.

    Args:
        presets: configurations by name, with `default` among them. A configuration is a dataclass, perhaps of dataclasses.
        wanted: name of a preset, or path of a file.
        table: table of the file that holds the settings; empty: the whole file. A file without the table changes nothing.

    Raises:
        InvalidRequestError: there is no such preset or file, the file is not TOML, or a setting is unknown or has a wrong type. The
            message names file and setting.
    """
    if wanted in presets:
        return presets[wanted]
    path = Path(wanted)
    if not path.is_file():
        raise InvalidRequestError(
            f"{wanted}: neither a preset ({', '.join(presets)}) nor a TOML file; give one of these names, or a file", field="config"
        )
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise InvalidRequestError(f"{path}: not a TOML file: {problem}", field="config") from problem
    if table:
        given = given.get(table, {})
        if not isinstance(given, dict):
            raise InvalidRequestError(f"{path}: {table}: a table was expected, not {given!r}", field="config")
    preset = given.pop(_PRESET_KEY, DEFAULT)
    if preset not in presets:
        raise InvalidRequestError(f"{path}: preset {preset!r} is not one of {', '.join(presets)}", field="config")
    return with_settings(presets[preset], given, source=str(path))


def with_settings(base: ConfigT, given: Mapping[str, Any], *, source: str) -> ConfigT:
    """Return a configuration with some settings changed.

    Args:
        given: new values by the names of the fields; a mapping for a field that is itself a dataclass.
        source: name of the source of the values, for messages.

    Raises:
        InvalidRequestError: a setting is unknown or has a wrong type.
    """
    merged = _merged(base, given, source, "")
    try:
        config: ConfigT = TypeAdapter(type(base)).validate_python(merged)
    except ValidationError as error:
        first = error.errors()[0]
        setting = ".".join(str(part) for part in first["loc"])
        raise InvalidRequestError(f"{source}: {setting}: {first['msg']}, not {first['input']!r}", field="config") from error
    return config


def _merged(base: object, given: Mapping[str, Any], source: str, prefix: str) -> dict[str, Any]:
    assert is_dataclass(base)
    names = {each.name for each in fields(base)}
    values: dict[str, Any] = {name: getattr(base, name) for name in names}
    for name, value in given.items():
        if name not in names:
            raise InvalidRequestError(
                f"{source}: there is no setting {prefix}{name}; there are {', '.join(sorted(names))}", field="config"
            )
        if is_dataclass(values[name]):
            if not isinstance(value, Mapping):
                raise InvalidRequestError(f"{source}: {prefix}{name}: a table was expected, not {value!r}", field="config")
            values[name] = _merged(values[name], value, source, f"{prefix}{name}.")
        else:
            values[name] = value
    return {name: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value for name, value in values.items()}


def data_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the option --data."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Training set, made by `dubstage trainset`.")
    return parser


def command_line(main: Callable[P, int]) -> Callable[P, int]:
    """Return a main function that answers a DubstageError with one line on stderr and the error's exit code."""

    @wraps(main)
    def answered(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except DubstageError as error:
            print(f"error: {error.message}", file=sys.stderr)
            return error.exit_code

    return answered


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainOrder:
    """Order of a training: the network, the data and the options.

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


def network_facts() -> list[dict[str, object]]:
    """Return what `describe_networks` tells as JSON values."""
    return [
        {
            "network": network.name,
            "stage": network.stage,
            "presets": list(network.configs),
            "needs": list(network.needs),
            "summary": network.summary,
        }
        for network in networks().values()
    ]


def train_one(order: TrainOrder, name: str, output: Path) -> None:
    """Train one network.

    Args:
        output: folder of the run.

    Raises:
        InvalidRequestError: something of the order cannot be used; see the message.
        StorageFullError: no space is left in the folder of the run.
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
        InvalidRequestError: something of the order cannot be used; see the message.
        StorageFullError: no space is left in the folder of the run.
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
        output: folder that gets one folder of weights a stage.

    Raises:
        InvalidRequestError: there is no such network, the network is not served, the folder holds no run of the network, or
            `output` is no folder or lies in the weights that the stage serves.
        StorageFullError: no space is left in `output`.
        DubstageError: the exported file differs from PyTorch by more than the stated tolerance; nothing was written.
    """
    network = network_named(name)
    if network.export is None:
        raise InvalidRequestError(
            f"network {name!r} is only used in training: it has no export, its run is its result", field="network"
        )
    read_config(run, name)
    folder = output / network.stage
    served = _served_weights(network.stage)
    if folder.resolve().is_relative_to(served.resolve()):
        raise InvalidRequestError(
            f"{output} lies in {served}, the weights that the stage serves; give another folder", field="output"
        )
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
        InvalidRequestError: the folder holds no run of a network that is served, or `output` is no folder.
        StorageFullError: no space is left in `output`.
        DubstageError: an exported file differs from PyTorch; the networks before it are exported.
    """
    trained = [name for name, network in networks().items() if network.export is not None and (runs / name / CONFIG).is_file()]
    if not trained:
        raise InvalidRequestError(f"{runs} holds no run of a network that is served; train with `dubstage train all`", field="run")
    return [path for name in trained for path in export_run(name, runs / name, output)]


def _train(order: TrainOrder, network: TrainableNetwork, data: TrainSet, device: Device, output: Path, *, table: str = "") -> None:
    config = configuration(network.configs, order.config, table=table)
    if order.steps is not None:
        config = with_settings(config, {"loop": {"steps": order.steps}}, source="--steps")
    runs = {name: folder for name, folder in order.runs.items() if name in network.needs}
    unknown = sorted(set(order.runs) - set(networks()))
    if unknown:
        raise InvalidRequestError(f"--using {unknown[0]}: there is no such network; see `dubstage train list`", field="using")
    folder = RunFolder(output, network.name, asdict(config))
    with folder.held() if device.is_first else nullcontext(), _in_output(output):
        # Before the training is opened, which takes minutes on a large set.
        folder.checkpoint(resume=order.resume)
        training = network.open(Opening(config, data, device, runs))
        train(training, folder, resume=order.resume, title=network.name, console=Console(stderr=True))


def _in_output(output: Path) -> AbstractContextManager[None]:
    """Translate errors of a full disk, for code that writes to the folder of a run or to folders of weights."""
    return translating_full_disk(f"no space left in {output}: free some, or choose another folder", output)


def _served_weights(stage: str) -> Path:
    return Path(str(import_module(f"services.{stage}").__file__)).with_name("weights")


def _copy_weights(stage: str, folder: Path) -> None:
    weights = _served_weights(stage)
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
