"""The present time as text, as tables, logs and receipts hold times."""

from __future__ import annotations

import datetime
from typing import Final

DAY_S: Final = 86400.0
"""Seconds of a day."""


def now() -> str:
    """Return the present time, RFC 3339, UTC, in whole seconds, such as 2026-12-01T18:00:00+00:00.

    The order of such texts is the order of the times, so tables can compare them.
    """
    return before_now(datetime.timedelta())


def before_now(age: datetime.timedelta) -> str:
    """Return an earlier time in the form of `now`."""
    return (datetime.datetime.now(datetime.UTC) - age).replace(microsecond=0).isoformat()


def now_ms() -> str:
    """Return the present time, RFC 3339, UTC, in milliseconds, such as 2026-12-01T18:00:00.123Z."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
