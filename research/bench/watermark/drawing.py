"""Tables in Markdown and plots of what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
import matplotlib.figure
import numpy as np

from gateway.provenance.watermark.detection import FALSE_ALARM_LOG10
from gateway.provenance.watermark.payload import WORD_BITS
from research.bench.watermark.dubs import NAMES, Row
from research.bench.watermark.undubbed import THRESHOLDS, Readings

_NO_MARK: Final = 0.8
"""Mean size of a bit in a film without the watermark: the mean size of a normal number."""


def markdown_of_dubs(rows: Sequence[Row]) -> str:
    """Return one line per dub: of every re-encoding the bits read right, and the mean size of a bit."""
    lines = [_line(["clip", "method", "face, px", "s", *NAMES]), _line(["---"] * (4 + len(NAMES)))]
    for film, method in dict.fromkeys((row.film, row.method) for row in rows):
        mine = {row.recoding: row for row in rows if (row.film, row.method) == (film, method)}
        first = next(iter(mine.values()))
        cells = [_cell(mine[name]) if name in mine else "" for name in NAMES]
        lines.append(_line([film, method, str(first.face_px), f"{first.seconds:.1f}", *cells]))
    return "\n".join(lines)


def sum_of_dubs(rows: Sequence[Row]) -> list[str]:
    """Return one line per re-encoding: the share of bits read right, the dubs with wrong bits, and those not read."""
    lines = []
    for name in NAMES:
        mine = [row for row in rows if row.recoding == name]
        if not mine:
            continue
        share = 100.0 * sum(row.bits_right for row in mine) / (WORD_BITS * len(mine))
        wrong = [f"{row.film} {row.method} {row.bits_right}/{WORD_BITS}" for row in mine if row.bits_right < WORD_BITS]
        unread = [f"{row.film} {row.method}" for row in mine if not row.read]
        text = f"{name}: {share:.2f} % of the bits of {len(mine)} dubs right, {len(mine) - len(unread)} read"
        lines.append(
            text + (f"; wrong bits: {', '.join(wrong)}" if wrong else "") + (f"; not read: {', '.join(unread)}" if unread else "")
        )
    return lines


def plot_dubs(rows: Sequence[Row], file: Path) -> None:
    """Draw the mean size of the bits of every dub and re-encoding, with the number of wrong bits where there are any."""
    figure = matplotlib.figure.Figure(figsize=(9, 4.8), layout="constrained")
    axes = figure.subplots()
    methods = list(dict.fromkeys(row.method for row in rows))
    for number, method in enumerate(methods):
        mine = [row for row in rows if row.method == method]
        aside = 0.6 * ((number + 0.5) / len(methods) - 0.5)
        across = [NAMES.index(row.recoding) + aside for row in mine]
        axes.plot(across, [row.mean_bit for row in mine], "o", markersize=4, alpha=0.7, label=method)
        for place, row in zip(across, mine, strict=True):
            if row.bits_right < WORD_BITS:
                axes.annotate(str(row.bits_right), (place, row.mean_bit), (4, -3), textcoords="offset points", fontsize=7)
    axes.axhline(_NO_MARK, color="grey", linestyle="--", label="no watermark")
    axes.set_xticks(range(len(NAMES)), NAMES, rotation=20)
    axes.set_ylabel("mean size of a bit, standard deviations")
    axes.set_ylim(0.0)
    axes.set_title(f"Every dot is a dub. A number at a dot: bits of {WORD_BITS} read right, where not all are", fontsize="medium")
    axes.legend(fontsize="small")
    _save(figure, file)


def plot_undubbed(readings: Readings, file: Path) -> None:
    """Draw the share of readings that state a probability of p or less over p, and the share that is promised: p."""
    figure = matplotlib.figure.Figure(figsize=(6.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for label, values in (("wrong keys", readings.wrong.ravel()), ("key of the installation", readings.own)):
        ordered = np.sort(values)
        axes.step(
            ordered,
            np.log10(np.arange(1, len(ordered) + 1) / len(ordered)),
            where="post",
            label=f"{label}: {len(ordered)} readings",
        )
    axes.plot([THRESHOLDS[-1], 0.0], [THRESHOLDS[-1], 0.0], color="grey", linestyle="--", label="promised: not above this line")
    axes.axvline(FALSE_ALARM_LOG10, color="black", linewidth=1, label="a mark is called found left of this line")
    axes.set_xlim(FALSE_ALARM_LOG10 - 0.3, 0.1)
    axes.set_xlabel("stated probability, log10")
    axes.set_ylabel("share of readings that state as little, log10")
    axes.legend(fontsize="small")
    _save(figure, file)


def _save(figure: matplotlib.figure.Figure, file: Path) -> None:
    # Without a date and with a fixed salt, so that the same numbers give the same file.
    with mpl.rc_context({"svg.hashsalt": "dubstage"}):
        figure.savefig(file, dpi=110, metadata={"Date": None} if file.suffix == ".svg" else None)


def _cell(row: Row) -> str:
    text = f"{row.bits_right}, {row.mean_bit:.2f}"
    return text if row.read else f"**not read** ({text})"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
