"""`dubstage export`: turn a training run into the files that a stage serves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.app import app, require_extra
from gateway.cli.console import say_output
from gateway.cli.options import AsJson
from research.cli.train import ALL, EXTRA


@app.command("export")
def export(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="Name of a network (see `dubstage train list`), or `all`.")],
    run: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder of the training run. With `all`: folder with one run a network.")
    ],
    output: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="Folder that gets one folder of weights a stage. Missing networks are added."),
    ],
    _: AsJson = False,
) -> None:
    """Export NETWORK's run to ONNX, compare the ONNX file with PyTorch, and write the file beside the stage's other networks.

    A stage serves the folder that its setting names: DUBSTAGE_AUDIO_WEIGHTS=OUTPUT/audio, and so on.
    """
    # PyTorch takes a second to import, so it is imported only for an export.
    from research.training.command import export_all, export_run

    require_extra(EXTRA, "an export")

    say_output(*(export_all(run, output) if network == ALL else export_run(network, run, output)))
