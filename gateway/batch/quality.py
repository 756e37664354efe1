"""The quality gate: reasons why a person should look at a shot that is done."""

from __future__ import annotations

from gateway.batch.types import Quality, ShotRecord


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
    if quality.max_warnings is not None and len(record.warnings) > quality.max_warnings:
        reasons.append(f"the number of warnings is {len(record.warnings)}: at most {quality.max_warnings} is wanted")
    return tuple(reasons)


def _beside(value: float, threshold: float) -> str:
    """Return a measured number with three digits, or with as many digits as its threshold has."""
    return f"{value:.{max(3, len(str(threshold).partition('.')[2]))}f}"
