"""Constants of `headpose` beside the network: how the training speakers' heads and the signals of their speech move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from services.common.array_types import Float32, Float64
from services.common.errors import InvalidRequest
from services.common.face.head_pose_vectors import POSE_SIZE
from services.motion.basis import LandmarkBasis
from services.motion.features import NUM_CONTENT
from services.motion.predictors.headpose.head_rhythm import (
    LOUDNESS,
    NUM_DRIVES,
    NUM_LAGS,
    NUM_SIGNALS,
    RhythmConstants,
    SignalStream,
)
from services.motion.predictors.headpose.head_style import KNOTS, symmetric_root
from services.motion.predictors.headpose.train.data import LEAST_SPREAD, clip_poses
from services.motion.style import measure_mouth
from services.motion.train.clips import Clips
from services.motion.train.sampling import frame_weights
from services.motion.types import NUM_PHONES, SpeechFeatures

SEED: Final = 3
_COMPONENTS: Final = 12
"""Number of principal components of the content, of which the drives are mixtures."""
_EXPONENT: Final = 0.4
_FREE_SPEECH_FRAMES: Final = 250
"""Clips of at least this length are free speech. Shorter clips are read sentences, whose speakers hold still."""

_CALM: Final = 0.15
"""Largest pace of the general speaker: the small quick nods of read sentences would look nervous at the spread of free speech."""

Poses = Callable[[SpeechFeatures], Float32]
"""The head poses that the trained network itself answers for a whole clip, float32 [T, 6]."""


def headpose_constants(clips: Clips, mouth: LandmarkBasis, poses: Poses) -> dict[str, Float32]:
    """Return the arrays of the constants' file by name, see HeadposeModel and RhythmConstants.

    Args:
        clips: training clips.
        mouth: landmark basis of the style, in which rest mouths are measured.
        poses: the trained network's own head poses over a whole clip.

    Raises:
        InvalidRequest: nobody speaks in the clips.
    """
    rhythm = _rhythm(clips, poses)
    arrays = {
        "pose_mean": rhythm.pose_mean,
        "pose_scale": rhythm.pose_scale,
        "loudness": np.array([rhythm.loudness_mean, rhythm.loudness_scale]),
        "content_mean": rhythm.content_mean,
        "projection": rhythm.projection,
        "autocovariance": rhythm.autocovariance,
        "mean_motion": _mean_motion(clips, mouth),
        **_general_head(clips),
    }
    return {name: np.ascontiguousarray(value, np.float32) for name, value in arrays.items()}


def _mean_motion(clips: Clips, mouth: LandmarkBasis) -> Float64:
    """Return the mean mouth less the rest mouth, with equal weights of speakers: float64 [59, 3]."""
    means = []
    for group in clips.by_speaker().values():
        measured = [measure_mouth(clip.mouth_landmarks[clip.usable], mouth) for clip in group]
        means.append(np.mean([each.mean_mouth - each.rest_mouth for each in measured], axis=0))
    return np.asarray(np.mean(means, axis=0), np.float64)


def _general_head(clips: Clips) -> dict[str, Float64]:
    """Measure spread, correlation and pace of the general speaker.

    Spread and pace are geometric means of two kinds of speakers, readers and free speakers; each kind is a mean over its
    speakers. The pace is limited.
    """
    logs: dict[bool, list[Float64]] = {}
    correlations: dict[bool, list[Float64]] = {}
    for group in clips.by_speaker().values():
        free = len(group[0]) >= _FREE_SPEECH_FRAMES
        poses = np.concatenate([clip_poses(clip)[clip.usable] for clip in group])
        changes = np.concatenate([np.abs(np.diff(clip_poses(clip), axis=0))[clip.usable[1:] & clip.usable[:-1]] for clip in group])
        spread = np.maximum(np.sqrt((poses**2).mean(axis=0)), LEAST_SPREAD)
        pace = np.maximum(np.sqrt(np.pi / 2.0) * changes.mean(axis=0) / spread, LEAST_SPREAD)
        logs.setdefault(free, []).append(np.log([spread, pace]))
        correlations.setdefault(free, []).append((poses / spread).T @ (poses / spread) / len(poses))
    spread, pace = np.exp(np.mean([np.mean(rows, axis=0) for rows in logs.values()], axis=0))
    correlation = np.mean([np.mean(rows, axis=0) for rows in correlations.values()], axis=0)
    correlation = 0.9 * correlation + 0.1 * np.eye(POSE_SIZE)
    quantiles, steps = spread[:, None] * KNOTS, np.minimum(pace, _CALM)
    return {"pose_quantiles": quantiles, "pose_mixing": symmetric_root(correlation), "pose_steps": steps}


def _rhythm(clips: Clips, poses: Poses) -> RhythmConstants:
    weights = frame_weights(clips.rows, _EXPONENT)
    speaking = np.concatenate([w * clip.features.speech_probability for w, clip in zip(weights, clips, strict=True)])
    if not speaking.sum() > 0.0:
        raise InvalidRequest("nobody speaks in the clips of split 'train'; add clips with speech", field="data")
    speaking /= speaking.sum()
    content = np.concatenate([clip.content.astype(np.float64).mean(axis=1) for clip in clips])
    answers = [poses(clip.features) for clip in clips]
    pose = np.concatenate(answers).astype(np.float64)
    loudness = content[:, NUM_PHONES:].mean(axis=1)

    def moments(values: Float64) -> tuple[Float64, Float64]:
        mean = speaking @ values
        return mean, np.sqrt(speaking @ (values - mean) ** 2)

    pose_mean, pose_scale = moments(pose)
    loudness_mean, loudness_scale = moments(loudness)
    centre = speaking @ content
    covariance = ((content - centre) * speaking[:, None]).T @ (content - centre)
    values, vectors = np.linalg.eigh(covariance)
    order = np.argsort(values)[::-1][:_COMPONENTS]
    directions = (vectors[:, order] * np.sign(vectors[np.abs(vectors[:, order]).argmax(axis=0), order])) / np.sqrt(
        np.maximum(values[order], 1e-9)
    )
    mixture, _ = np.linalg.qr(np.random.default_rng(SEED).standard_normal((_COMPONENTS, NUM_DRIVES)))
    projection = (directions @ mixture).T
    assert projection.shape == (NUM_DRIVES, NUM_CONTENT)
    plain = RhythmConstants(
        pose_mean, pose_scale, float(loudness_mean), float(loudness_scale), centre, projection, np.zeros((NUM_LAGS, 1, 1))
    )
    lags, total = np.zeros((NUM_LAGS, NUM_SIGNALS, NUM_SIGNALS)), 0.0
    for clip, answer, weight in zip(clips, answers, weights, strict=True):
        speech = clip.features.speech_probability
        stream = SignalStream(plain)
        rows = np.stack([stream.push(p, c, float(s)) for p, c, s in zip(answer, clip.content, speech, strict=True)])
        for lag in range(min(NUM_LAGS, len(rows) - 1)):
            product = rows[lag:].T @ rows[: len(rows) - lag]
            # The sum is divided by the whole length: far lags of short clips count less, and the estimate stays positive.
            lags[lag] += weight * 0.5 * (product + product.T)
        # Signals are 0 where nobody speaks, so continuous speech is measured.
        total += weight * float(speech.sum())
    assert lags[0, LOUDNESS, LOUDNESS] > 0.0
    return RhythmConstants(pose_mean, pose_scale, float(loudness_mean), float(loudness_scale), centre, projection, lags / total)
