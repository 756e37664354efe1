"""Sequences of speech with their expression and head pose, and the closed-form filter from windows to expression."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from services.common.array_types import Bool, Float32, Float64
from services.common.face.head_pose_vectors import POSE_SIZE
from services.motion.predictors.headpose.head_style import relative_poses
from services.motion.predictors.headpose.inputs import heard_before, heard_rows
from services.motion.predictors.headpose.network import CHANNELS, HeadposeConfig
from services.motion.predictors.headpose.train.config import HeadposeTrainingConfig
from services.motion.train.clips import Clips, TrainingClip, array_bytes
from services.motion.train.expression_space import ExpressionSpace
from services.motion.train.ridge import Filter, Fitted, RidgeSums, distance_penalty
from services.motion.train.sampling import Draw, clip_chances, frame_weights, tensors
from services.training.trainset.reader import BoundedCache

ArrayT = TypeVar("ArrayT", bound=Float32 | Tensor)
_SPREAD_CLIPS: Final = 32
"""Most clips of a speaker on which the spread of the speaker's poses is measured."""
LEAST_SPREAD: Final = 1e-6
"""Least spread, so that a head that never moves can be divided by it."""


@dataclass(frozen=True, slots=True)
class HeadposeClip:
    """One clip, ready to be drawn from.

    Attributes:
        rows: float32 [T, 4, 64], see inputs.heard_rows.
        expression: float32 [T, E], see expression_space.ExpressionTarget.
        pose: float32 [T, 6], relative pose about the clip's mean, in units of the speaker's spread.
        usable: bool [T].
        apart: name of the narrow corpus that the clip belongs to; empty: none.
    """

    rows: Float32
    expression: Float32
    pose: Float32
    usable: Bool
    apart: str = ""


def clip_poses(clip: TrainingClip) -> Float64:
    """Return relative poses about the mean of the clip's usable frames, float64 [T, 6], see head_style.relative_poses."""
    reference = np.median(clip.poses[clip.usable], axis=0)
    relative = relative_poses(clip.poses, reference)
    return np.asarray(relative - relative[clip.usable].mean(axis=0))


def pose_spread(clips: Clips) -> Float64:
    """Return the standard deviation of one speaker's relative poses within a clip, float64 [6]; few clips are read."""
    poses = np.concatenate([clip_poses(clip)[clip.usable] for clip in clips.evenly(_SPREAD_CLIPS)])
    return np.asarray(np.maximum(np.sqrt((poses**2).mean(axis=0)), LEAST_SPREAD))


def prepare(clip: TrainingClip, space: ExpressionSpace, spread: Float64) -> HeadposeClip:
    """Prepare a clip with its targets.

    Args:
        clip: the clip.
        space: bases of mouths and of expression.
        spread: float64 [6], see pose_spread.
    """
    target = space.target(clip.mouth_landmarks, clip.usable)
    pose = np.clip(clip_poses(clip) / spread, -3.0, 3.0)
    return HeadposeClip(heard_rows(clip.features), target.coefficients, pose.astype(np.float32), clip.usable, clip.apart)


@dataclass(frozen=True, slots=True)
class HeadposeFilter:
    """Filters from windows to expression, over the channels that they hear (bool [64])."""

    fitted: Fitted
    channels: Bool
    config: HeadposeConfig

    def without_its_corpus(self, clip: HeadposeClip) -> HeadposeClip:
        """Return a clip whose expression lacks what holds in the clip's narrow corpus alone, see RidgeSums."""
        alone = self.fitted.apart.get(clip.apart)
        if alone is None:
            return clip
        return replace(clip, expression=clip.expression - alone(_inputs(clip.rows * self.channels, self.config)))


def fit_filter(clips: Clips, space: ExpressionSpace, config: HeadposeTrainingConfig, channels: Bool) -> HeadposeFilter:
    """Fit a ridge regression from windows to expression, see ridge.distance_penalty. All clips are read.

    Args:
        clips: training clips.
        space: bases of mouths and of expression.
        config: length of the window, exponent of the speakers' weights, strength of the penalty.
        channels: bool [64], channels that are heard. The other channels get the weight zero.

    Returns:
        Filters with weight float32 [E, W * 256] (frame by frame) and bias float32 [E].
    """
    sums = RidgeSums(CHANNELS * config.network.window, len(space.expression.typical_spread))
    for clip, weight in zip(clips, frame_weights(clips.rows, config.speaker_exponent), strict=True):
        target = space.target(clip.mouth_landmarks, clip.usable)
        rows = heard_rows(clip.features) * channels
        add_to(sums, rows, target.coefficients, clip.usable, float(weight), config.network, clip.apart)
    return HeadposeFilter(solved(sums, config.filter_strength, config.network, channels), channels, config.network)


