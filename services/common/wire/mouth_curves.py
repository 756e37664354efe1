"""Figures of a mouth over time: rest in silence, quick motion of the lips, fastest step, vowels and closures, correlation.

A curve is the opening of the mouth or the width of the lips, float [T], in one unit (crop pixels), on frames of equal length; NaN:
the mouth is unknown there. All figures that compare two curves are free of the unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from services.common.array_types import Bool, Float32, Float64, Floating
from services.common.errors import InvalidRequestError
from services.common.runs import runs
from services.common.wire.phones import PHONE_INDEX, PHONES
from services.common.wire.timeline import MOTION_RATE

MOTION_FRAME_S: Final = float(1 / MOTION_RATE)
"""Length of a frame of the motion grid, seconds."""
SPOKEN_FROM: Final = 0.5
"""Speech probability from which a frame counts as speech."""
SETTLE_S: Final = 0.16
"""Seconds after the end of the voice in which the mouth may still be open: 4 frames of 40 ms."""
ATTACK_S: Final = 0.2
"""Seconds before the voice begins in which the mouth may open already: 5 frames of 40 ms. Real mouths are widest 3 to 5 frames
before the voice (44 pauses of 22 people)."""
PAUSE_S: Final = 1.0
"""Shortest silence between two words that counts. In shorter pauses people leave the mouth open, by .4 to .5 of the range."""
SLOW_S: Final = 1.0
"""Width of the average that is the slow part of a curve, seconds."""
ROW_S: Final = 0.01
"""Seconds of a row of a phonetic posteriorgram."""
REACH_S: Final = 0.24
"""Seconds before and after a phone that are averaged."""
SAMPLE_S: Final = 0.02
"""Distance of the points of a triggered average, seconds."""
MIN_OTHER_EVENTS: Final = 10
"""Fewest phones of a triggered average that is compared with other people's (REAL_MS): their phones differ more."""
CLOSURES: Final = ("P", "B", "M")
OPEN_VOWELS: Final = ("AA", "AE", "AO", "AW", "AY", "EH")
Trigger = Literal["vowel", "closure"]
TRIGGERS: Final[dict[Trigger, tuple[str, ...]]] = {"vowel": OPEN_VOWELS, "closure": CLOSURES}
"""Phones on which the mouth is widest, and phones on which the lips close."""
SIGNS: Final[dict[Trigger, float]] = {"vowel": 1.0, "closure": -1.0}
"""Sign with which a curve is highest at its extreme about a phone."""
REAL_MS: Final[dict[Trigger, float]] = {"closure": -40.0, "vowel": -49.0}
"""Times of real people, milliseconds after the acoustic middle of p, b, m (lips closest) and of open vowels (mouth widest): people
begin to close and to open their lips before the sound. 16 people whose publishers corrected sound and picture with a sync
network, 62 closures (95 %: -49 to -27), 87 open vowels (-57 to -35), measured with MediaPipe and pocketsphinx
(research/motion/timing.py)."""
PHONES_LATE_MS: Final = 3.0
"""Milliseconds by which phones of the posteriorgram (phone_times) lie after pocketsphinx's, which REAL_MS is measured with: 2.9 on
711 vowels and 2.3 on 394 p, b, m that both find in 209 clips. So mouths reach their extremes earlier about phones of the
posteriorgram: by 4 ms about vowels (95 %: 8 to 0) and 3 ms about p, b, m (6 to 1) in free speech (30 clips of 18 people), and by
11 ms (21 to 3) and 7 ms (30 to -4) in six clips with corrected sync, which have few phones."""

_SURE: Final = 0.5
"""Probability from which a row of a posteriorgram is a phone."""
_MIN_ROWS: Final = 2
_SEARCHED_S: Final = 0.16
"""Seconds before and after a phone in which its extreme is looked for."""
_FITTED_S: Final[Float64] = np.linspace(-0.08, 0.08, 33)
"""Times about an extreme that a parabola is fitted to, seconds."""
_PARABOLA: Final[Float64] = np.asarray(np.linalg.pinv(np.vander(_FITTED_S, 3)), np.float64)
"""float64 [3, 33]: values at _FITTED_S to bend, slope and height of their parabola. Bootstraps fit thousands of parabolas."""
_FITS: Final = 8
"""Fits of a parabola, each about the vertex of the fit before. With the first fit alone, noise of the tracker moves an extreme by
twice as much."""
OFFSETS_S: Final[Float64] = np.asarray(np.arange(-round(REACH_S / SAMPLE_S), round(REACH_S / SAMPLE_S) + 1) * SAMPLE_S, np.float64)
"""float64 [W], times of the points of a triggered average, seconds after the phone."""


