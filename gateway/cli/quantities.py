"""Ages and sizes as people write them: 7d, 10G."""

from __future__ import annotations

import math
import re
from typing import Final

from services.common.errors import InvalidRequest

_NUMBER: Final = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*([a-zA-Z]?)")
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_BYTES: Final = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}


def parse_age(text: str, option: str) -> float:
    """Seconds of an age such as `90s`, `30m`, `12h`, `7d` or `4w`.

    Raises:
        InvalidRequest: the text is none.
    """
    found = _NUMBER.fullmatch(text.strip())
    unit = found[2].lower() if found else ""
    if found is None or unit not in _SECONDS:
        raise InvalidRequest(f"{option} takes an age such as 90s, 30m, 12h, 7d or 4w, not {text[:80]!r}", field=option)
    return float(found[1]) * _SECONDS[unit]


def parse_size(text: str, option: str) -> int:
    """Bytes of a size such as `500M` or `10G` (powers of 1000).

    Raises:
        InvalidRequest: the text is none.
    """
    found = _NUMBER.fullmatch(text.strip())
    unit = found[2].upper() if found else ""
    if found is None or unit not in _BYTES:
        raise InvalidRequest(f"{option} takes a size such as 500M, 10G or 1T, not {text[:80]!r}", field=option)
    return int(float(found[1]) * _BYTES[unit])


def shown_size(num_bytes: int) -> str:
    """A size in three digits, such as `1.25 GB`."""
    power = min(4, int(math.log(num_bytes, 1000))) if num_bytes >= 1000 else 0
    return f"{num_bytes / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def shown_age(seconds: float) -> str:
    """An age in its largest unit, such as `3 d`."""
    for unit in ("w", "d", "h", "m"):
        if seconds >= 2 * _SECONDS[unit]:
            return f"{seconds / _SECONDS[unit]:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
