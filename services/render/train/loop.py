"""The loop around a trainer's steps, and the arguments of its command line."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import torch

from services.render.train.held_out import HeldOut, blended, measure, textures
from services.render.train.run_folder import RunFolder
from services.render.train.trainer import BatchT, Recipe, Trainer


def run(
    trainer: Trainer[Any, Any, BatchT], batch: Callable[[int], BatchT], out: Path, clips: Sequence[HeldOut], *, shown: str
) -> None:
    """Train, or go on training, until the recipe's last step.

    A run that was killed goes on from its last checkpoint (every `validate_every` steps) to the very weights it would have made.

    Args:
        trainer: as it begins.
        batch: the batch of a step, the same whenever it is asked; called in a thread of its own, one step ahead.
        out: folder of the run.
        clips: to validate on.
        shown: what the network is given to draw on, for the line that says how good that is alone.

    Raises:
        ValueError: `out` holds a run with another recipe.
    """
    folder, recipe = RunFolder(out), trainer.recipe
    if (held := folder.resume(recipe)) is not None:
        trainer.restore(held)
    for clip in clips:
        print(f"{clip.name}: {shown} alone {measure(clip, textures)}", flush=True)
    started = time.monotonic()
    ahead = ThreadPoolExecutor(1)
    following = ahead.submit(batch, trainer.step)
    while trainer.step < recipe.steps:
        current = following.result()
        following = ahead.submit(batch, trainer.step + 1)
        report = trainer.train_step(current)
        if trainer.step % recipe.report_every == 0:
            folder.log(trainer.step, {**report, "minutes": (time.monotonic() - started) / 60})
        if trainer.step % recipe.validate_every == 0 or trainer.step == recipe.steps:
            _validate(trainer, clips, folder)
            trainer.write(out)
            # The checkpoint last: a run that is killed before it does all of this again.
            folder.save(trainer.state(), recipe)
    ahead.shutdown(cancel_futures=True)


def parse_arguments(parser: argparse.ArgumentParser, *, out: str, recipe: Recipe) -> argparse.Namespace:
    """A training's own arguments and those that all have; sets the threads that were asked for.

    Args:
        parser: with the training's own arguments.
        out: the folder of the run where none is given.
        recipe: has the steps where none are given.
    """
    parser.add_argument("--out", type=Path, default=Path(out), help="folder of the run")
    parser.add_argument("--steps", type=int, default=recipe.steps)
    parser.add_argument("--warm-steps", type=int, default=recipe.warm_steps)
    parser.add_argument("--held-out", nargs=2, action="append", default=[], metavar=("NAME", "USE"))
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    cv2.setNumThreads(1)
    return given


def _validate(trainer: Trainer[Any, Any, Any], clips: Sequence[HeldOut], folder: RunFolder) -> None:
    figures: dict[str, float] = {}
    columns = []
    for clip in clips:
        found = measure(clip, trainer.draw)
        figures |= {f"{clip.name}_psnr_db": found.psnr_db, f"{clip.name}_sharpness": found.sharpness_ratio}
        some = clip.pairs[:: max(1, len(clip.pairs) // 4)][:4]
        for pair, given, drawn in zip(some, textures(some), trainer.draw(some), strict=True):
            columns.append([blended(pair, given), blended(pair, drawn), pair.target])
    if clips:
        folder.log(trainer.step, figures)
        folder.draw_grid(f"held_out_{trainer.step:05d}", columns)
    folder.draw_curves()
