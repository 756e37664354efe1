"""The command line that the trainings share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

from services.motion.train.clips import TrainingClip, load_clips
from services.motion.train.loop import LoopConfig


class ClipSets(NamedTuple):
    """Clips to learn from, and clips to select on and to look at."""

    training: list[TrainingClip]
    selection: list[TrainingClip]


def training_parser(description: str | None, out: str, loop: LoopConfig) -> argparse.ArgumentParser:
    """Options --trainset, --lags, --out, --steps and --seed.

    Args:
        description: of the training.
        out: default of --out.
        loop: defaults of --steps and --seed.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainset", type=Path, required=True, help="training set: a folder with clips/ and features/")
    parser.add_argument("--lags", type=Path, help="JSON file of lags that the sync network found")
    parser.add_argument("--out", type=Path, default=Path(out), help="folder for checkpoints and curves")
    parser.add_argument("--steps", type=int, default=loop.steps)
    parser.add_argument("--seed", type=int, default=loop.seed)
    return parser


def clip_sets(trainset: Path, lags: Path | None) -> ClipSets:
    """Clips of --trainset: `train`, and `val` with `dev`."""
    return ClipSets(
        load_clips(trainset, uses=frozenset({"train"}), lags=lags), load_clips(trainset, uses=frozenset({"val", "dev"}), lags=lags)
    )
