"""Tables of an evaluation for a terminal of at least 80 columns: one row per figure, one column per variant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

WIDTH: Final = 80
"""Least width of a table in characters. A narrower terminal wraps the lines."""
_GAP: Final = 2


def score_lines(rows: Sequence[str], columns: Mapping[str, Mapping[str, float]], width: int = WIDTH) -> Iterator[str]:
    """Yield the lines of one table. If not all columns fit, yield several tables, one under the other.

    Args:
        rows: names of the figures, in the order of the rows.
        columns: figures by name, for each column by name.
        width: width of the terminal in characters; a smaller number than `WIDTH` counts as `WIDTH`.
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
