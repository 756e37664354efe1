"""`dubstage plan`: how many replicas of each stage a load needs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from gateway.cli.app import app
from gateway.cli.console import out, say, say_table
from gateway.planning.plan import FIGURES, NUM_SCALES, Load, needs, read_figures
from services.common.methods import DEFAULT_METHOD, METHODS


@app.command("plan")
def plan(
    live: Annotated[int, typer.Option(min=0, max=100_000, metavar="N", help="Live streams at once.")] = 0,
    film_hours: Annotated[float, typer.Option(min=0, max=1e6, metavar="HOURS", help="Hours of film to dub in one night.")] = 0.0,
    night_hours: Annotated[float, typer.Option(min=0.1, max=24, metavar="HOURS", help="Length of the night.")] = 10.0,
    fps: Annotated[float, typer.Option(min=1, max=240, help="Frames a second of streams and films.")] = 25.0,
    method: Annotated[str, typer.Option(metavar="|".join(METHODS), help="Method that dubs.")] = DEFAULT_METHOD,
    scale: Annotated[
        int,
        typer.Option(
            min=1, max=NUM_SCALES, help="Close-ups: 1 for faces up to 220 pixels wide, 2 up to 405, 3 up to 590, 4 for larger ones."
        ),
    ] = 1,
    processors: Annotated[float, typer.Option(min=0.1, max=1024, help="Processors of one replica.")] = 2.0,
    figures: Annotated[
        Path, typer.Option(metavar="FILE.toml", help="Processor time per frame on your machines.", show_default=False)
    ] = FIGURES,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say how many replicas of each stage some live streams and some hours of film a night need.

    The figures are processor time per frame, measured on one kind of machine without a GPU (docs/operations.md).
    """
    load = Load(live_streams=live, film_hours=film_hours, night_hours=night_hours, fps=fps, method=method, scale=scale)
    found = needs(read_figures(figures), load, processors)
    if as_json:
        out.print_json(json.dumps([asdict(need) for need in found]))
        return
    table = Table("stage", "ms per frame", "processors, live", "processors, film", "replicas")
    for need in found:
        table.add_row(
            need.stage,
            f"{need.ms_per_frame:.1f}",
            f"{need.live_processors:.2f}",
            f"{need.film_processors:.2f}",
            str(need.replicas),
        )
    say_table(table)
    total = sum(need.replicas for need in found)
    say(f"{total} replicas of {processors:g} processors: {total * processors:g} processors")
