"""Plugin of pytest that sets up the numeric libraries before any other plugin (`-p` in pyproject.toml).

Other plugins load NumPy, whose BLAS chooses its kernel and its threads then. Tests compute with the kernel of the product. To see
that they hold with another one too, name it: OPENBLAS_CORETYPE=Nehalem make unit (docs/determinism.md).

All processes of a run share compiled kernels of numba: compiling them takes two seconds of each process that draws faces.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

if "NUMBA_CACHE_DIR" not in os.environ:
    # Workers and all processes that tests start inherit the variable. A folder of the run: no kernel of other sources is in it.
    os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(prefix="dubstage-kernels-")
    atexit.register(shutil.rmtree, os.environ["NUMBA_CACHE_DIR"], ignore_errors=True)

_wanted = os.environ.get("OPENBLAS_CORETYPE")

import services  # noqa: E402, F401  # sets the variables that BLAS reads

if _wanted:
    os.environ["OPENBLAS_CORETYPE"] = _wanted
