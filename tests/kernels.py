"""Plugin of pytest that sets up the numeric libraries before any other plugin (`-p` in pyproject.toml).

Other plugins load NumPy, whose BLAS chooses its kernel and its threads then. Tests compute with the kernel of the product. To see
that they hold with another one too, name it: OPENBLAS_CORETYPE=Nehalem make unit (docs/determinism.md).
"""

from __future__ import annotations

import os

_wanted = os.environ.get("OPENBLAS_CORETYPE")

import services  # noqa: E402, F401  # sets the variables that BLAS reads

if _wanted:
    os.environ["OPENBLAS_CORETYPE"] = _wanted
