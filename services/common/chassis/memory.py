"""Memory of the process."""

from __future__ import annotations

import os
from typing import Final

_STATM: Final = "/proc/self/statm"
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int | None:
    """Return the memory of this process in RAM, bytes; None where the platform does not say (not Linux)."""
    try:
        with open(_STATM, "rb", buffering=0) as file:
            return int(file.read(256).split()[1]) * _PAGE_BYTES
    except OSError:
        return None
