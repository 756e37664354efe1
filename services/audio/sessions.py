"""ONNX Runtime sessions of the stage's networks."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime

from services.common.array_types import Float32
from services.common.errors import ModelNotFound

_MAX_WINDOWS: Final = 64
"""Windows in one run of a network. The number bounds memory; more windows bring no speed."""


def open_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """Load a network. Several streams may run the session at once.

    Args:
        path: the ONNX file.
        threads: threads inside one run.

    Raises:
        ModelNotFound: there is no such file.
    """
    if not path.is_file():
        raise ModelNotFound(f"no model at {path}", resource=str(path))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Idle worker threads must not spin: the other stages share the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run_windows(session: onnxruntime.InferenceSession, output: str, windows: Float32) -> Float32:
    """Run a network of the input `cepstra` over windows, float32 [N, W, 20] with N >= 1, and return its output [N, 4, C].

    The exports refuse a network whose bits depend on the number of windows in a run, so batches may follow a stream's chunks.
    """
    parts = [
        session.run([output], {"cepstra": windows[start : start + _MAX_WINDOWS]})[0]
        for start in range(0, len(windows), _MAX_WINDOWS)
    ]
    return np.concatenate(parts)
