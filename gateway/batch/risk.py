"""Risk of a shot: how urgently a person should look at the video, from what the record holds. Pure.

Each figure has a best value and an edge, beyond which few good videos lie. The part of a figure grows with its distance from the
best value over the distance of the edge from the best value:

    d = |x - best| / |edge - best|
    part = .1 d^2 up to the edge,  .1 + .9 (d - 1) beyond, at most 1
    risk = 1 - product of (1 - weight * part)

So a video on the edge of one figure has a risk of .1, and one twice as far away has the weight of the figure. The weight is below 1
where real videos lie beyond the edge too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.batch.types import ShotRecord, ShotState

FAILED: Final = 1.0
"""Risk of a shot that failed."""
UNDUBBED: Final = 0.99
"""Risk of a video without a dubbed frame."""
MISSED: Final = 0.7
"""Part of one threshold that the shot missed: the manifest says that a person must look."""
WARNING: Final = 0.05
"""Part of one warning."""
MOST_WARNINGS: Final = 5
"""Most warnings that count."""
Figures = Sequence[tuple[str, float, float]]
"""Figures of a finished video: name in SCALES, value, and part of the risk, 0 to 1."""


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
"""Scale of each figure of a record, by name."""


def figures_of(record: ShotRecord) -> Figures:
    """Return the figures of a finished video that add to its risk."""
    figures: dict[str, float | None] = {"r_opening": record.r_opening}
    for group in (record.motion, record.appearance, record.finish):
        if group is not None:
            figures.update(vars(group))
    if record.frames:
        figures["undubbed_share"] = 1.0 - record.frames_dubbed / record.frames
    # Reports of 100,000 shots ask for many figures, most of which have their best value.
    return [
        (name, value, part)
        for name, value in figures.items()
        if value is not None
        and (scale := SCALES.get(name)) is not None
        and value != scale.best
        and (part := scale.weight * scale.part(value))
    ]


def parts_of(record: ShotRecord, least: float = 0.0, figures: Figures | None = None) -> dict[str, float]:
    """Return what each figure, each missed threshold and each warning adds to the risk of a written video, 0 to 1, by text.

    Args:
        record: the record.
        least: figures that add less are left out.
        figures: `figures_of(record)`, if they are known.
    """
    figures = figures_of(record) if figures is None else figures
    parts = {f"{SCALES[name].text}: {_shown(value)}": part for name, value, part in figures if part >= least}
    parts |= dict.fromkeys(record.look, MISSED)
    return parts | dict.fromkeys(record.warnings[:MOST_WARNINGS], WARNING)


def _shown(value: float) -> str:
    return f"{value:.{4 if abs(value) < 0.01 else 3 if abs(value) < 0.1 else 2}f}"


def risk_of(record: ShotRecord, figures: Figures | None = None) -> float:
    """Return the risk of a shot, 0 to 1, rounded to four digits. A shot that has not ended, or was cancelled, has none.

    Args:
        record: the record.
        figures: `figures_of(record)`, if they are known.
    """
    if record.state is ShotState.FAILED:
        return FAILED
    if record.state is ShotState.UNDUBBED:
        return UNDUBBED
    if record.state is not ShotState.DONE:
        return 0.0
    good = (1.0 - MISSED) ** len(set(record.look)) * (1.0 - WARNING) ** len(set(record.warnings[:MOST_WARNINGS]) - set(record.look))
    for _, _, part in figures_of(record) if figures is None else figures:
        good *= 1.0 - part
    return round(1.0 - good, 4)


def reasons_of(record: ShotRecord, figures: Figures | None = None) -> Iterator[str]:
    """Yield why a written video has a risk, the largest part first: what is beyond an edge, thresholds and warnings.

    Args:
        record: the record.
        figures: `figures_of(record)`, if they are known.
    """
    if record.state is ShotState.FAILED:
        yield record.error
        return
    for text, _ in sorted(parts_of(record, WARNING, figures).items(), key=lambda one: -one[1]):
        yield text
