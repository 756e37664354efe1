"""`dubstage trainset`: make a training set from a folder of videos and recordings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from gateway.cli.app import app
from gateway.cli.console import say, say_output
from gateway.cli.options import AsJson
from gateway.cli.progress import StepProgress
from gateway.cli.values import names_in
from research.training.trainset import ClipRow
from research.trainset.build import BuildOrder, build, prepare
from services.common.errors import InvalidRequestError, WorkCancelledError

_MOST_PROCESSES: Final = 8
"""Most processes without an option: a machine of many cores may have little memory."""


@app.command("trainset")
def trainset(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder of videos and recordings. The folder may have a catalogue.csv.")
    ],
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder to write the training set to. An unfinished training set is completed.")
    ],
    corpus: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML file that says which files are whose, and where transcripts and word times are."),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1, max=1024, metavar="NUMBER", help="Processes that work side by side, 1 GB each. Default: one a core, 8 at most."
        ),
    ] = None,
    splits: Annotated[
        str, typer.Option(metavar="NAME,...", help="Splits to take in: values of the catalogue's column `use`.")
    ] = "train,val",
    lags: Annotated[
        bool,
        typer.Option("--lags/--no-lags", help="Measure the lag of the sound. With --no-lags, every lag is 0."),
    ] = True,
    _: AsJson = False,
) -> None:
    """Track the faces of all clips of FOLDER, extract the features of the sound, label phones, and write a manifest.

    The same command completes a set that was interrupted, and takes in clips that were added to FOLDER or changed.
    """
    order = BuildOrder(
        folder=folder,
        output=output,
        splits=_names(splits),
        corpus=corpus,
        processes=processes or min(len(os.sched_getaffinity(0)), _MOST_PROCESSES),
        with_lags=lags,
    )
    try:
        with StepProgress() as progress:
            build(order, progress, say)
            # PyTorch takes a second to import, so it is imported only for a preparation.
            from research.training.networks import preparations

            rows = prepare(order, preparations(), progress, say)
    except KeyboardInterrupt:
        raise WorkCancelledError("interrupted: finished clips are kept; run the same command again to continue") from None
    for line in _summary(rows):
        say(line)
    say_output(output)


def _names(text: str) -> frozenset[str]:
    names = frozenset(names_in(text))
    if not names:
        raise InvalidRequestError(f"--splits takes names, separated by commas, such as train,val, not {text!r}", field="splits")
    return names


def _summary(rows: Sequence[ClipRow]) -> list[str]:
    """Return one line a split."""
    lines = []
    for split in sorted({row.split for row in rows}):
        mine = [row for row in rows if row.split == split]
        faces = sum(row.has_face for row in mine)
        speakers, hours = len({row.speaker for row in mine}), sum(row.seconds for row in mine) / 3600
        lines.append(f"{split}: clips {len(mine)}, speakers {speakers}, hours {hours:.2f}, with a face {faces}")
    return lines
