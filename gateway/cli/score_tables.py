"""Figures of an evaluation as text that stays readable in 80 columns: a row per figure, a column per variant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

WIDTH: Final = 80
"""Columns of a terminal that says nothing of its width; narrower ones wrap."""
_GAP: Final = 2


def score_lines(rows: Sequence[str], columns: Mapping[str, Mapping[str, float]], width: int = WIDTH) -> Iterator[str]:
    """Yield the lines of one table, or of several tables one under the other where all columns do not fit.

    Args:
        rows: names of the figures, in their order.
        columns: the figures of each column by name.
        width: columns of the terminal; at least `WIDTH` is used.
    """
    first = max(map(len, rows), default=0)
    room = max(width, WIDTH) - first
    names = list(columns)
    while names:
        shown = [names.pop(0)]
        while names and sum(_GAP + _width(name) for name in (*shown, names[0])) <= room:
            shown.append(names.pop(0))
        yield " " * first + "".join(f"{name:>{_GAP + _width(name)}}" for name in shown)
        for row in rows:
            yield f"{row:<{first}}" + "".join(f"{columns[name][row]:>{_GAP + _width(name)}.3f}" for name in shown)
        if names:
            yield ""


def _width(name: str) -> int:
    return max(len(name), 7)
