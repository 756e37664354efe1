"""Usual ranges of the figures of a dub: reports mark figures beyond, and batches sort shots by them. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Scale:
    """Usual range of one figure.

    Attributes:
        best: best value.
        low, high: edges; None: the figure cannot be too small, or too large.
        weight: share of the part that counts, 0 to 1.
        text: what the figure is, for a person.
    """

    best: float
    low: float | None
    high: float | None
    weight: float
    text: str

    def part(self, value: float) -> float:
        """Return the part of a value, 0 to 1."""
        edge = self.high if value > self.best else self.low
        if edge is None:
            return 0.0
        distance = abs(value - self.best) / abs(edge - self.best)
        return 0.1 * distance**2 if distance <= 1.0 else min(1.0, 0.1 + 0.9 * (distance - 1.0))

    def mark(self, value: float) -> str:
        """Return on which side of the usual range a value lies, `below` or `above`; empty: inside."""
        if self.low is not None and value < self.low:
            return "below"
        return "above" if self.high is not None and value > self.high else ""

    def range(self, shown: Callable[[float], str]) -> str:
        """Return the usual range in words.

        Args:
            shown: returns a number as text.
        """
        if self.low is None:
            return f"at most {shown(self.high)}" if self.high is not None else ""
        return f"{shown(self.low)} to {shown(self.high)}" if self.high is not None else f"at least {shown(self.low)}"


# The edges of the motion hold nine of ten comparisons of two halves of 29 real videos (docs/batch.md, "Quality gate").
# Those of the appearance are the worst halves of real videos (research/evaluation/README.md, "Planted faults"). r_opening,
# silence, shifts, face distance and clothing have the thresholds that docs/batch.md recommends. The edges of the finished
# video hold at least 96 % of 45 dubs of seven people, three seconds each (docs/batch.md, "Review"). Good dubs with other words
# often lie beyond the edges of spreads and silence, so that these have small weights.
SCALES: Final[dict[str, Scale]] = {
    "r_opening": Scale(1.0, 0.5, None, 0.9, "correlation of target and drawn mouth opening"),
    "silence_opening": Scale(0.0, None, 0.15, 0.4, "opening in silence"),
    "opening_spread": Scale(1.0, 0.73, 1.36, 0.4, "spread of the opening over the person's own"),
    "width_spread": Scale(1.0, 0.68, 1.47, 0.2, "spread of the lip width over the person's own"),
    "fastest_step": Scale(1.0, 0.69, 1.46, 0.2, "fastest change of the opening over the person's own"),
    "vowel_shift_ms": Scale(0.0, -40.0, 40.0, 0.7, "mouth later than real people's at open vowels, ms"),
    "closure_shift_ms": Scale(0.0, -40.0, 40.0, 0.7, "lips later than real people's at p, b, m, ms"),
    "tint_alarms": Scale(0.0, None, 0.11, 0.8, "open mouths with teeth of another colour"),
    "nostril_alarms": Scale(0.0, None, 0.25, 0.8, "frames with a dark place under the nose"),
    "low_contrast": Scale(0.0, None, 0.18, 0.4, "open mouths with a dull inside"),
    "popping": Scale(1.0, None, 1.27, 0.8, "change inside the mouth from frame to frame over the video's"),
    "clothing_moved": Scale(0.0, None, 0.1, 0.8, "frames in which clothing moves"),
    "face_distance": Scale(0.0, None, 0.43, 0.9, "distance of the face from the person's"),
    "lateness_ms": Scale(0.0, -40.0, 40.0, 0.95, "lateness of the mouth against the sound, ms"),
    "sync_confidence": Scale(0.7, 0.4, None, 0.95, "certainty that mouth and sound belong together"),
    "still_share": Scale(0.0, None, 0.1, 0.95, "share of the speech with a still mouth"),
    "seam": Scale(0.0, None, 0.0035, 0.95, "edge in the skin about the mouth"),
    "flicker": Scale(0.0, None, 0.01, 0.95, "flicker of the skin about the mouth"),
    "undubbed_share": Scale(0.0, None, 0.2, 0.7, "share of the frames that are not dubbed"),
}
"""Scale of each figure of a report or record, by name."""