def add_to(
    sums: RidgeSums, rows: Float32, expression: Float32, usable: Bool, weight: float, config: HeadposeConfig, apart: str = ""
) -> None:
    """Add the usable frames of a clip to the sums of a regression from windows to expression."""
    sums.add(_inputs(rows, config)[usable], expression[usable], weight, apart)


def _inputs(rows: Float32, config: HeadposeConfig) -> Float32:
    """Return the window of each frame of rows [T, 4, 64] in a row: float32 [T, W * 256]."""
    padded = np.pad(rows, ((config.past, config.ahead), (0, 0), (0, 0)), mode="edge")
    windows = np.moveaxis(np.lib.stride_tricks.sliding_window_view(padded, config.window, axis=0), -1, 1)
    return windows.reshape(len(windows), -1)


def solved(sums: RidgeSums, strength: float, config: HeadposeConfig, channels: Bool) -> Fitted:
    """Return the filters of the sums.

    Args:
        sums: sums of a regression from windows.
        strength: strength of the penalty, in units of the mean variance of an input.
        config: tells how long the window is.
        channels: bool [64], channels that are heard. The other channels get the weight zero.
    """
    penalty = distance_penalty(config.window, config.past, strength * sums.input_variance())
    fitted = sums.solve(np.repeat(penalty, CHANNELS))
    heard = np.tile(np.tile(channels, CHANNELS // len(channels)), config.window)
    return replace(fitted, shared=Filter(fitted.shared.weight * heard, fitted.shared.bias))


class HeadposeBatch(NamedTuple, Generic[ArrayT]):
    """N sequences of T frames: window [N, T + W - 1, 4, 64], expression [N, T, E], pose [N, T, 6], usable [N, T], 0 or 1."""

    window: ArrayT
    expression: ArrayT
    pose: ArrayT
    usable: ArrayT

    def on(self, device: torch.device) -> HeadposeBatch[Tensor]:
        """Return the batch as tensors on a device."""
        return HeadposeBatch(*tensors(self, device))


class HeadposeSampler:
    """Sampler of sequences of clips, one clip after the other.

    Args:
        clips: training clips. They are read when they are drawn.
        space: bases of mouths and of expression.
        linear: filters, of which the network corrects the shared one.
        config: settings.
    """

    def __init__(self, clips: Clips, space: ExpressionSpace, linear: HeadposeFilter, config: HeadposeTrainingConfig) -> None:
        groups = clips.by_speaker()

        def spread_of(speaker: str) -> Float64:
            return pose_spread(groups[speaker])

        def prepared(place: int) -> HeadposeClip:
            return linear.without_its_corpus(prepare(clips[place], space, spreads[clips.rows[place].speaker]))

        spreads = BoundedCache(spread_of, array_bytes)
        self._clips = BoundedCache(prepared, array_bytes)
        self._draw = Draw(clip_chances(clips.rows, config.speaker_exponent))
        self._config = config

    def draw(self, rng: np.random.Generator) -> HeadposeBatch[Float32]:
        """Draw a batch."""
        sequences = [self._sequence(rng, self._config.length) for _ in range(self._config.batch_size)]
        return HeadposeBatch(*(np.stack(parts) for parts in zip(*sequences, strict=True)))

    def _sequence(self, rng: np.random.Generator, length: int) -> tuple[Float32, Float32, Float32, Float32]:
        config = self._config.network
        total = length + config.ahead
        rows: list[Float32] = []
        expression: list[Float32] = []
        pose: list[Float32] = []
        usable: list[Float32] = []
        held = 0
        while held < total:
            clip = self._clips[self._draw(rng)]
            begin = int(rng.integers(0, max(1, len(clip.rows) - total + 1)))
            part = slice(begin, begin + total - held)
            rows.append(clip.rows[part])
            expression.append(clip.expression[part])
            pose.append(clip.pose[part])
            usable.append(clip.usable[part].astype(np.float32))
            held += len(rows[-1])
        window = np.concatenate([heard_before(config.past), *rows])
        ends = [np.concatenate(parts)[:length] for parts in (expression, pose, usable)]
        assert ends[1].shape == (length, POSE_SIZE)
        return window, ends[0], ends[1], ends[2]
