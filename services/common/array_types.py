"""Names of array types: NumPy arrays of one dtype and any shape. Docstrings give the shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Bool = npt.NDArray[np.bool_]
UInt8 = npt.NDArray[np.uint8]
Int16 = npt.NDArray[np.int16]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Floating = npt.NDArray[np.floating]
Float64 = npt.NDArray[np.float64]
Array = npt.NDArray[Any]
