"""Kinds of processors, from flags as Linux prints them."""

from __future__ import annotations

import pytest

from services.render.backends.processor import Processor, processor_of

HASWELL = "sse sse2 ssse3 sse4_1 sse4_2 avx fma f16c avx2 bmi1 bmi2"
SKYLAKE = f"{HASWELL} avx512f avx512dq avx512cd avx512bw avx512vl"
ZEN_4 = f"{SKYLAKE} avx512_vnni avx512_bf16 avx512_vbmi2"
SAPPHIRE_RAPIDS = f"{ZEN_4} avx512_fp16 amx_bf16 amx_tile amx_int8"


@pytest.mark.parametrize(
    ("machine", "flags", "kind"),
    [
        ("x86_64", SAPPHIRE_RAPIDS, Processor.AMX),
        ("x86_64", SAPPHIRE_RAPIDS.replace("avx512_bf16", ""), Processor.AVX512_VNNI),
        ("x86_64", SAPPHIRE_RAPIDS.replace("amx_bf16", ""), Processor.AVX512_VNNI),
        ("x86_64", ZEN_4, Processor.AVX512_VNNI),
        ("x86_64", SKYLAKE, Processor.AVX2),
        ("x86_64", HASWELL, Processor.AVX2),
        ("x86_64", "sse sse2 ssse3", Processor.X86),
        ("AMD64", "", Processor.X86),
        ("aarch64", "", Processor.ARM),
        ("arm64", "", Processor.ARM),
        ("ppc64le", "", Processor.OTHER),
    ],
)
def test_the_fastest_instructions_name_the_kind(machine: str, flags: str, kind: Processor) -> None:
    assert processor_of(machine, frozenset(flags.split())) is kind
