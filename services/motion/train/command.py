"""The command line that the trainings share."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from services.motion.train.clips import TrainingClip, load_clips
from services.motion.train.loop import LoopConfig


class ClipSets(NamedTuple):
    """Clips to learn from, and clips to select on and to look at."""

    training: list[TrainingClip]
    selection: list[TrainingClip]


def trainset_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options --trainset and --lags."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainset", type=Path, required=True, help="Training set: a folder with clips/ and features/.")
    parser.add_argument("--lags", type=Path, help="JSON file of lags that the sync network found. Default: no lag.")
    return parser


def training_parser(description: str | None, out: str, loop: LoopConfig) -> argparse.ArgumentParser:
    """Return a parser with the options --trainset, --lags, --out, --steps, --seed and --threads.

    Args:
        description: description of the training.
        out: default of --out.
        loop: defaults of --steps, --seed and --threads.
    """
    parser = trainset_parser(description)
    parser.add_argument("--out", type=Path, default=Path(out), help=f"Folder for checkpoints and curves. Default: {out}.")
    parser.add_argument("--steps", type=int, default=loop.steps, help=f"Number of training steps. Default: {loop.steps}.")
    parser.add_argument("--seed", type=int, default=loop.seed, help=f"Random seed. Default: {loop.seed}.")
    parser.add_argument("--threads", type=int, default=loop.threads, help=f"Threads of PyTorch. Default: {loop.threads}.")
    return parser


def loop_of(arguments: argparse.Namespace, loop: LoopConfig) -> LoopConfig:
    """Return the loop with the steps, seed and threads of a training_parser's arguments."""
    return replace(loop, steps=arguments.steps, seed=arguments.seed, threads=arguments.threads)


def clip_sets(trainset: Path, lags: Path | None) -> ClipSets:
    """Return the clips of a training set: `train`, and `val` with `dev`."""
    return ClipSets(
        load_clips(trainset, uses=frozenset({"train"}), lags=lags), load_clips(trainset, uses=frozenset({"val", "dev"}), lags=lags)
    )
