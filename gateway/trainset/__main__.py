"""`python -m gateway.trainset build FOLDER --output DIR`: a training set from a folder of clips."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gateway.trainset.build import Built, build
from gateway.trainset.stages import local_stages
from services.common.errors import DubstageError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit code."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True, highlight=False)
    try:
        built = asyncio.run(_build(options, console))
    except DubstageError as error:
        console.print(f"error: {error.message}", markup=False)
        return error.exit_code
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from here")
        return 130
    for entry, why in built.left_out.items():
        console.print(f"left out: {entry.file}: {why}", markup=False)
    frames = sum(facts.frames for facts in built.taken.values())
    speakers = len({entry.speaker for entry in built.taken})
    print(f"{len(built.taken)} clips of {speakers} speakers, {frames} frames, in {options.output}")
    return 0


async def _build(options: argparse.Namespace, console: Console) -> Built:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    async with local_stages(with_lags=not options.no_lags) as stages:
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task("clips", total=None)

            def on_clip(done: int, total: int, file: str, frame: int) -> None:
                progress.update(task, completed=done, total=total, description=f"{file} {frame or ''}")

            return await build(
                stages,
                options.folder,
                options.output,
                uses=frozenset(options.uses.split(",")),
                with_lags=not options.no_lags,
                on_clip=on_clip,
            )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gateway.trainset", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("build", help="Build or complete a training set.")
    command.add_argument("folder", type=Path, help="Folder of clips, with or without a catalogue.csv.")
    command.add_argument("--output", type=Path, required=True, help="Folder of the training set.")
    command.add_argument(
        "--uses",
        default="train,val",
        help="Values of the catalogue's column `use` to take, separated by commas. Default: %(default)s.",
    )
    command.add_argument(
        "--no-lags",
        action="store_true",
        help="Do not measure lags with the sync network: for the set that the sync network is trained on.",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
