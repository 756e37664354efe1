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
from typing import Final

from gateway.batch.types import ShotRecord, ShotState
from gateway.reports.scales import SCALES

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