@dataclass(frozen=True, slots=True)
class SpeakingMotion:
    """Movement of a person's mouth in footage, crop pixels. A dub of the person is compared with these numbers.

    Attributes:
        rest_opening: opening at rest: 5th percentile of the opening.
        opening_range: 95th less 5th percentile of the opening.
        opening_spread: standard deviation of the opening while the person speaks.
        width_spread: standard deviation of the lip width about its slow part while the person speaks.
        fastest_step: largest change of the opening within 40 ms.
    """

    rest_opening: float
    opening_range: float
    opening_spread: float
    width_spread: float
    fastest_step: float


@dataclass(frozen=True, slots=True)
class MotionMetrics:
    """A dub's motion compared with the person's own motion, and its times with those of real people. NaN: not measured.

    Attributes:
        silence_opening: how far the mouth opens in silence, as a share of the person's range (silence_opening). 0: at rest.
        opening_spread: standard deviation of the opening while the dub speaks, divided by the person's own.
        width_spread: standard deviation of the lip width about its slow part while the dub speaks, divided by the person's own.
        fastest_step: largest change of the opening within 40 ms, divided by the person's own.
        vowel_shift_ms, closure_shift_ms: how much later than real people's the dub's mouth is widest about open vowels, and
            closest about p, b, m, milliseconds (REAL_MS).
    """

    silence_opening: float
    opening_spread: float
    width_spread: float
    fastest_step: float
    vowel_shift_ms: float
    closure_shift_ms: float


def speaking_motion(opening: Floating, width: Floating, spoken: Bool) -> SpeakingMotion | None:
    """Return how a person moves the mouth; None: fewer than a second is known, or the mouth never moves.

    Args:
        opening: float [T], opening of the mouth, 25 frames per second.
        width: float [T], width of the lips.
        spoken: bool [T], frames in which the person speaks. If no known frame is spoken, all known frames count.
    """
    finite = np.isfinite(opening)
    if int(finite.sum()) < 1.0 / MOTION_FRAME_S:
        return None
    counted = finite & spoken if (finite & spoken).any() else finite
    rest, extent = rest_and_range(opening)
    moves = (extent, spread(opening[counted]), spread(quick_part(width, MOTION_FRAME_S)[counted]), fastest(steps(opening)))
    if not all(math.isfinite(value) and value > 0.0 for value in moves):
        return None
    return SpeakingMotion(rest, *moves)


def motion_metrics(
    own: SpeakingMotion, opening: Floating, width: Floating, spoken: Bool, posteriorgram: Float32 | None
) -> MotionMetrics:
    """Return a dub's motion compared with the person's own motion, and its times with those of real people.

    Args:
        own: the person's motion.
        opening: float [T], target opening of the mouth in the dub, 25 frames per second.
        width: float [T], target width of the lips.
        spoken: bool [T], frames of speech in the new sound.
        posteriorgram: float32 [T, 4, 40], phone probabilities of the new sound; None: not known.
    """
    speaking = spoken & np.isfinite(opening)
    enough = int(speaking.sum()) >= 1.0 / MOTION_FRAME_S
    shifts = _shifts_ms(opening, posteriorgram)
    return MotionMetrics(
        silence_opening(opening, spoken, MOTION_FRAME_S, rest=own.rest_opening, extent=own.opening_range),
        spread(opening[speaking]) / own.opening_spread if enough else math.nan,
        spread(quick_part(width, MOTION_FRAME_S)[speaking]) / own.width_spread if enough else math.nan,
        fastest(steps(opening)) / own.fastest_step,
        shifts["vowel"],
        shifts["closure"],
    )


