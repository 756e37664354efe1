"""Instruction sets of this machine's processor, and memory and unused objects of the process."""

from __future__ import annotations

import ctypes
import functools
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_STATM: Final = "/proc/self/statm"
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_ALLOCATOR: Final = (
    ("MALLOC_ARENA_MAX", -8, 2),
    ("MALLOC_TRIM_THRESHOLD_", -1, 64 << 20),
    ("MALLOC_MMAP_THRESHOLD_", -3, 32 << 20),
)
"""Parameters of glibc's allocator: environment variable, number for `mallopt`, and value."""


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Return instruction sets by Linux's names, such as "avx2"; empty on other systems and on processors that list none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return frozenset(value.split())
    return frozenset()


def computes_bfloat16(flags: frozenset[str]) -> bool:
    """Return whether a processor has instructions for bfloat16.

    On all other processors PyTorch emulates bfloat16, and a forward and backward pass takes about ten times as long as in float32.

    Args:
        flags: instruction sets by Linux's names.
    """
    return not flags.isdisjoint({"avx512_bf16", "amx_bf16"})


def tune_allocator() -> None:
    """Let the C library keep freed memory for the next frames, in two arenas, unless its environment variables say otherwise.

    By default each of many threads fills an arena of its own, and what a thread has freed is of no use to others. Freed memory of
    pictures also goes back to the system, which clears the same memory for the next picture. Call this before threads start. Where
    the C library is not glibc, nothing happens.
    """
    for variable, parameter, value in _ALLOCATOR:
        if variable not in os.environ:
            with suppress(OSError, AttributeError):
                ctypes.CDLL(None).mallopt(parameter, value)


def give_back_freed_memory() -> None:
    """Let the C library give freed memory back to the system. Otherwise the library keeps most of what small pieces were in.

    Where the C library is not glibc, nothing happens.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def collections_paused() -> Iterator[None]:
    """Search for no unused objects inside the context. Use the context for imports only.

    What an import makes is used until the process ends. Each search would visit all of it again, a tenth of the time of imports.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


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
