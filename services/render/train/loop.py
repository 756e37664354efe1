"""Loop around a trainer's steps, and the arguments that the command lines of all trainings have."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import torch

from services.render.train.held_out import ClipName, HeldOut, base_pictures, blended, measure
from services.render.train.recipe import Recipe
from services.render.train.run_folder import RunFolder
from services.render.train.trainer import BatchT, Trainer


def run(
    trainer: Trainer[Any, Any, BatchT, Any], batch: Callable[[int], BatchT], out: Path, clips: Sequence[HeldOut], *, base: str
) -> None:
    """Train, or go on training, until the recipe's last step.

    A run that was killed goes on from its last checkpoint (every `validate_every` steps) and comes to the same weights as a run
    that nothing interrupted.

    Args:
        trainer: the trainer before its first step.
        batch: returns the batch of a step, always the same for the same step. A thread of its own calls this one step ahead.
        out: folder of the run.
        clips: clips to validate on.
        base: name of the picture that the network starts from, for the line of the log with the quality of this picture.

    Raises:
        ValueError: `out` holds a run with another recipe.
    """
    folder, recipe = RunFolder(out), trainer.recipe
    if (held := folder.resume(recipe)) is not None:
        trainer.restore(held)
    for clip in clips:
        print(f"{clip.name}: {base} alone {measure(clip, base_pictures)}", flush=True)
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
            # The checkpoint comes last: a run that is killed before it does all of this again.
            folder.save(trainer.state(), recipe)
    ahead.shutdown(cancel_futures=True)


def parse_arguments(parser: argparse.ArgumentParser, *, out: str, recipe: Recipe) -> argparse.Namespace:
    """Parse a training's own arguments and the arguments that all trainings have; set the number of threads.

    Args:
        parser: parser with the training's own arguments.
        out: default folder of the run.
        recipe: recipe with the default numbers of steps.
    """
    parser.add_argument("--data", type=Path, required=True, help="training set: a folder of *.safetensors")
    parser.add_argument("--out", type=Path, default=Path(out), help="folder of the run. Default: %(default)s")
    parser.add_argument("--steps", type=int, default=recipe.steps, help="steps of both phases together. Default: %(default)s")
    parser.add_argument("--warm-steps", type=int, default=recipe.warm_steps, help="steps of the first phase. Default: %(default)s")
    parser.add_argument(
        "--held-out", nargs=2, action="append", default=[], metavar=("NAME", "USE"), help="clip to validate on; may be repeated"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of the computation. Default: %(default)s")
    given = parser.parse_args()
    given.held_out = [ClipName(given.data, name, use) for name, use in given.held_out]
    torch.set_num_threads(given.threads)
    cv2.setNumThreads(1)
    return given


def _validate(trainer: Trainer[Any, Any, Any, Any], clips: Sequence[HeldOut], folder: RunFolder) -> None:
    figures: dict[str, float] = {}
    columns = []
    for clip in clips:
        found = measure(clip, trainer.draw)
        figures |= {f"{clip.name}_psnr_db": found.psnr_db, f"{clip.name}_sharpness": found.sharpness_ratio}
        some = clip.pairs[:: max(1, len(clip.pairs) // 4)][:4]
        for pair, given, drawn in zip(some, base_pictures(some), trainer.draw(some), strict=True):
            columns.append([blended(pair, given), blended(pair, drawn), pair.target])
    if clips:
        folder.log(trainer.step, figures)
        folder.draw_grid(f"held_out_{trainer.step:05d}", columns)
    folder.draw_curves()
