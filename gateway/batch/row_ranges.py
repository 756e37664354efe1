"""Rows of a batch as text: `0-3,7` stands for the rows 0, 1, 2, 3 and 7, as Kubernetes writes the indexes of an Indexed Job."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from services.common.errors import InvalidRequestError

MOST_ROWS: Final = 100_000
"""Most rows of a batch."""
_RANGE: Final = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


def parse_rows(text: str) -> tuple[int, ...]:
    """Return the rows of a text such as `0-3,7`. An empty text stands for no rows.

    Raises:
        InvalidRequestError: the text is not of this form, the rows do not ascend, or a batch has no such row.
    """
    rows: list[int] = []
    for part in text.split(",") if text else ():
        bounds = _RANGE.fullmatch(part)
        first = int(bounds[1]) if bounds else 0
        last = int(bounds[2] or bounds[1]) if bounds else 0
        if bounds is None or last < first or (rows and first <= rows[-1]):
            raise InvalidRequestError(
                f"{part!r} in {text[:80]!r}: give ascending rows and ranges, such as 0-3,7", field="rows", named=True
            )
        if last >= MOST_ROWS:
            raise InvalidRequestError(
                f"{part!r} in {text[:80]!r}: a batch has at most the rows 0 to {MOST_ROWS - 1}", field="rows", named=True
            )
        rows.extend(range(first, last + 1))
    return tuple(rows)


def format_rows(rows: Iterable[int]) -> str:
    """Return the text of some rows. `parse_rows` reads this text."""
    ranges: list[list[int]] = []
    for row in sorted(set(rows)):
        if ranges and row == ranges[-1][1] + 1:
            ranges[-1][1] = row
        else:
            ranges.append([row, row])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
