"""Rows of a batch as text: `0-3,7` stands for the rows 0, 1, 2, 3 and 7.

Kubernetes writes the completed and the failed indexes of an Indexed Job in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from gateway.batch.manifest_rows import MOST_ROWS
from services.common.errors import InvalidRequest

_RANGE: Final = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


def parse_rows(text: str) -> tuple[int, ...]:
    """Return the rows of a text such as `0-3,7`. An empty text stands for no rows.

    Raises:
        InvalidRequest: the text is not of this form, the rows do not ascend, or a batch has no such row.
    """
    rows: list[int] = []
    for part in text.split(",") if text else ():
        found = _RANGE.fullmatch(part)
        first = int(found[1]) if found else 0
        last = int(found[2] or found[1]) if found else 0
        if found is None or last < first or (rows and first <= rows[-1]):
            raise InvalidRequest(f"rows: {part!r} in {text[:80]!r}: give ascending rows and ranges, such as 0-3,7", field="rows")
        if last >= MOST_ROWS:
            raise InvalidRequest(
                f"rows: {part!r} in {text[:80]!r}: a batch has at most the rows 0 to {MOST_ROWS - 1}", field="rows"
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
