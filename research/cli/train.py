"""`dubstage train`: train a network, or all, from a training set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from gateway.cli.app import app, require_extra
from gateway.cli.console import say_json, say_result, wants_json
from gateway.cli.options import AsJson
from gateway.cli.values import named_paths
from services.common.errors import InvalidRequestError

ALL: Final = "all"
LIST: Final = "list"
EXTRA: Final = "train"
"""Extra of the suite with the packages of trainings and exports."""


@app.command("train")
def train(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="Name of a network; `all` for all, `list` for the names.")],
    data: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Training set, made by `dubstage trainset`.")] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of the run. With `all`: folder that gets one run a network.")
    ] = None,
    config: Annotated[
        str, typer.Option(metavar="FILE", help="Preset (default, large), or TOML file with settings that differ from a preset.")
    ] = "default",
    device: Annotated[
        str, typer.Option(metavar="cpu|cuda", help="Device that trains. Start several processes with torchrun.")
    ] = "cpu",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that the folder holds.")] = False,
    steps: Annotated[
        int | None, typer.Option(min=1, metavar="NUMBER", help="Optimiser steps, in place of the configuration's number.")
    ] = None,
    using: Annotated[
        list[str] | None,
        typer.Option(metavar="NETWORK=RUN", help="Run of another network to build on, in place of the committed one. Repeatable."),
    ] = None,
    _: AsJson = False,
) -> None:
    """Train NETWORK from a training set, show the progress, and write curves, checkpoints, weights and a card."""
    # PyTorch takes a second to import, so it is imported only for a training.
    from research.training.command import TrainOrder, describe_networks, network_facts, train_all, train_one

    if network == LIST:
        for line in describe_networks().splitlines():
            say_result(line)
        if wants_json():
            say_json({"networks": network_facts()})
        return
    if data is None or output is None:
        raise InvalidRequestError(
            "give a training set with --data FOLDER, and a folder of the run with --output FOLDER", field="data"
        )
    # The export of the finished run needs these packages.
    require_extra(EXTRA, "training")
    runs = named_paths(using or (), option="using")
    order = TrainOrder(data=data, config=config, device=device, resume=resume, steps=steps, runs=runs)
    if network == ALL:
        train_all(order, output)
    else:
        train_one(order, network, output)
    if wants_json():
        say_json({"outputUri": str(output)})
