"""`dubstage reproduce`: the protocol of a paper on the data at hand, with the paper's figures beside ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli import options
from gateway.cli.app import app, log_on_stderr, require_extra
from gateway.cli.console import say_output
from gateway.cli.values import names_in
from research.cli.train import EXTRA
from services.common.methods import PAPERS


@app.command("reproduce")
@log_on_stderr()
def reproduce(
    paper: Annotated[str, typer.Argument(metavar="PAPER", help=f"One of {', '.join(PAPERS)}.")],
    output: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="Folder for PAPER.md, PAPER.json and the figures of all dubs. Claims that are not measured keep their figures.",
        ),
    ],
    clips: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="CLIP...",
            help="Videos with sound, each of one person who talks, or folders with a catalogue.csv, which stand for the clips of "
            "the paper's protocol. Without clips, nothing is measured on dubs.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="SET", help="Training set, made by `dubstage trainset`. Without it, nothing is measured on one."),
    ] = None,
    claim: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Measure this claim only. Repeatable. Default: all claims.")
    ] = None,
    splits: Annotated[
        str,
        typer.Option(
            metavar="NAME,...", help="Values of the column `use` of catalogue.csv. Default: the uses of the paper's protocol."
        ),
    ] = "",
    quick: Annotated[
        bool, typer.Option("--quick", help="Measure two clips, few frames and short trainings only: minutes in place of hours.")
    ] = False,
    stages: options.Stages = None,
    device: options.Device = None,
    _: options.AsJson = False,
) -> None:
    """Repeat the evaluation of PAPER, and write a page with the paper's figures beside ours and a verdict for each claim.

    Dubs of a run that was interrupted are not made again.
    """
    # PyTorch takes a second to import, so it is imported only for a reproduction.
    from research.reproduce.run import ReproductionRequest, paper_named
    from research.reproduce.run import reproduce as run_reproduction
    from research.training.trainset import TrainSet

    require_extra(EXTRA, "a reproduction")
    protocol = paper_named(paper)
    request = ReproductionRequest(
        paper=protocol,
        claims=tuple(claim or ()),
        clips=protocol.clips(clips or [], names_in(splits), quick=quick),
        splits=tuple(names_in(splits)) or protocol.splits,
        data=TrainSet(data) if data is not None else None,
        output=output,
        quick=quick,
    )
    say_output(run_reproduction(options.gateway_settings(stages, device), request))
