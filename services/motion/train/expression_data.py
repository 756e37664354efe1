"""Windows of ID-removed speech with the expression that belongs to them, and the closed-form filter between the two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from services.motion.basis import LandmarkBasis
from services.motion.expression import expression_spread
from services.motion.expression_window import EXPRESSION_PAST, EXPRESSION_WINDOW, NUM_HEARD
from services.motion.predict_expression import heard_clip
from services.motion.style import measure_mouth
from services.motion.train.clips import TrainingClip, by_speaker
from services.motion.types import NUM_CEPSTRA, ROWS_PER_FRAME, Float32

FILTER_CENTRE: Final = 2
"""Frames before the predicted one about which the filter hears most."""
FILTER_REACH: Final = 3.0
"""Frames from there at which the penalty is four times the least."""


@dataclass(frozen=True, slots=True)
class ExpressionClip:
    """One clip, ready to be drawn from.

    Attributes:
        speaker: who it is.
        rows: float32 [20 + T + 4, 4, 24], what is heard of it with the silence around.
        expression: float32 [T, E], from the clip's own rest mouth, in units of its own spread.
        spread: float32 [E].
        usable: indices of the usable frames.
    """

    speaker: str
    rows: Float32
    expression: Float32
    spread: Float32
    usable: npt.NDArray[np.intp]


def silent_row(clips: list[TrainingClip]) -> Float32:
    """Mean ID-removed row of the frames in which nobody speaks, float32 [20]: what is taken to lie around a clip."""
    rows = [
        clip.features.identity_removed[clip.features.speech_probability < 0.02].reshape(-1, NUM_CEPSTRA)
        for clip in clips
        if clip.features.identity_removed is not None
    ]
    return np.asarray(np.concatenate(rows).mean(axis=0), np.float32)


def prepare(clips: list[TrainingClip], mouth: LandmarkBasis, expression: LandmarkBasis, silence: Float32) -> list[ExpressionClip]:
    """Clips with ID-removed features; rest mouth and spread are each clip's own, as where the network is used."""
    prepared = []
    for clip in clips:
        measured = measure_mouth(clip.mouth_landmarks[clip.usable], mouth)
        spread = expression_spread(measured.spread, mouth, expression)
        coefficients = expression.project(clip.mouth_landmarks - measured.rest_mouth) / spread
        rows = heard_clip(clip.features, silence)
        prepared.append(ExpressionClip(clip.speaker, rows, coefficients.astype(np.float32), spread, np.flatnonzero(clip.usable)))
    return prepared


def speaker_weights(clips: list[TrainingClip], exponent: float) -> dict[str, float]:
    """Weight of one clip of each speaker, so that a speaker with m clips counts m to the power of `exponent`."""
    return {speaker: float(len(group)) ** (exponent - 1.0) for speaker, group in by_speaker(clips).items()}


@dataclass(frozen=True, slots=True)
class Filter:
    """Linear filter of a window: weight float32 [E, 2400], bias float32 [E]."""

    weight: Float32
    bias: Float32


def fit_filter(clips: list[ExpressionClip], weights: dict[str, float], strength: float) -> Filter:
    """Ridge regression from windows to expression; `strength` in units of the mean variance of an input.

    Frames far from the one that is predicted are penalised by the square of their distance: they can tell the sentence of a closed
    grammar, and little else.
    """
    size = EXPRESSION_WINDOW * ROWS_PER_FRAME * NUM_HEARD + 1
    gram: npt.NDArray[np.float64] = np.zeros((size, size))
    moment: npt.NDArray[np.float64] = np.zeros((size, clips[0].expression.shape[1]))
    for clip in clips:
        windows = windows_of(clip.rows)[clip.usable].reshape(len(clip.usable), -1)
        inputs = np.concatenate([windows, np.ones((len(windows), 1), np.float32)], axis=1).astype(np.float64)
        gram += weights[clip.speaker] * (inputs.T @ inputs)
        moment += weights[clip.speaker] * (inputs.T @ clip.expression[clip.usable])
    mean = gram[-1, :-1] / gram[-1, -1]
    variance = (np.diag(gram)[:-1] / gram[-1, -1] - mean**2).mean() * gram[-1, -1]
    distance = np.abs(np.arange(EXPRESSION_WINDOW) - EXPRESSION_PAST + FILTER_CENTRE) / FILTER_REACH
    penalty = np.append(np.repeat(strength * variance * (1.0 + distance**2) ** 2, ROWS_PER_FRAME * NUM_HEARD), 0.0)
    solution = np.linalg.solve(gram + np.diag(penalty), moment).T
    return Filter(solution[:, :-1].astype(np.float32), solution[:, -1].astype(np.float32))


def windows_of(rows: Float32) -> Float32:
    """Windows of padded rows [20 + T + 4, 4, 24]: a view [T, 25, 4, 24]."""
    return np.moveaxis(np.lib.stride_tricks.sliding_window_view(rows, EXPRESSION_WINDOW, axis=0), -1, 1)


class ExpressionWindows(NamedTuple):
    """N pairs of neighbouring frames: window float32 [N, 2, 25, 4, 24], expression [N, 2, E], spread [N, E]."""

    window: Tensor
    expression: Tensor
    spread: Tensor


class ExpressionSampler:
    """Draws pairs of neighbouring frames, speakers nearly alike, features a little disturbed; seeded by the generator."""

    def __init__(self, clips: list[ExpressionClip], weights: dict[str, float], noise: float, level: float) -> None:
        self._clips = clips
        share = np.array([weights[clip.speaker] for clip in clips])
        self._probability = share / share.sum()
        self._noise, self._level = noise, level

    def draw(self, rng: np.random.Generator, count: int) -> ExpressionWindows:
        """`count` pairs."""
        windows: list[Float32] = []
        expressions: list[Float32] = []
        spreads: list[Float32] = []
        while len(windows) < count:
            clip = self._clips[rng.choice(len(self._clips), p=self._probability)]
            frame = int(clip.usable[rng.integers(len(clip.usable))])
            if frame + 1 >= len(clip.expression):
                continue
            rows = clip.rows[frame : frame + EXPRESSION_WINDOW + 1].copy()
            rows += rng.normal(0.0, self._level, NUM_HEARD).astype(np.float32)
            rows += rng.normal(0.0, self._noise, rows.shape).astype(np.float32)
            windows.append(np.stack([rows[:-1], rows[1:]]))
            expressions.append(clip.expression[frame : frame + 2])
            spreads.append(clip.spread)
        return ExpressionWindows(*(torch.from_numpy(np.stack(part)) for part in (windows, expressions, spreads)))
