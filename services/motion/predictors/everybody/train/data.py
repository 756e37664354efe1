"""Windows of ID-removed speech with their expression, and the closed-form filter from windows to expression."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from services.common.array_types import Float32
from services.motion.predictors.everybody.inputs import FEATURE, NUM_CEPSTRA, NUM_HEARD, WINDOW, WINDOW_PAST, heard_clip
from services.motion.predictors.everybody.train.config import EverybodyTrainingConfig
from services.motion.train.clips import Clips, TrainingClip, array_bytes
from services.motion.train.expression_space import ExpressionSpace
from services.motion.train.ridge import Fitted, RidgeSums, distance_penalty
from services.motion.train.sampling import Draw, clip_chances, frame_weights, tensors
from services.motion.types import ROWS_PER_FRAME
from services.training.trainset.reader import BoundedCache

ArrayT = TypeVar("ArrayT", bound=Float32 | Tensor)
_QUIET: Final = 0.02
"""Speech probability below which nobody speaks."""


@dataclass(frozen=True, slots=True)
class EverybodyClip:
    """One clip, ready to be drawn from.

    Attributes:
        rows: float32 [20 + T + 4, 4, 24], network inputs with the silence around the clip.
        expression: float32 [T, E], see expression_space.ExpressionTarget.
        spread: float32 [E], the clip's own spread.
        usable: indices of the usable frames.
        apart: name of the narrow corpus that the clip belongs to; empty: none.
    """

    rows: Float32
    expression: Float32
    spread: Float32
    usable: npt.NDArray[np.intp]
    apart: str = ""


def silent_row(clips: Clips) -> Float32:
    """Return the mean ID-removed row of frames in which nobody speaks, float32 [20]: the silence around a clip.

    If there is no such frame, the quietest frame of each clip counts.
    """
    quiet, quietest = [], []
    for clip in clips:
        rows, speaking = clip.features.extra[FEATURE], clip.features.speech_probability
        quiet.append(rows[speaking < _QUIET].reshape(-1, NUM_CEPSTRA))
        quietest.append(rows[int(speaking.argmin())])
    found = quiet if any(len(rows) for rows in quiet) else quietest
    return np.asarray(np.concatenate(found).mean(axis=0), np.float32)


def prepare(clip: TrainingClip, space: ExpressionSpace, silence: Float32) -> EverybodyClip:
    """Prepare a clip with ID-removed cepstra.

    Args:
        clip: the clip.
        space: bases of mouths and of expression.
        silence: float32 [20], see silent_row.
    """
    target, rows = space.target(clip.mouth_landmarks, clip.usable), heard_clip(clip.features, silence)
    return EverybodyClip(rows, target.coefficients, target.spread, np.flatnonzero(clip.usable), clip.apart)


def without_its_corpus(clip: EverybodyClip, fitted: Fitted) -> EverybodyClip:
    """Return a clip whose expression lacks what holds in the clip's narrow corpus alone, see RidgeSums."""
    alone = fitted.apart.get(clip.apart)
    return clip if alone is None else replace(clip, expression=clip.expression - alone(_inputs(windows_of(clip.rows))))


def fit_filter(clips: Clips, space: ExpressionSpace, silence: Float32, config: EverybodyTrainingConfig) -> Fitted:
    """Fit a ridge regression from windows to expression, see ridge.distance_penalty. All clips are read.

    Args:
        clips: training clips.
        space: bases of mouths and of expression.
        silence: float32 [20], see silent_row.
        config: exponent of the speakers' weights, and strength of the penalty.

    Returns:
        Filters with weight float32 [E, 2400] and bias float32 [E].
    """
    sums = RidgeSums(WINDOW * ROWS_PER_FRAME * NUM_HEARD, len(space.expression.typical_spread))
    for clip, weight in zip(clips, frame_weights(clips.rows, config.speaker_exponent), strict=True):
        add_to(sums, prepare(clip, space, silence), float(weight))
    return solved(sums, config.filter_strength)


def add_to(sums: RidgeSums, clip: EverybodyClip, weight: float) -> None:
    """Add the usable frames of a clip to the sums of a regression from windows to expression."""
    inputs = _inputs(windows_of(clip.rows)[clip.usable]).astype(np.float64)
    sums.add(inputs, clip.expression[clip.usable], weight, clip.apart)


def _inputs(windows: Float32) -> Float32:
    """Return windows [N, 25, 4, 24] in a row: float32 [N, 2400]."""
    return windows.reshape(len(windows), -1)


def solved(sums: RidgeSums, strength: float) -> Fitted:
    """Return the filters of the sums.

    Args:
        sums: sums of a regression from windows.
        strength: strength of the penalty, in units of the mean variance of an input.
    """
    penalty = distance_penalty(WINDOW, WINDOW_PAST, strength * sums.input_variance())
    return sums.solve(np.repeat(penalty, ROWS_PER_FRAME * NUM_HEARD))


def windows_of(rows: Float32) -> Float32:
    """Return the windows of padded rows [20 + T + 4, 4, 24] as a view [T, 25, 4, 24]."""
    return np.moveaxis(np.lib.stride_tricks.sliding_window_view(rows, WINDOW, axis=0), -1, 1)


class EverybodyWindows(NamedTuple, Generic[ArrayT]):
    """N pairs of neighbouring frames: window float32 [N, 2, 25, 4, 24], expression [N, 2, E], spread [N, E]."""

    window: ArrayT
    expression: ArrayT
    spread: ArrayT

    def on(self, device: torch.device) -> EverybodyWindows[Tensor]:
        """Return the batch as tensors on a device."""
        return EverybodyWindows(*tensors(self, device))


class EverybodySampler:
    """Sampler of pairs of neighbouring frames with nearly balanced speakers and slightly disturbed features.

    Args:
        clips: training clips. They are read when they are drawn.
        space: bases of mouths and of expression.
        silence: float32 [20], see silent_row.
        fitted: filters, of which the network corrects the shared one.
        config: settings.
    """

    def __init__(
        self, clips: Clips, space: ExpressionSpace, silence: Float32, fitted: Fitted, config: EverybodyTrainingConfig
    ) -> None:
        def prepared(place: int) -> EverybodyClip:
            return without_its_corpus(prepare(clips[place], space, silence), fitted)

        self._clips = BoundedCache(prepared, array_bytes)
        self._draw = Draw(clip_chances(clips.rows, config.speaker_exponent))
        self._config = config

    def draw(self, rng: np.random.Generator) -> EverybodyWindows[Float32]:
        """Draw a batch."""
        windows: list[Float32] = []
        expressions: list[Float32] = []
        spreads: list[Float32] = []
        while len(windows) < self._config.batch_size:
            clip = self._clips[self._draw(rng)]
            frame = int(clip.usable[rng.integers(len(clip.usable))])
            if frame + 1 >= len(clip.expression):
                continue
            rows = clip.rows[frame : frame + WINDOW + 1].copy()
            rows += rng.normal(0.0, self._config.level, NUM_HEARD).astype(np.float32)
            rows += rng.normal(0.0, self._config.noise, rows.shape).astype(np.float32)
            windows.append(np.stack([rows[:-1], rows[1:]]))
            expressions.append(clip.expression[frame : frame + 2])
            spreads.append(clip.spread)
        return EverybodyWindows(*(np.stack(part) for part in (windows, expressions, spreads)))
