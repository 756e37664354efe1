"""The slow expression of a person in footage (a smile, tension), and a new mouth that keeps this expression.

A predictor hears the speech only, so a smiling person would lose the smile. What the footage's mouth shows beyond the prediction
from the footage's own sound is averaged over about a second, and added to the mouth that is predicted from the new speech:

    wanted(t)  = new(t) + offset(t) + (gain(t) - 1) * part of new(t) that opens the lips
    offset(t)  = average around t, EXPRESSION_S wide, of shut_lips(footage mouth) - shut_lips(explained mouth)
    gain(t)    = opening of the footage's mouth / opening of the explained mouth, averages around t, OPENING_S wide

Both mouths of the offset are shut, so the offset moves corners, lips and jaw, and opens no lips. The opening itself is scaled,
not moved, and only what exceeds SHUT_PX: lips that the prediction shuts stay shut.

The averages are normalised convolutions with Gaussian weights (Knutsson and Westin 1993): frames without a usable face have no
weight, and frames of other shots have none. The averages look into past and future alike, so the expression has no delay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from services.common.array_types import Bool, Float32, Float64, Int64
from services.common.face.landmarks import mouth_opening, shut_lips

EXPRESSION_S: Final = 1.0
"""Width of the average of the offset, seconds (full width at half of the largest weight). .42 of a change at .5 Hz passes, .03 of a
change at 1 Hz, and less than a millionth of one at 2 Hz, the rate of words."""
OPENING_S: Final = 4.0
"""Width of the average of the openings, seconds. How wide a person opens the mouth differs between words and pauses, so that a
shorter average would carry the old words' rhythm into the new words."""
SHUT_PX: Final = 2.0
"""Opening up to which lips count as shut, crop pixels. No such opening is scaled."""
LARGEST_GAIN: Final = 1.4
"""Largest gain of the opening; the smallest is its inverse. With 1.6 in place of 1.4, hardly any clip is better."""
REACH_S: Final = 5.1
"""Frames further away than this, seconds, have no weight in any average: three standard deviations of the widest average."""

_WIDTH_PER_DEVIATION: Final = 2.3548
"""Full width at half maximum of a Gaussian of standard deviation 1."""
_CALM_PX: Final = 1.0
"""Opening that is added to both openings of a gain, crop pixels: a person who hardly speaks has a gain near 1."""
_ENOUGH: Final = 0.5
"""Share of the weights around a frame that usable frames of the frame's shot must have. With less, the expression fades, because an
average of a few frames would be their own mouths and not their expression. At a shot cut the share is one half."""


@dataclass(frozen=True, slots=True)
class SlowExpression:
    """Slow expression of N frames.

    Attributes:
        offset: float32 [N, 59, 3], head space (crop pixels): what is added to a mouth. The offset opens no lips.
        gain: float32 [N], 1 / LARGEST_GAIN to LARGEST_GAIN: factor of the mouth's opening.
    """

    offset: Float32
    gain: Float32


@dataclass(frozen=True, slots=True)
class Mouths:
    """Mouths of M consecutive frames of footage.

    Attributes:
        seen: float32 [M, 59, 3], mouth-area landmarks of the footage, head space; any numbers where not usable.
        explained: float32 [M, 59, 3], mouths that the person's own sound explains; or [59, 3], the mean mouth: there is no sound.
        usable: bool [M], frames whose face can be used.
        seconds: float64 [M], presentation times, ascending.
        shot: int64 [M], number of the shot of each frame.
    """

    seen: Float32
    explained: Float32
    usable: Bool
    seconds: Float64
    shot: Int64


def slow_expression(mouths: Mouths, wanted: slice = slice(None)) -> SlowExpression:
    """Return the slow expression of the frames `wanted`.

    Without sound, the openings of the footage cannot be told from the opening of its words: the gain is 1.

    Args:
        mouths: the wanted frames, and all frames at most REACH_S before and after them.
        wanted: frames to answer.
    """
    explained = np.broadcast_to(mouths.explained, mouths.seen.shape)
    usable = mouths.usable
    beyond: Float64 = np.zeros(mouths.seen.shape, np.float64)
    beyond[usable] = _shut(mouths.seen[usable]) - _shut(explained[usable])
    weights, enough = _weights(mouths, wanted, EXPRESSION_S)
    average = np.tensordot(weights, beyond, axes=1) / np.maximum(weights.sum(axis=1), 1e-12)[:, None, None]
    gain: Float64 = np.ones(len(average), np.float64)
    if mouths.explained.ndim == mouths.seen.ndim:
        gain = _gain(mouths, wanted)
    return SlowExpression(np.asarray(average * enough[:, None, None], np.float32), np.asarray(gain, np.float32))


def carried(mouths: Float32, slow: SlowExpression) -> Float32:
    """Return mouths with a slow expression. Mouths whose opening is at most SHUT_PX keep their opening.

    Args:
        mouths: float32 [N, 59, 3], head space.
        slow: slow expression of N frames.

    Returns:
        float32 [N, 59, 3].
    """
    opening = mouth_opening(mouths)
    scaled = (slow.gain - 1.0) * np.maximum(opening - SHUT_PX, 0.0) / np.maximum(opening, SHUT_PX)
    opens = mouths - _shut(mouths)
    return np.asarray(mouths + slow.offset + scaled[:, None, None] * opens, np.float32)


def _gain(mouths: Mouths, wanted: slice) -> Float64:
    """Return the gain of the opening, float64 [N]. Frames on which the sound explains shut lips do not count."""
    seen, explained = (np.asarray(mouth_opening(each), np.float64) for each in (mouths.seen, mouths.explained))
    weights, _ = _weights(mouths, wanted, OPENING_S, every=True)
    speaks = mouths.usable & (explained > SHUT_PX)
    # Sums, and not averages over the speaking frames, so that a frame amid silence has a gain near 1.
    before, after = (weights @ np.where(speaks, each, 0.0) for each in (explained, seen))
    return np.clip((after + _CALM_PX) / (before + _CALM_PX), 1.0 / LARGEST_GAIN, LARGEST_GAIN)


def _weights(mouths: Mouths, wanted: slice, width_s: float, *, every: bool = False) -> tuple[Float64, Float64]:
    """Return the weight of every frame in the averages around the wanted frames, and how far usable frames are enough.

    Args:
        mouths: see `slow_expression`.
        wanted: frames to answer.
        width_s: width of the averages, seconds.
        every: divide the weights by the sum over all frames around, usable or not.

    Returns:
        float64 [N, M], 0 for frames that are not usable and for other shots; and float64 [N], 0 to 1.
    """
    seconds, shot = mouths.seconds, mouths.shot
    apart = np.abs(seconds[wanted, None] - seconds[None])
    around = np.exp(-0.5 * np.square(apart * (_WIDTH_PER_DEVIATION / width_s))) * (apart <= REACH_S)
    weights = around * (mouths.usable[None] & (shot[wanted, None] == shot[None]))
    total = around.sum(axis=1)
    share = weights.sum(axis=1) / total
    return (weights / total[:, None] if every else weights), np.minimum(share / _ENOUGH, 1.0)


def _shut(mouths: Float32) -> Float32:
    """Return the mouths with touching lips, float32 [N, 59, 3]."""
    return np.stack([shut_lips(mouth) for mouth in mouths]) if len(mouths) else np.empty_like(mouths)
