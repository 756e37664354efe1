"""Kinds of processors, from flags as Linux prints them."""

from __future__ import annotations

import pytest

from services.render.backends.base import (
    BACKEND_CHOICES,
    CHOICE_OF_PROCESSOR,
    PLAIN_CHOICE,
    BackendChoice,
    Processor,
    choice_for,
    default_choice,
    processor_of,
)
from services.render.types import Precision

BOTH = {"onnxruntime", "openvino"}
HASWELL = "sse sse2 ssse3 sse4_1 sse4_2 avx fma f16c avx2 bmi1 bmi2"
SKYLAKE = f"{HASWELL} avx512f avx512dq avx512cd avx512bw avx512vl"
ZEN_4 = f"{SKYLAKE} avx512_vnni avx512_bf16 avx512_vbmi2"
SAPPHIRE_RAPIDS = f"{ZEN_4} avx512_fp16 amx_bf16 amx_tile amx_int8"


def test_table_covers_processors() -> None:
    """The table has a choice for every kind of processor."""
    assert set(CHOICE_OF_PROCESSOR) == set(Processor)
    assert set(CHOICE_OF_PROCESSOR.values()) <= set(BACKEND_CHOICES)


def test_a_processor_with_matrix_units_computes_in_bfloat16() -> None:
    assert choice_for(Processor.AMX, BOTH) == BackendChoice("openvino", Precision.BFLOAT16)


@pytest.mark.parametrize("processor", [kind for kind in Processor if kind is not Processor.AMX])
def test_other_processors_compute_in_int8_on_onnx_runtime(processor: Processor) -> None:
    assert choice_for(processor, BOTH) == BackendChoice("onnxruntime", Precision.INT8)


@pytest.mark.parametrize("processor", list(Processor))
def test_missing_backend_falls_back(processor: Processor) -> None:
    """Without the backend of the table, the plain choice is taken."""
    assert choice_for(processor, {"onnxruntime"}) == PLAIN_CHOICE["cpu"]


def test_own_choice_is_in_table() -> None:
    """The choice of this machine is one of the table."""
    assert default_choice("cpu") in {*CHOICE_OF_PROCESSOR.values()}


def test_a_gpu_computes_in_float32() -> None:
    assert default_choice("cuda") == BackendChoice("onnxruntime", Precision.FLOAT32)


@pytest.mark.parametrize(
    ("machine", "flags", "kind"),
    [
        ("x86_64", SAPPHIRE_RAPIDS, Processor.AMX),
        ("x86_64", SAPPHIRE_RAPIDS.replace("avx512_bf16", ""), Processor.AVX512_VNNI),
        ("x86_64", SAPPHIRE_RAPIDS.replace("amx_bf16", ""), Processor.AVX512_VNNI),
        ("x86_64", ZEN_4, Processor.AVX512_VNNI),
        ("x86_64", SKYLAKE, Processor.AVX2),
        ("x86_64", HASWELL, Processor.AVX2),
        ("x86_64", "avx2 fma", Processor.AVX2),
        ("x86_64", HASWELL.replace("fma", ""), Processor.X86),
        ("x86_64", "sse sse2 ssse3", Processor.X86),
        ("AMD64", "", Processor.X86),
        ("aarch64", "", Processor.ARM),
        ("arm64", "", Processor.ARM),
        ("ppc64le", "", Processor.OTHER),
    ],
)
def test_the_fastest_instructions_name_the_kind(machine: str, flags: str, kind: Processor) -> None:
    assert processor_of(machine, frozenset(flags.split())) is kind
