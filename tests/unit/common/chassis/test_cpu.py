"""What the processor can do, and that no kernel of BLAS which a machine asks for changes the last bits."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import scipy.linalg  # noqa: F401  # a BLAS beside that of NumPy
import threadpoolctl

from services.common.chassis.cpu import cpu_flags

SOLVE = """
import services, hashlib, numpy as np
random = np.random.default_rng(0)
a, b = random.normal(size=(86, 86)), random.normal(size=(86, 6))
print(hashlib.sha256(np.linalg.solve(a, b).tobytes()).hexdigest())
"""


@pytest.mark.skipif(platform.machine() != "x86_64" or not Path("/proc/cpuinfo").exists(), reason="names of Linux on x86")
def test_every_x86_64_processor_has_sse2() -> None:
    assert "sse2" in cpu_flags()


@pytest.mark.skipif("avx2" not in cpu_flags(), reason="one kernel for processors with AVX2")
def test_a_linear_system_has_the_same_last_bits_whatever_kernel_the_machine_asks_for() -> None:
    digests = set()
    for kernel in (None, "Haswell", "Sandybridge", "SkylakeX"):
        environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
        if kernel is not None:
            environment["OPENBLAS_CORETYPE"] = kernel
        run = subprocess.run([sys.executable, "-c", SOLVE], env=environment, capture_output=True, text=True, timeout=60, check=True)
        digests.add(run.stdout)
    assert len(digests) == 1


def test_the_tests_compute_in_one_thread_with_the_kernel_that_is_named() -> None:
    libraries = [found for found in threadpoolctl.threadpool_info() if found["internal_api"] == "openblas"]
    assert libraries
    assert {found["num_threads"] for found in libraries} == {1}
    if os.environ.get("OPENBLAS_CORETYPE") == "Haswell":
        assert {found["architecture"] for found in libraries} == {"Haswell"}


def test_a_program_that_loaded_numpy_before_dubstage_computes_in_one_thread_too() -> None:
    late = "import numpy, services, threadpoolctl; print({found['num_threads'] for found in threadpoolctl.threadpool_info()})"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OPENBLAS", "OMP"))}
    run = subprocess.run([sys.executable, "-c", late], env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "{1}"
