"""A tiny network and made-up clips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from research.methods.headpose.motion import HeadposeClip, add_to, solved
from research.motion.clips import TrainingClip
from research.motion.ridge import Filter, RidgeSums
from services.motion.features import content_rows, sync_rows
from services.motion.predictors.headpose.network import HeadposeConfig, HeadposeNetwork
from tests.unit.motion.synthesised import head_poses, mouths, random_features

SMALL = HeadposeConfig(num_expression=24, past=2, ahead=1, projection=8, encoded=8, hidden=8, dropout=0.0)


def made(seed: int, num_frames: int = 120) -> HeadposeClip:
    """Expression that follows one channel of the frame itself."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((num_frames, 4, SMALL.num_inputs)).astype(np.float32)
    expression = np.repeat(rows[:, 1, 3:4], SMALL.num_expression, axis=1)
    pose = rng.standard_normal((num_frames, 6)).astype(np.float32)
    return HeadposeClip(rows, expression, pose, np.ones(num_frames, np.bool_))


def fitted(clips: Sequence[HeadposeClip], strength: float) -> Filter:
    sums = RidgeSums(SMALL.channels * SMALL.window, SMALL.num_expression)
    for each in clips:
        add_to(sums, each.rows, each.expression, each.usable, 1.0, SMALL)
    return solved(sums, strength, SMALL).shared


def tracked(seed: int, num_frames: int = 80) -> TrainingClip:
    features = random_features(num_frames, seed)
    opening = 5.0 + 4.0 * np.sin(np.arange(num_frames) * 0.7 + seed)
    return TrainingClip(
        f"clip{seed}", "train", f"speaker{seed}", mouths(opening.astype(np.float32)), np.ones(num_frames, np.bool_), features,
        content_rows(features), sync_rows(features), head_poses(num_frames, seed),
    )  # fmt: skip


def network(seed: int = 0) -> HeadposeNetwork:
    torch.manual_seed(seed)
    return HeadposeNetwork(SMALL).eval()


def zeros(count: int = 1) -> torch.Tensor:
    return torch.zeros(count, SMALL.hidden)
