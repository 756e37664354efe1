"""Memory of the process."""

from __future__ import annotations

import ctypes
import gc
import os
from contextlib import suppress
from typing import Final

_STATM: Final = "/proc/self/statm"
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_M_ARENA_MAX: Final = -8
_ARENAS: Final = 2
_ARENAS_VARIABLE: Final = "MALLOC_ARENA_MAX"


def limit_arenas() -> None:
    """Let the C library keep freed memory in two arenas, unless `MALLOC_ARENA_MAX` says otherwise.

    By default each of many threads fills an arena of its own, and what a thread has freed is of no use to others. Call this before
    threads start. Where the C library is not glibc, nothing happens.
    """
    if _ARENAS_VARIABLE not in os.environ:
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def give_back_freed_memory() -> None:
    """Let the C library give freed memory back to the system. Otherwise the library keeps most of what small pieces were in.

    Where the C library is not glibc, nothing happens.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def skip_last_collection() -> None:
    """Let the interpreter end without a last search for unused objects. Call this when the process is about to end.

    The search visits the objects of every library, which takes a second after a dub, and the system frees all memory anyway.
    Handlers of `atexit` run as ever; `__del__` of objects that only refer to each other is not called.
    """
    gc.freeze()


def resident_bytes() -> int | None:
    """Return the memory of this process in RAM, bytes; None where the platform does not say (not Linux)."""
    try:
        with open(_STATM, "rb", buffering=0) as file:
            return int(file.read(256).split()[1]) * _PAGE_BYTES
    except OSError:
        return None
