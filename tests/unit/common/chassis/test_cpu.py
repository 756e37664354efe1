"""What the processor can do, and that BLAS computes in one thread."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import scipy.linalg  # noqa: F401  # a BLAS beside that of NumPy
import threadpoolctl

from services.common.chassis.cpu import computes_bfloat16, cpu_flags


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not Path("/proc/cpuinfo").exists(),
    reason="needs Linux on x86_64, which names instruction sets in /proc/cpuinfo",
)
def test_every_x86_64_processor_has_sse2() -> None:
    assert "sse2" in cpu_flags()


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
def test_a_processor_with_instructions_for_bfloat16_computes_in_bfloat16(flag: str) -> None:
    assert computes_bfloat16(frozenset({"avx2", "fma", flag}))


@pytest.mark.parametrize("flags", [frozenset(), {"avx2", "fma"}, {"avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512_vnni"}])
def test_all_other_processors_would_emulate_bfloat16(flags: set[str]) -> None:
    assert not computes_bfloat16(frozenset(flags))


def test_the_tests_compute_in_one_thread_with_the_kernel_that_is_named() -> None:
    libraries = [found for found in threadpoolctl.threadpool_info() if found["internal_api"] == "openblas"]
    assert libraries
    assert {found["num_threads"] for found in libraries} == {1}
    if os.environ.get("OPENBLAS_CORETYPE") == "Haswell":
        assert {found["architecture"] for found in libraries} == {"Haswell"}


def test_a_program_that_loaded_numpy_before_dubstage_computes_in_one_thread_too() -> None:
    late = "import numpy, services, threadpoolctl; print({found['num_threads'] for found in threadpoolctl.threadpool_info()})"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OPENBLAS", "OMP"))}
    run = subprocess.run([sys.executable, "-c", late], env=environment, capture_output=True, text=True, timeout=300, check=True)
    assert run.stdout.strip() == "{1}"
