"""Sequences of speech with the expression and the head pose that belong to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from services.common.head_pose_vectors import POSE_SIZE
from services.motion.basis import LandmarkBasis
from services.motion.cepstra import heard_before, heard_rows
from services.motion.expression import expression_spread
from services.motion.features import silence
from services.motion.head_style import relative_poses
from services.motion.networks.audio_to_head_motion import CHANNELS, AudioToHeadMotionConfig
from services.motion.style import measure_mouth
from services.motion.train.clips import TrainingClip, by_speaker
from services.motion.train.expression_data import Filter
from services.motion.types import Bool, Float32, SpeechFeatures

_CENTRE = 2
"""Frames before the predicted one about which the filter hears most."""
_REACH = 3.0
"""Frames from there at which the ridge's penalty is four times the least."""


@dataclass(frozen=True, slots=True)
class HeadMotionClip:
    """One clip, ready to be drawn from.

    Attributes:
        speaker: who it is.
        rows: float32 [T, 4, 64], see cepstra.heard_rows.
        expression: float32 [T, E], from the clip's own rest mouth, in units of its own spread.
        pose: float32 [T, 6], relative pose about the clip's mean, in units of the speaker's spread.
        usable: bool [T].
    """

    speaker: str
    rows: Float32
    expression: Float32
    pose: Float32
    usable: Bool


def clip_poses(clip: TrainingClip) -> npt.NDArray[np.float64]:
    """Relative poses about the mean of the clip's usable frames, float64 [T, 6]; see head_style.relative_poses.

    Raises:
        ValueError: the training set holds no head poses.
    """
    if clip.poses is None:
        raise ValueError(f"{clip.name}: the training set holds no head poses")
    reference = np.median(clip.poses[clip.usable], axis=0)
    relative = relative_poses(clip.poses, reference)
    return np.asarray(relative - relative[clip.usable].mean(axis=0))


def speaker_spreads(clips: list[TrainingClip]) -> dict[str, npt.NDArray[np.float64]]:
    """Standard deviation of each speaker's relative poses within a clip, float64 [6]."""
    return {
        speaker: np.sqrt((np.concatenate([clip_poses(clip)[clip.usable] for clip in group]) ** 2).mean(axis=0))
        for speaker, group in by_speaker(clips).items()
    }


def prepare(clips: list[TrainingClip], mouth: LandmarkBasis, expression: LandmarkBasis) -> list[HeadMotionClip]:
    """Clips with their targets; rest mouth and spread of the mouth are each clip's own, as where the network is used."""
    spreads = speaker_spreads(clips)
    prepared = []
    for clip in clips:
        measured = measure_mouth(clip.mouth_landmarks[clip.usable], mouth)
        spread = expression_spread(measured.spread, mouth, expression)
        coefficients = expression.project(clip.mouth_landmarks - measured.rest_mouth) / spread
        pose = np.clip(clip_poses(clip) / spreads[clip.speaker], -3.0, 3.0)
        rows = heard_rows(clip.features)
        prepared.append(HeadMotionClip(clip.speaker, rows, coefficients.astype(np.float32), pose.astype(np.float32), clip.usable))
    return prepared


def padded_rows(features: SpeechFeatures, config: AudioToHeadMotionConfig) -> Float32:
    """What is heard of a whole clip of T frames with the silence around it: float32 [past + T + ahead, 4, 64]."""
    rows = heard_rows(SpeechFeatures.joined([features, silence(config.ahead)]))
    return np.concatenate([heard_before(config.past), rows])


def fit_filter(
    clips: list[HeadMotionClip], weights: dict[str, float], strength: float, config: AudioToHeadMotionConfig, channels: Bool
) -> Filter:
    """Ridge regression from windows to expression, as for `everybody`: frames far from the predicted one are penalised more.

    Args:
        clips: what is learned from.
        weights: of one clip of each speaker.
        strength: in units of the mean variance of an input.
        config: says how long the window is.
        channels: bool [64], channels that are heard; the others get the weight zero.
    """
    size = CHANNELS * config.window + 1
    gram: npt.NDArray[np.float64] = np.zeros((size, size))
    moment: npt.NDArray[np.float64] = np.zeros((size, clips[0].expression.shape[1]))
    for clip in clips:
        padded = np.pad(clip.rows * channels, ((config.past, config.ahead), (0, 0), (0, 0)), mode="edge")
        windows = np.moveaxis(np.lib.stride_tricks.sliding_window_view(padded, config.window, axis=0), -1, 1)[clip.usable]
        flat = windows.reshape(len(windows), -1)
        inputs = np.concatenate([flat, np.ones((len(flat), 1), np.float32)], axis=1)
        gram += weights[clip.speaker] * (inputs.T @ inputs)
        moment += weights[clip.speaker] * (inputs.T @ clip.expression[clip.usable])
    mean = gram[-1, :-1] / gram[-1, -1]
    variance = (np.diag(gram)[:-1] / gram[-1, -1] - mean**2).mean() * gram[-1, -1]
    distance = np.abs(np.arange(config.window) - config.past + _CENTRE) / _REACH
    penalty = np.append(np.repeat(strength * variance * (1.0 + distance**2) ** 2, CHANNELS), 0.0)
    solution = np.linalg.solve(gram + np.diag(penalty), moment).T
    heard = np.append(np.tile(np.tile(channels, CHANNELS // len(channels)), config.window), True)
    solution = solution * (heard > 0)
    return Filter(solution[:, :-1].astype(np.float32), solution[:, -1].astype(np.float32))


class HeadMotionBatch(NamedTuple):
    """N sequences of T frames: window [N, T + W - 1, 4, 64], expression [N, T, E], pose [N, T, 6], usable [N, T] of 0 and 1."""

    window: Tensor
    expression: Tensor
    pose: Tensor
    usable: Tensor


class HeadMotionSampler:
    """Draws sequences of clips one behind the other; seeded by the generator."""

    def __init__(self, clips: list[HeadMotionClip], weights: dict[str, float], config: AudioToHeadMotionConfig) -> None:
        self._clips, self._config = clips, config
        share = np.array([weights[clip.speaker] * len(clip.rows) for clip in clips])
        self._probability = share / share.sum()

    def draw(self, rng: np.random.Generator, count: int, length: int) -> HeadMotionBatch:
        """`count` sequences of `length` frames."""
        sequences = [self._sequence(rng, length) for _ in range(count)]
        return HeadMotionBatch(*(torch.from_numpy(np.stack(parts)) for parts in zip(*sequences, strict=True)))

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
