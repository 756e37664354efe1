"""The frames of a film by reason: spans for a coloured strip, and counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

DUBBED: Final = "DUBBED"
RENDERED: Final = frozenset({DUBBED, "SILENT"})
"""Reasons of frames whose mouth is rendered. In silent frames, the mouth is shut."""
_COLOURS: Final = {
    DUBBED: "#2f9e6e",
    "NO_FACE": "#9aa3ad",
    "TARGET_NOT_PRESENT": "#6b7785",
    "LOW_CONFIDENCE": "#e0a13a",
    "PROFILE_VIEW": "#8f6fd0",
    "OCCLUDED_MOUTH": "#d0573f",
    "SILENT": "#4a90d9",
    "FACE_TOO_SMALL": "#b98a5e",
    "OUT_OF_FRAME": "#c25b97",
}
_OTHER: Final = "#444c56"


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive frames with one reason."""

    reason: str
    start: int
    stop: int
    colour: str
    start_percent: float
    width_percent: float
    start_s: float
    stop_s: float


@dataclass(frozen=True, slots=True)
class ReasonCount:
    """Number of frames with one reason."""

    reason: str
    frames: int
    percent: float
    colour: str


def spans_of(reasons: Sequence[str], frame_rate: Fraction) -> tuple[Span, ...]:
    """Return the runs of equal reasons in the order of the film."""
    spans: list[Span] = []
    start, total = 0, len(reasons)
    for frame in range(1, total + 1):
        if frame == total or reasons[frame] != reasons[start]:
            spans.append(
                Span(
                    reason=reasons[start],
                    start=start,
                    stop=frame,
                    colour=_COLOURS.get(reasons[start], _OTHER),
                    start_percent=100.0 * start / total,
                    width_percent=100.0 * (frame - start) / total,
                    start_s=float(start / frame_rate),
                    stop_s=float(frame / frame_rate),
                )
            )
            start = frame
    return tuple(spans) if total else ()


def counts_of(reasons: Sequence[str]) -> tuple[ReasonCount, ...]:
    """Return the number of frames per reason: dubbed frames first, then the most frequent reason."""
    return shares_of(Counter(reasons))


def shares_of(counted: Mapping[str, int]) -> tuple[ReasonCount, ...]:
    """Return numbers of frames per reason with their shares and colours: dubbed frames first, then the most frequent reason."""
    total = sum(counted.values())
    order = sorted(counted, key=lambda reason: (reason != DUBBED, -counted[reason], reason))
    return tuple(
        ReasonCount(reason, counted[reason], 100.0 * counted[reason] / total if total else 0.0, _COLOURS.get(reason, _OTHER))
        for reason in order
    )
