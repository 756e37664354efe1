"""The rows of a batch report for other programs: `shots.csv` and `shots.json`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, Final

from gateway.batch.report.rows import Row, Summary
from gateway.batch.types import BatchFacts

COLUMNS: Final = tuple(field.name for field in fields(Row))
"""Columns of `shots.csv`, and keys of a shot in `shots.json`."""
FORMAT: Final = 1
"""Version of the two files. A release that renames or removes a column counts up."""
_FORMULA: Final = frozenset("=+-@\uff1d\uff0b\uff0d\uff20|%")
"""Characters that make a spreadsheet program take a text for a formula or a command."""


def csv_of(rows: Sequence[Row]) -> str:
    """Return the rows as CSV with a line of column names.

    Numbers are written with a point, unknown values are empty, truth values are `true` and `false`. The texts of a list are joined
    by ` | `. Counts are written as `NAME=COUNT` and joined by `; `. A text that a spreadsheet program would take for a formula gets
    a `'` in front.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_cell(getattr(row, column)) for column in COLUMNS])
    return text.getvalue()


def json_of(facts: BatchFacts, summary: Summary, rows: Sequence[Row]) -> str:
    """Return the batch, its sums and its rows as one JSON document: ASCII, one shot a line."""
    batch = {"name": facts.name, "manifest_sha256": facts.manifest_sha256, "created_at": facts.created_at, "engine": facts.engine}
    head = {"format": FORMAT, "batch": batch, "summary": asdict(summary)}
    lines = ",\n".join(_compact({column: getattr(row, column) for column in COLUMNS}) for row in rows)
    return f'{_compact(head)[:-1]}, "shots": [\n{lines}\n]}}\n'


def _compact(document: Mapping[str, Any]) -> str:
    return json.dumps(document, allow_nan=False)


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case Mapping():
            return _safe("; ".join(f"{name}={count}" for name, count in sorted(value.items())))
        case tuple():
            return _safe(" | ".join(value))
        case _:
            return _safe(str(value))


def _safe(text: str) -> str:
    begin = text.lstrip("\t\r\n\0 ")[:1]
    return f"'{text}" if begin in _FORMULA or text[:1] in ("\t", "\r", "\n", "\0") else text
