"""Windows of ID-removed speech with their expression, and the closed-form filter from windows to expression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from services.common.array_types import Float32
from services.motion.basis import LandmarkBasis
from services.motion.predictors.everybody.inputs import FEATURE, NUM_CEPSTRA, NUM_HEARD, WINDOW, WINDOW_PAST, heard_clip
from services.motion.train.clips import TrainingClip
from services.motion.train.expression_targets import expression_target
from services.motion.train.ridge import Filter, RidgeSums, distance_penalty
from services.motion.types import ROWS_PER_FRAME


@dataclass(frozen=True, slots=True)
class EverybodyClip:
    """One clip, ready to be drawn from.

    Attributes:
        speaker: name of the speaker.
        rows: float32 [20 + T + 4, 4, 24], network inputs with the silence around the clip.
        expression: float32 [T, E], see expression_targets.ExpressionTarget.
        spread: float32 [E], the clip's own spread.
        usable: indices of the usable frames.
    """

    speaker: str
    rows: Float32
    expression: Float32
    spread: Float32
    usable: npt.NDArray[np.intp]


def silent_row(clips: list[TrainingClip]) -> Float32:
    """Return the mean ID-removed row of frames in which nobody speaks, float32 [20]: the silence around a clip."""
    rows = [
        clip.features.extra[FEATURE][clip.features.speech_probability < 0.02].reshape(-1, NUM_CEPSTRA)
        for clip in clips
        if FEATURE in clip.features.extra
    ]
    return np.asarray(np.concatenate(rows).mean(axis=0), np.float32)


def prepare(clips: list[TrainingClip], mouth: LandmarkBasis, expression: LandmarkBasis, silence: Float32) -> list[EverybodyClip]:
    """Prepare clips with ID-removed cepstra.

    Args:
        clips: the clips.
        mouth: landmark basis of the style.
        expression: expression basis.
        silence: float32 [20], see silent_row.
    """
    prepared = []
    for clip in clips:
        target = expression_target(clip, mouth, expression)
        rows = heard_clip(clip.features, silence)
        prepared.append(EverybodyClip(clip.speaker, rows, target.coefficients, target.spread, np.flatnonzero(clip.usable)))
    return prepared


def fit_filter(clips: list[EverybodyClip], weights: dict[str, float], strength: float) -> Filter:
    """Fit a ridge regression from windows to expression, see ridge.distance_penalty.

    Args:
        clips: training clips.
        weights: weight of one clip of each speaker.
        strength: strength of the penalty, in units of the mean variance of an input.

    Returns:
        The filter with weight float32 [E, 2400] and bias float32 [E].
    """
    sums = RidgeSums(WINDOW * ROWS_PER_FRAME * NUM_HEARD, clips[0].expression.shape[1])
    for clip in clips:
        windows = windows_of(clip.rows)[clip.usable].reshape(len(clip.usable), -1)
        inputs = np.concatenate([windows, np.ones((len(windows), 1), np.float32)], axis=1).astype(np.float64)
        sums.add(inputs, clip.expression[clip.usable], weights[clip.speaker])
    penalty = distance_penalty(WINDOW, WINDOW_PAST, strength * sums.input_variance())
    return sums.solve(np.repeat(penalty, ROWS_PER_FRAME * NUM_HEARD))


def windows_of(rows: Float32) -> Float32:
    """Return the windows of padded rows [20 + T + 4, 4, 24] as a view [T, 25, 4, 24]."""
    return np.moveaxis(np.lib.stride_tricks.sliding_window_view(rows, WINDOW, axis=0), -1, 1)


class EverybodyWindows(NamedTuple):
    """N pairs of neighbouring frames: window float32 [N, 2, 25, 4, 24], expression [N, 2, E], spread [N, E]."""

    window: Tensor
    expression: Tensor
    spread: Tensor


class EverybodySampler:
    """Sampler of pairs of neighbouring frames with nearly balanced speakers and slightly disturbed features."""

    def __init__(self, clips: list[EverybodyClip], weights: dict[str, float], noise: float, level: float) -> None:
        self._clips = clips
        share = np.array([weights[clip.speaker] for clip in clips])
        self._probability = share / share.sum()
        self._noise, self._level = noise, level

    def draw(self, rng: np.random.Generator, count: int) -> EverybodyWindows:
        """Draw `count` pairs."""
        windows: list[Float32] = []
        expressions: list[Float32] = []
        spreads: list[Float32] = []
        while len(windows) < count:
            clip = self._clips[rng.choice(len(self._clips), p=self._probability)]
            frame = int(clip.usable[rng.integers(len(clip.usable))])
            if frame + 1 >= len(clip.expression):
                continue
            rows = clip.rows[frame : frame + WINDOW + 1].copy()
            rows += rng.normal(0.0, self._level, NUM_HEARD).astype(np.float32)
            rows += rng.normal(0.0, self._noise, rows.shape).astype(np.float32)
            windows.append(np.stack([rows[:-1], rows[1:]]))
            expressions.append(clip.expression[frame : frame + 2])
            spreads.append(clip.spread)
        return EverybodyWindows(*(torch.from_numpy(np.stack(part)) for part in (windows, expressions, spreads)))
