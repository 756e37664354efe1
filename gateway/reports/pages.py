"""Pages of reports: Jinja templates, plots as SVG, and the strip of a video's frames by reason.

Each report is one HTML file with the style inside and pictures beside the file. Plots have a transparent background and mid-grey
text, legible on light and on dark pages.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Final

import jinja2
import numpy as np
import numpy.typing as npt

from gateway.reports.folder import PAGE

_INK: Final = "#7d8794"
PALETTE: Final = ("#7d8794", "#2f7de1", "#e07b28", "#2f9e6e", "#b05fc4")
_STYLE: Final[dict[Any, Any]] = {
    "svg.hashsalt": "dubstage",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "text.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _INK,
    "grid.alpha": 0.2,
    "legend.frameon": False,
    "path.simplify": True,
}
DUBBED: Final = "DUBBED"
RENDERED: Final = frozenset({DUBBED, "SILENT"})
"""Reasons of frames whose mouth is rendered. In silent frames, the mouth is shut or at the person's rest."""
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
_TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True, slots=True)
class Curve:
    """A line of a plot: values, float [T], NaN where unknown, and the index of the colour in PALETTE."""

    label: str
    values: npt.NDArray[np.floating] = field(repr=False)
    colour: int = 1


def plot_curves(path: Path, curves: Sequence[Curve], frame_rate: float, ylabel: str, start_frame: int = 0) -> None:
    """Write curves over time in seconds to one SVG file. The same input gives the same bytes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # no pyplot: its global state does not fit a server

    with rc_context(_STYLE):
        figure = Figure(figsize=(10, 2.8), layout="constrained")
        axes: Any = figure.subplots()
        for curve in curves:
            seconds = (start_frame + np.arange(len(curve.values))) / frame_rate
            axes.plot(seconds, curve.values, label=curve.label, color=PALETTE[curve.colour % len(PALETTE)], linewidth=1.4)
        axes.set_xlabel("seconds")
        axes.set_ylabel(ylabel)
        axes.margins(x=0.01)
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(curves), borderaxespad=0.2)
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})


def plot_head_motion(path: Path, motions: Mapping[str, npt.NDArray[np.floating]], frame_rate: float, start_frame: int = 0) -> None:
    """Write plots of pitch, yaw and roll over time, one under the other, to one SVG file.

    Args:
        motions: head-pose vectors by the name of their curve, float [T, 6], NaN rows where unknown; the first one is grey and wide.
        frame_rate: frames per second.
        start_frame: number of the first frame.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(10, 5.6), layout="constrained")
        panels: Any = figure.subplots(3, 1, sharex=True)
        for axis, (axes, title) in enumerate(zip(panels, ("pitch, degrees", "yaw, degrees", "roll, degrees"), strict=True)):
            for index, (label, poses) in enumerate(motions.items()):
                seconds = (start_frame + np.arange(len(poses))) / frame_rate
                width = 3.0 if index == 0 else 1.4  # wide, so that it shows below an equal curve
                axes.plot(seconds, np.degrees(poses[:, axis]), label=label, color=PALETTE[index % len(PALETTE)], linewidth=width)
            axes.set_ylabel(title)
            axes.margins(x=0.01)
        panels[0].legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(motions), borderaxespad=0.2)
        panels[-1].set_xlabel("seconds")
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})


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
    """Return the runs of equal reasons in the order of the video."""
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


def number(value: float | None, digits: int = 2) -> str:
    """Return a number as text for a table; a dash if the number is unknown."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


@cache
def _environment(templates: Path) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([templates, _TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    return environment


def render_page(template: str, values: dict[str, Any], folder: Path, *, templates: Path = _TEMPLATES) -> Path:
    """Write `folder`/index.html from a template, and return the path of the page. The folder is made if it is missing.

    `templates` is the folder of the template, which may extend the base page of this package.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / PAGE
    text = _environment(templates).get_template(template).render(**values)
    page.write_text(text, encoding="utf-8", errors="backslashreplace")  # a file's name may hold bytes that are not UTF-8
    return page
