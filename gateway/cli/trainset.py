"""`dubstage trainset`: make a training set from a folder of clips."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.app import app
from gateway.trainset.__main__ import main as trainset_main
from services.common.errors import InvalidRequest


@app.command("trainset")
def trainset(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of clips. The folder may have a catalogue.csv.")],
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder to write the training set to. An unfinished training set is completed.")
    ],
) -> None:
    """Track all clips of FOLDER, extract features, find the lags of the sound, split the clips by speaker, and write a manifest."""
    if not os.path.isdir(folder):
        raise InvalidRequest(f"{folder}: no such folder; give a folder of clips", field="folder")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise InvalidRequest(f"{output} cannot be written: {problem.strerror}; choose another folder", field="output") from problem
    raise typer.Exit(trainset_main(["build", str(folder), "--output", str(output)]))
