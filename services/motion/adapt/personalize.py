"""Adapts the motion predictor to one person from seconds of their footage.

Each coefficient c of the predictor gets a gain and an offset of the person's own, c' = gain c + offset, with r the correlation:

    gain_k = max(r_k, r_min)^p_k sigma(target_k) / sigma(c_k),     offset_k = mean(target_k) - gain_k mean(c_k)

p = 1 is least squares: what is uncertain shrinks. It holds for all coefficients but the first, the opening: there it would give a
mumble, while p = 0 (the full spread) would err at full size; p = .7 lies between. Both are pulled towards "as it is" where there
are few frames, and kept only where cross-validation over blocks of the footage confirms them. Closed form: no random numbers.
Corrections with more freedom (ridge regression on the last hidden layer) were tried and did not hold on other footage of the same
person.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.errors import NoUsableFootage
from services.motion.features import content_before, content_rows, silence
from services.motion.models import MotionModels
from services.motion.style import Style
from services.motion.types import WINDOW, WINDOW_AHEAD, WINDOW_PAST, Bool, Float32, SpeechFeatures

_Float64 = npt.NDArray[np.float64]

MAX_FRAMES: Final = 250
"""Frames that are learned from: the first ten seconds that are usable."""
MIN_FRAMES: Final = 50
NUM_BLOCKS: Final = 5
_PRIOR_FRAMES: Final = 50.0
_MIN_CORRELATION: Final = 0.1
_GAIN_RANGE: Final = (0.2, 1.4)
_OPENING_POWER: Final = 0.7


@dataclass(frozen=True, slots=True)
class Step:
    """Progress: `loss` is the error on blocks left out, relative to the style that came; `style` is set in the last one."""

    index: int
    count: int
    loss: float
    style: Style | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """Gain and offset of each coefficient, float64 [K]."""

    gain: _Float64
    offset: _Float64


def calibrate(predicted: _Float64, target: _Float64) -> Calibration:
    """Calibration from predicted and true coefficients, float64 [T, K], in units of the spread."""
    count = float(len(predicted))
    mean_c, mean_t = predicted.mean(axis=0), target.mean(axis=0)
    c, t = predicted - mean_c, target - mean_t
    size_c, size_t = np.sqrt((c * c).mean(axis=0)) + 1e-6, np.sqrt((t * t).mean(axis=0))
    correlation = (c * t).mean(axis=0) / (size_c * size_t + 1e-9)
    power = np.where(np.arange(predicted.shape[1]) == 0, _OPENING_POWER, 1.0)
    own = np.maximum(correlation, _MIN_CORRELATION) ** power * size_t / size_c
    share = count / (count + _PRIOR_FRAMES)
    gain = np.clip(share * own + (1.0 - share), *_GAIN_RANGE)
    return Calibration(gain, share * (mean_t - gain * mean_c))


def personalize(
    style: Style, features: SpeechFeatures, mouth_landmarks: Float32, usable: Bool, models: MotionModels
) -> Iterator[Step]:
    """Refine a style.

    Args:
        style: of EncodeStyle.
        features: of the enrolment footage, lag taken out, T frames.
        mouth_landmarks: float32 [T, 59, 3].
        usable: bool [T].
        models: the networks.

    Yields:
        A step a block, the refined style in the last one.

    Raises:
        NoUsableFootage: fewer than 50 usable frames.
    """
    frames = np.flatnonzero(usable)[:MAX_FRAMES]
    if len(frames) < MIN_FRAMES:
        raise NoUsableFootage(
            f"personalising motion needs {MIN_FRAMES} usable frames (2 s), the footage has {len(frames)}",
            subject="mouth_landmarks",
        )
    content = content_rows(SpeechFeatures.joined([features, silence(WINDOW_AHEAD)]))
    padded = np.concatenate([content_before(WINDOW_PAST), content])
    target = models.basis.project(mouth_landmarks[frames] - style.rest_mouth).astype(np.float64) / style.spread
    predicted: list[Float32] = []
    for block in np.array_split(frames, NUM_BLOCKS):
        predicted += [models.predict(padded[frame : frame + WINDOW], style.modulation) for frame in block]
        yield Step(len(predicted), len(frames) + 1, 1.0, None)
    coefficients = np.array(predicted, np.float64)
    as_it_came = Calibration(style.gain.astype(np.float64), style.offset.astype(np.float64))
    loss = held_out_loss(coefficients, target, as_it_came, style.spread.astype(np.float64) ** 2)
    refined = style
    if loss < 1.0:
        found = calibrate(coefficients, target)
        refined = replace(style, gain=found.gain.astype(np.float32), offset=found.offset.astype(np.float32))
    yield Step(len(frames) + 1, len(frames) + 1, min(loss, 1.0), refined)


def held_out_loss(predicted: _Float64, target: _Float64, as_it_came: Calibration, weight: _Float64) -> float:
    """Weighted squared error on blocks left out in turn, over that of the calibration as it came."""
    before = after = 0.0
    everything = np.arange(len(predicted))
    for block in np.array_split(everything, NUM_BLOCKS):
        keep = np.setdiff1d(everything, block)
        found = calibrate(predicted[keep], target[keep])
        unchanged = as_it_came.gain * predicted[block] + as_it_came.offset
        before += float(((unchanged - target[block]) ** 2 * weight).sum())
        after += float(((found.gain * predicted[block] + found.offset - target[block]) ** 2 * weight).sum())
    return after / max(before, 1e-9)
