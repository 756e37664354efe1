"""Sequences of speech with their expression and head pose, and the closed-form filter from windows to expression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from services.common.array_types import Bool, Float32, Float64
from services.common.face.head_pose_vectors import POSE_SIZE
from services.motion.basis import LandmarkBasis
from services.motion.predictors.headpose.head_style import relative_poses
from services.motion.predictors.headpose.inputs import heard_before, heard_rows
from services.motion.predictors.headpose.network import CHANNELS, HeadposeConfig
from services.motion.train.clips import TrainingClip, by_speaker
from services.motion.train.expression_targets import expression_target
from services.motion.train.ridge import Filter, RidgeSums, distance_penalty


@dataclass(frozen=True, slots=True)
class HeadposeClip:
    """One clip, ready to be drawn from.

    Attributes:
        speaker: name of the speaker.
        rows: float32 [T, 4, 64], see inputs.heard_rows.
        expression: float32 [T, E], see expression_targets.ExpressionTarget.
        pose: float32 [T, 6], relative pose about the clip's mean, in units of the speaker's spread.
        usable: bool [T].
    """

    speaker: str
    rows: Float32
    expression: Float32
    pose: Float32
    usable: Bool


def clip_poses(clip: TrainingClip) -> Float64:
    """Return relative poses about the mean of the clip's usable frames, float64 [T, 6], see head_style.relative_poses.

    Raises:
        ValueError: the training set holds no head poses.
    """
    if clip.poses is None:
        raise ValueError(f"{clip.name}: the training set holds no head poses")
    reference = np.median(clip.poses[clip.usable], axis=0)
    relative = relative_poses(clip.poses, reference)
    return np.asarray(relative - relative[clip.usable].mean(axis=0))


def speaker_spreads(clips: list[TrainingClip]) -> dict[str, Float64]:
    """Return the standard deviation of each speaker's relative poses within a clip, float64 [6] by speaker."""
    return {
        speaker: np.sqrt((np.concatenate([clip_poses(clip)[clip.usable] for clip in group]) ** 2).mean(axis=0))
        for speaker, group in by_speaker(clips).items()
    }


def prepare(clips: list[TrainingClip], mouth: LandmarkBasis, expression: LandmarkBasis) -> list[HeadposeClip]:
    """Prepare clips with their targets.

    Args:
        clips: the clips.
        mouth: landmark basis of the style.
        expression: expression basis.
    """
    spreads = speaker_spreads(clips)
    prepared = []
    for clip in clips:
        target = expression_target(clip, mouth, expression)
        pose = np.clip(clip_poses(clip) / spreads[clip.speaker], -3.0, 3.0)
        rows = heard_rows(clip.features)
        prepared.append(HeadposeClip(clip.speaker, rows, target.coefficients, pose.astype(np.float32), clip.usable))
    return prepared


def fit_filter(
    clips: list[HeadposeClip], weights: dict[str, float], strength: float, config: HeadposeConfig, channels: Bool
) -> Filter:
    """Fit a ridge regression from windows to expression, see ridge.distance_penalty.

    Args:
        clips: training clips.
        weights: weight of one clip of each speaker.
        strength: strength of the penalty, in units of the mean variance of an input.
        config: tells how long the window is.
        channels: bool [64], channels that are heard. The other channels get the weight zero.

    Returns:
        The filter with weight float32 [E, W * 256] (frame by frame) and bias float32 [E].
    """
    sums = RidgeSums(CHANNELS * config.window, clips[0].expression.shape[1])
    for clip in clips:
        padded = np.pad(clip.rows * channels, ((config.past, config.ahead), (0, 0), (0, 0)), mode="edge")
        windows = np.moveaxis(np.lib.stride_tricks.sliding_window_view(padded, config.window, axis=0), -1, 1)[clip.usable]
        flat = windows.reshape(len(windows), -1)
        inputs = np.concatenate([flat, np.ones((len(flat), 1), np.float32)], axis=1)
        sums.add(inputs, clip.expression[clip.usable], weights[clip.speaker])
    penalty = distance_penalty(config.window, config.past, strength * sums.input_variance())
    fitted = sums.solve(np.repeat(penalty, CHANNELS))
    heard = np.tile(np.tile(channels, CHANNELS // len(channels)), config.window)
    return Filter(fitted.weight * heard, fitted.bias)


class HeadposeBatch(NamedTuple):
    """N sequences of T frames: window [N, T + W - 1, 4, 64], expression [N, T, E], pose [N, T, 6], usable [N, T], 0 or 1."""

    window: Tensor
    expression: Tensor
    pose: Tensor
    usable: Tensor


class HeadposeSampler:
    """Sampler of sequences of clips, one clip after the other."""

    def __init__(self, clips: list[HeadposeClip], weights: dict[str, float], config: HeadposeConfig) -> None:
        self._clips, self._config = clips, config
        share = np.array([weights[clip.speaker] * len(clip.rows) for clip in clips])
        self._probability = share / share.sum()

    def draw(self, rng: np.random.Generator, count: int, length: int) -> HeadposeBatch:
        """Draw `count` sequences of `length` frames."""
        sequences = [self._sequence(rng, length) for _ in range(count)]
        return HeadposeBatch(*(torch.from_numpy(np.stack(parts)) for parts in zip(*sequences, strict=True)))

    def _sequence(self, rng: np.random.Generator, length: int) -> tuple[Float32, Float32, Float32, Float32]:
        config = self._config
        total = length + config.ahead
        rows: list[Float32] = []
        expression: list[Float32] = []
        pose: list[Float32] = []
        usable: list[Float32] = []
        held = 0
        while held < total:
            clip = self._clips[rng.choice(len(self._clips), p=self._probability)]
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