def _shifts_ms(opening: Floating, posteriorgram: Float32 | None) -> dict[Trigger, float]:
    """Return how much later than real people's mouths an opening reaches its extremes, milliseconds; NaN: not measured."""
    shifts: dict[Trigger, float] = dict.fromkeys(TRIGGERS, math.nan)
    if posteriorgram is None:
        return shifts
    seconds = np.asarray(np.arange(len(opening)) * MOTION_FRAME_S, np.float64)
    for kind, phones in TRIGGERS.items():
        around = around_phones(opening, seconds, phone_times(posteriorgram, phones))
        finite = around[np.isfinite(around).all(axis=1)]
        if len(finite) >= MIN_OTHER_EVENTS:
            shifts[kind] = 1e3 * extreme(SIGNS[kind] * finite.mean(axis=0))[0] - (REAL_MS[kind] - PHONES_LATE_MS)
    return shifts


def rest_and_range(opening: Floating) -> tuple[float, float]:
    """Return a person's opening at rest (5th percentile), and the range of the opening (95th less 5th percentile); NaN: unknown."""
    finite = opening[np.isfinite(opening)]
    if not len(finite):
        return math.nan, math.nan
    low, high = np.percentile(finite.astype(np.float64), [5, 95])
    return float(low), float(high - low)


def spread(curve: Floating) -> float:
    """Return the standard deviation of the known frames of a curve; NaN: fewer than three."""
    finite = curve[np.isfinite(curve)]
    return float(finite.std(dtype=np.float64)) if len(finite) >= 3 else math.nan


def quick_part(curve: Floating, frame_s: float) -> Float64:
    """Return a curve without its slow part, float64 [T].

        q_t = x_t - mean of the known x_s with |s - t| <= SLOW_S / 2

    Args:
        curve: float [T].
        frame_s: length of a frame, seconds.
    """
    finite = np.isfinite(curve)
    values = np.where(finite, curve, 0.0).astype(np.float64)
    reach = max(1, round(SLOW_S / 2.0 / frame_s))
    sums, counts = (np.concatenate([[0.0], np.cumsum(each)]) for each in (values, finite.astype(np.float64)))
    index = np.arange(len(curve))
    begin, end = np.maximum(index - reach, 0), np.minimum(index + reach + 1, len(curve))
    slow = (sums[end] - sums[begin]) / np.maximum(counts[end] - counts[begin], 1.0)
    return np.where(finite, curve - slow, np.nan)


def steps(curve: Floating) -> Float64:
    """Return |x_t - x_(t-1)| for each frame, float64 [T]; NaN for the first frame and beside unknown frames."""
    return np.abs(np.diff(curve.astype(np.float64), prepend=np.nan))


def fastest(changes: Floating) -> float:
    """Return the largest of the known steps; NaN: none is known."""
    finite = changes[np.isfinite(changes)]
    return float(finite.max()) if len(finite) else math.nan


def silent_spans(spoken: Bool, frame_s: float) -> list[slice]:
    """Return the frames in which a mouth is to be at rest, as slices of the frames.

    These are the silence before the first and after the last word, and pauses of at least PAUSE_S, without SETTLE_S after the end
    of the voice and ATTACK_S before the voice begins. In speech without a spoken frame, all frames are one stretch.

    Args:
        spoken: bool [T].
        frame_s: length of a frame, seconds.
    """
    settle, attack, pause = (math.ceil(seconds / frame_s - 1e-6) for seconds in (SETTLE_S, ATTACK_S, PAUSE_S))
    spans = []
    for silence in runs(~spoken):
        begin, end = silence.start, silence.stop
        inside = begin > 0 and end < len(spoken)
        stretch = slice(begin + (settle if begin > 0 else 0), end - (attack if end < len(spoken) else 0))
        if stretch.stop > stretch.start and (not inside or end - begin >= pause):
            spans.append(stretch)
    return spans


