"""Plots as SVG with a transparent background and mid-grey text, legible on light and on dark pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

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
        path: the file.
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
            for place, (label, poses) in enumerate(motions.items()):
                seconds = (start_frame + np.arange(len(poses))) / frame_rate
                width = 3.0 if place == 0 else 1.4  # wide, so that it shows below an equal curve
                axes.plot(seconds, np.degrees(poses[:, axis]), label=label, color=PALETTE[place % len(PALETTE)], linewidth=width)
            axes.set_ylabel(title)
            axes.margins(x=0.01)
        panels[0].legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(motions), borderaxespad=0.2)
        panels[-1].set_xlabel("seconds")
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})
