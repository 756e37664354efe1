"""The quality gate: reasons why a person should look at a shot that is done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gateway.batch.types import Quality, ShotMotion, ShotRecord

_SILENCE: Final = "the largest opening of the mouth in silence, as a share of the person's own range,"
_OPENING: Final = "the spread of the mouth's opening over the person's own"
_WIDTH: Final = "the spread of the lip width over the person's own"
_STEP: Final = "the fastest change of the mouth's opening over the person's own"
_SHIFT: Final = "the time in ms by which the mouth is early or late at vowels or at p, b, m"


def reasons_to_look(quality: Quality, record: ShotRecord) -> tuple[str, ...]:
    """Return one sentence for each threshold that a finished shot misses. Empty: the shot passed.

    A shot whose correlation was not measured misses any threshold of the correlation, because nobody knows how the mouth moves.

    Args:
        quality: the thresholds of the shot.
        record: the record with the figures of the film.
    """
    reasons: list[str] = []
    share = record.frames_dubbed / record.frames if record.frames else 0.0
    if quality.min_dubbed_share is not None and share < quality.min_dubbed_share:
        shown = _beside(share, quality.min_dubbed_share)
        reasons.append(
            f"{record.frames_dubbed} of {record.frames} frames are dubbed, a share of {shown}: at least "
            f"{quality.min_dubbed_share} is wanted"
        )
    if quality.min_r_opening is not None:
        if record.r_opening is None:
            reasons.append("the correlation of wanted and shown mouth opening was not measured")
        elif record.r_opening < quality.min_r_opening:
            reasons.append(
                "the correlation of wanted and shown mouth opening is "
                f"{_beside(record.r_opening, quality.min_r_opening)}: at least {quality.min_r_opening} is wanted"
            )
    reasons += _motion_reasons(quality, record.motion or ShotMotion())
    if quality.max_warnings is not None and len(record.warnings) > quality.max_warnings:
        reasons.append(f"the number of warnings is {len(record.warnings)}: at most {quality.max_warnings} is wanted")
    return tuple(reasons)


def _motion_reasons(quality: Quality, motion: ShotMotion) -> Iterator[str]:
    """Yield one sentence for each threshold of the motion that a shot misses.

    A shot without silence, or with too few vowels and p, b, m, misses no threshold of them. A shot whose motion was not compared at
    all misses every threshold of the motion.
    """
    shifts = [shift for shift in (motion.vowel_shift_ms, motion.closure_shift_ms) if shift is not None]
    checks = (
        (_SILENCE, motion.silence_opening, None, quality.max_silence_opening, False),
        (_OPENING, motion.opening_spread, quality.min_opening_spread, quality.max_opening_spread, True),
        (_WIDTH, motion.width_spread, quality.min_width_spread, None, True),
        (_STEP, motion.fastest_step, None, quality.max_fastest_step, True),
        (_SHIFT, max(map(abs, shifts), default=None), None, quality.max_shift_ms, False),
    )
    for what, value, low, high, always in checks:
        if low is None and high is None:
            continue
        if value is None:
            if always or motion.fastest_step is None:
                yield f"{what} was not measured"
        elif low is not None and value < low:
            yield f"{what} is {_beside(value, low)}: at least {low} is wanted"
        elif high is not None and value > high:
            yield f"{what} is {_beside(value, high)}: at most {high} is wanted"


def _beside(value: float, threshold: float) -> str:
    """Return a measured number with three digits, or with as many digits as its threshold has."""
    return f"{value:.{max(3, len(str(threshold).partition('.')[2]))}f}"