def silence_opening(opening: Floating, spoken: Bool, frame_s: float, *, rest: float, extent: float) -> float:
    """Return how far a mouth opens in silence, as a share of the person's range: 0 is at rest.

        mean over stretches of max_t max(0, o_t - rest) / range

    The largest opening of a span counts, because the mouth has to be at rest and to stay there. So the length of the silence
    does not matter.

    Args:
        opening: float [T].
        spoken: bool [T], frames of speech in the sound that the mouth follows.
        frame_s: length of a frame, seconds.
        rest: the person's opening at rest.
        extent: range of the person's opening, see rest_and_range.

    Returns:
        The share, at least 0; NaN: there is no silence, or nothing is known in it.
    """
    highest = [fastest(np.maximum(opening[stretch] - rest, 0.0)) for stretch in silent_spans(spoken, frame_s)]
    finite = [value for value in highest if math.isfinite(value)]
    return float(np.mean(finite)) / extent if finite and extent > 0.0 else math.nan


def phone_times(posteriorgram: Float32, phones: Sequence[str]) -> Float64:
    """Return the centres of phones, float64 [E], seconds from the first row.

    A phone is a run of rows in which the phones of the group have a probability over .5 together, of at least 20 ms. The centre is
    weighted by the probability. This needs no transcript, and works in every language.

    Args:
        posteriorgram: float32 [T, 4, 40], phone probabilities of the four 10 ms rows of each frame.
        phones: names of the group's phones (PHONES).

    Raises:
        InvalidRequestError: a name is no phone.
    """
    unknown = [phone for phone in phones if phone not in PHONE_INDEX]
    if unknown:
        raise InvalidRequestError(f"{unknown[0]!r} is no phone; there are: {', '.join(PHONES)}", field="phones")
    rows = posteriorgram.reshape(-1, posteriorgram.shape[-1])[:, [PHONE_INDEX[phone] for phone in phones]].sum(
        axis=1, dtype=np.float64
    )
    centres = (np.arange(len(rows)) + 0.5) * ROW_S
    phone_rows = [slice(run.start, run.stop) for run in runs(rows > _SURE) if len(run) >= _MIN_ROWS]
    return np.array([np.average(centres[own], weights=rows[own]) for own in phone_rows], np.float64)


def around_phones(curve: Floating, seconds: Float64, events_s: Float64) -> Float64:
    """Return a curve about each phone, float64 [E, W] at OFFSETS_S, by linear interpolation; NaN where the curve is not known.

    Args:
        curve: float [T], T >= 1.
        seconds: float64 [T], times of the frames on the clock of the phones, ascending.
        events_s: float64 [E], centres of the phones (phone_times).
    """
    target = events_s[:, None] + OFFSETS_S
    return np.interp(target, seconds, curve.astype(np.float64), left=np.nan, right=np.nan)


def correlation(truth: Floating, result: Floating) -> float:
    """Return Pearson's r of two curves; 0 if one of them is constant, NaN for fewer than three common frames."""
    both = np.isfinite(truth) & np.isfinite(result)
    if int(both.sum()) < 3:
        return float("nan")
    a, b = truth[both].astype(np.float64), result[both].astype(np.float64)
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale > 1e-9 else 0.0


def extreme(average: Float64) -> tuple[float, float]:
    """Return the time of the highest point of a triggered average, seconds, and its height over the mean; NaN: there is none."""
    searched = np.flatnonzero(np.abs(OFFSETS_S) <= _SEARCHED_S + 1e-9)
    top = int(searched[np.argmax(average[searched])])
    if top in (searched[0], searched[-1]):
        return math.nan, math.nan
    middle = vertex(OFFSETS_S, average, float(OFFSETS_S[top]), _SEARCHED_S)
    return (math.nan, math.nan) if math.isnan(middle) else (middle, float(average[top] - average.mean()))


def vertex(seconds: Float64, values: Float64, top_s: float, limit_s: float) -> float:
    """Return the time of the vertex of the parabola about a top, seconds, within the limit to either side; NaN: there is none."""
    middle = top_s
    for _ in range(_FITS):
        bend, slope, _ = _PARABOLA @ np.interp(middle + _FITTED_S, seconds, values)
        if bend >= 0.0:
            return math.nan
        away = float(np.clip(-slope / (2.0 * bend), _FITTED_S[0], _FITTED_S[-1]))
        middle = float(np.clip(middle + away, -limit_s, limit_s))
    return middle
