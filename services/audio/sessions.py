"""Runs of the stage's networks on ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from services.common.array_types import Float32

if TYPE_CHECKING:
    import onnxruntime

_MAX_WINDOWS: Final = 64
"""Windows in one run of a network. The number bounds memory; more windows bring no speed."""


def run_windows(session: onnxruntime.InferenceSession, output: str, windows: Float32) -> Float32:
    """Run a network of the input `cepstra` over windows, float32 [N, W, 20] with N >= 1, and return its output [N, 4, C].

    The exports refuse a network whose bits depend on the number of windows in a run, so batches may follow a stream's chunks.
    """
    parts = [
        session.run([output], {"cepstra": windows[start : start + _MAX_WINDOWS]})[0]
        for start in range(0, len(windows), _MAX_WINDOWS)
    ]
    return np.concatenate(parts)
