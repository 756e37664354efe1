"""Kinds of processors, as far as the speed of networks depends on them."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

_X86: Final = frozenset({"x86_64", "amd64"})
_ARM: Final = frozenset({"aarch64", "arm64"})


class Processor(StrEnum):
    """Kind of processor, named after its fastest instructions for networks."""

    AMX = "amx"
    """x86 with matrix units for bfloat16 and int8."""
    AVX512_VNNI = "avx512_vnni"
    """x86 with products of int8 in registers of 512 bits."""
    AVX2 = "avx2"
    """x86 with registers of 256 bits."""
    X86 = "x86"
    """Another x86, or an x86 whose instruction sets are not known."""
    ARM = "arm"
    OTHER = "other"


_NEEDED: Final[tuple[tuple[Processor, frozenset[str]], ...]] = (
    # OpenVINO asks for avx512_bf16 before it computes in bfloat16, and a virtual machine can hide this flag.
    (Processor.AMX, frozenset({"amx_tile", "amx_bf16", "amx_int8", "avx512_bf16"})),
    (Processor.AVX512_VNNI, frozenset({"avx512f", "avx512bw", "avx512vl", "avx512_vnni"})),
    (Processor.AVX2, frozenset({"avx2", "fma"})),
)


def processor_of(machine: str, flags: frozenset[str]) -> Processor:
    """Return the kind of a processor.

    Args:
        machine: name of the architecture, as `platform.machine()` returns it.
        flags: instruction sets by Linux's names; empty where they are not known.
    """
    if machine.lower() in _ARM:
        return Processor.ARM
    if machine.lower() not in _X86:
        return Processor.OTHER
    return next((kind for kind, needed in _NEEDED if needed <= flags), Processor.X86)
