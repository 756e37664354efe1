"""Values of options and results as people write them: ages (7d), sizes (10G), names, NAME=PATH, lags in frames and milliseconds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from services.common.errors import InvalidRequestError

_NUMBER: Final = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*([a-zA-Z]?)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_BYTES: Final = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}


def names_in(text: str) -> list[str]:
    """Return the names of a text such as `train,val`; none of an empty text."""
    return [name.strip() for name in text.split(",") if name.strip()]


def parse_age(text: str, option: str) -> float:
    """Return the seconds of an age such as `90s`, `30m`, `12h`, `7d` or `4w`.

    Raises:
        InvalidRequestError: the text is not an age.
    """
    return _parse(text, option, _SECONDS, "an age such as 90s, 30m, 12h, 7d or 4w")


def parse_size(text: str, option: str) -> int:
    """Return the bytes of a size such as `500M` or `10G`. The units are powers of 1000.

    Raises:
        InvalidRequestError: the text is not a size.
    """
    return int(_parse(text, option, _BYTES, "a size such as 500M, 10G or 1T"))


def sound_against_picture(lag_frames: float) -> str:
    """Return a sentence about a lag that is not 0, without its full stop.

    Args:
        lag_frames: frames of 40 ms by which the sound comes after the picture; negative: before the picture.
    """
    size, side = abs(lag_frames), "after" if lag_frames > 0 else "before"
    frames = "1 frame" if size == 1 else f"{size:g} frames"
    return f"the sound of the footage comes {frames} ({40 * size:g} ms) {side} the picture"


def _parse(text: str, option: str, units: Mapping[str, int], expected: str) -> float:
    """Return the number in `text`, times the unit in `text`. `units` has lower-case names; upper-case letters count as well."""
    match = _NUMBER.fullmatch(text.strip())
    unit = match[2].lower() if match else ""
    if match is None or unit not in units:
        raise InvalidRequestError(f"{option} takes {expected}, not {text[:80]!r}", field=option)
    return float(match[1]) * units[unit]


def shown_size(num_bytes: int) -> str:
    """Return a size with three digits, such as `1.25 GB`."""
    power = min(4, int(math.log(num_bytes, 1000))) if num_bytes >= 1000 else 0
    return f"{num_bytes / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def shown_age(seconds: float) -> str:
    """Return an age in the largest unit that gives at least 2, such as `3 d`."""
    for unit in ("w", "d", "h", "m"):
        if seconds >= 2 * _SECONDS[unit]:
            return f"{seconds / _SECONDS[unit]:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def named_paths(values: Sequence[str], *, option: str) -> dict[str, Path]:
    """Return paths by name.

    Args:
        values: texts of the form NAME=PATH.
        option: name of the option, for messages.

    Raises:
        InvalidRequestError: a text has no `=`, a name stands twice, or a text is the name of a file itself.
    """
    paths: dict[str, Path] = {}
    for value in values:
        name, sign, path = value.partition("=")
        if not (name and sign and path):
            raise InvalidRequestError(f"--{option} {value}: NAME=PATH was expected, such as de=de.wav", field=option)
        if Path(value).is_file() and not Path(path).is_file():
            raise InvalidRequestError(
                f"--{option} {value}: there is no file {path}, but a file {value}: give NAME={value}", field=option
            )
        if name in paths:
            raise InvalidRequestError(f"--{option}: {name} is given twice", field=option)
        paths[name] = Path(path)
    return paths
