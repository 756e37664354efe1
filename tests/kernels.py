"""Plugin of pytest that sets up the numeric libraries before any other plugin (`-p` in pyproject.toml).

Other plugins load NumPy, whose BLAS chooses its kernel and its threads then. Tests compute with the kernel of the product. To see
that they hold with another one too, name it: OPENBLAS_CORETYPE=Nehalem make test TESTS=tests/unit (docs/determinism.md).

All processes share compiled kernels of numba: compiling them takes two seconds of each process that draws faces.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[1]
_wanted = os.environ.get("OPENBLAS_CORETYPE")


def _folder() -> Path:
    """Return the folder of the kernels of these sources. Other sources have another folder, so that no kernel of them is taken.

    A compiled kernel contains the kernels and the constants that it names, and those lie in modules that name numba.
    """
    digest = hashlib.sha256()
    for path in sorted((_CHECKOUT / "services").rglob("*.py")):
        content = path.read_bytes()
        if b"numba" in content:
            digest.update(content)
    return _CHECKOUT / ".pytest_cache" / "kernels" / digest.hexdigest()[:16]


if "NUMBA_CACHE_DIR" not in os.environ:
    # Workers and all processes that tests start inherit the variable.
    os.environ["NUMBA_CACHE_DIR"] = str(_folder())

# Test modules and ours are compiled once for all runs, also where PYTHONDONTWRITEBYTECODE is set: each process would take seconds.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


import services  # noqa: E402, F401  # sets the variables that BLAS reads

if _wanted:
    os.environ["OPENBLAS_CORETYPE"] = _wanted
