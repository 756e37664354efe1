"""Instruction sets of this machine's processor."""

from __future__ import annotations

import functools
from pathlib import Path


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
