"""Kernels that numba compiles, and the folder that keeps them compiled: compiling takes a process two seconds, loading .2 s.

Nothing is written beside the sources, unless the user has no other folder that can be written.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from numba import njit
from numba.core import config

_FOLDER_VARIABLE: Final = "NUMBA_CACHE_DIR"

_Function = TypeVar("_Function", bound=Callable[..., Any])


def kernel(function: _Function) -> _Function:
    """Compile a function at its first call, or load what an earlier process compiled.

    The folder is `NUMBA_CACHE_DIR`, or `dubstage/kernels` in the user's cache folder. Where no folder can be written, each process
    compiles.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return cast(_Function, njit(cache=True, **options)(function))
    except RuntimeError:
        # numba looks for the folder when a function is defined.
        return cast(_Function, njit(**options)(function))


def _folder() -> str:
    """Return the folder of compiled kernels; empty: numba chooses."""
    if given := os.environ.get(_FOLDER_VARIABLE):
        return given
    try:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    except RuntimeError:
        return ""
    # numba compiles a kernel again if the kernel's own file has changed. Kernels of other files contain `edge_function` of
    # rasterise_numba.py, and numba does not see changes there. So each content of rasterise_numba.py has a folder of its own.
    content = Path(__file__).with_name("rasterise_numba.py").read_bytes()
    return str(Path(base) / "dubstage" / "kernels" / hashlib.sha256(content).hexdigest()[:16])


config.CACHE_DIR = _folder()  # type: ignore[attr-defined]
