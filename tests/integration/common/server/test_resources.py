"""No kernel of BLAS which a machine asks for changes the last bits."""

import os
import subprocess
import sys

import pytest

from services.common.server.resources import cpu_flags

SOLVE = """
import services, hashlib, numpy as np
random = np.random.default_rng(0)
a, b = random.normal(size=(86, 86)), random.normal(size=(86, 6))
print(hashlib.sha256(np.linalg.solve(a, b).tobytes()).hexdigest())
"""


@pytest.mark.skipif("avx2" not in cpu_flags(), reason="needs a processor with avx2")
def test_linear_system_bits_per_kernel() -> None:
    """A linear system has the same last bits whatever kernel the machine asks for."""
    digests = set()
    for kernel in (None, "Haswell", "Sandybridge", "SkylakeX"):
        environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
        if kernel is not None:
            environment["OPENBLAS_CORETYPE"] = kernel
        run = subprocess.run([sys.executable, "-c", SOLVE], env=environment, capture_output=True, text=True, timeout=90, check=True)
        digests.add(run.stdout)
    assert len(digests) == 1
